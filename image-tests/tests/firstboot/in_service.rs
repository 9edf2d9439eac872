//! An enrolled device stays in service, whatever is wrong with its input: it reports that, and changes nothing.

use std::fs;

use anyhow::{Context, Result};
use image_tests::clients::KeyType;
use image_tests::device::{Device, MACHINE_ID, Outcome, Snapshot};
use image_tests::doubles::pki::Authority;
use serde_json::{Value, json};

use crate::{assert_ends, device, exit, thing_name};

const SETTINGS: &str = "/boot/firstboot/firstboot.json";
const IMAGE: &str = "/usr/lib/firstboot/firstboot.json";

struct Enrolled {
    device: Device,
    authority: Authority,
}

impl Enrolled {
    fn new(edition: &str) -> Result<Self> {
        Self::with(device(edition, KeyType::EccP256)?)
    }

    fn with(device: Device) -> Result<Self> {
        let authority = Authority::new()?;
        device.enroll_with(&authority)?;
        Ok(Self { device, authority })
    }

    fn without_inputs(&self) -> Result<Snapshot> {
        let all = self.device.snapshot()?;
        Ok([
            "/boot",
            "/run",
            "/usr",
            "/etc/group",
            "/etc/machine-id",
            "/sys",
        ]
        .iter()
        .fold(all, |all, path| all.without(path)))
    }

    /// Both commands succeed and print these words, in the log and on the card; nothing else changes.
    #[track_caller]
    fn stays(
        &self,
        what: &str,
        words: &str,
        change: impl FnOnce(&Device) -> Result<()>,
    ) -> Result<()> {
        let before = self.without_inputs()?;
        change(&self.device)?;
        for command in ["provision", "enroll"] {
            let outcome = self.device.run(&[command])?;
            assert_eq!(outcome.code, exit::DONE, "{what}: {}", outcome.stderr);
            assert!(outcome.stderr.contains(words), "{what}: {}", outcome.stderr);
            before.assert_same(&self.without_inputs()?);
            let status = self.device.status()?;
            assert_eq!(status["state"], "Error", "{what}");
            assert_eq!(status["in_service"], true, "{what}");
            let message = status["message"].as_str().context("no message")?;
            assert!(message.contains(words), "{what}: {message}");
        }
        Ok(())
    }

    /// With the file put right, everything is as if nothing had happened.
    #[track_caller]
    fn recovers(&self, file: &str, content: &str) -> Result<()> {
        let before = self.without_inputs()?;
        self.device.write(file, content)?;
        self.device.succeed(&["provision"])?;
        self.device.succeed(&["enroll"])?;
        assert_eq!(self.device.status()?["state"], "Done");
        before.assert_same(&self.without_inputs()?);
        Ok(())
    }

    fn set(&self, key: &str, value: Value) -> Result<()> {
        let mut settings: Value = serde_json::from_str(&self.device.read(SETTINGS)?)?;
        settings[key] = value;
        self.device.settings(&settings)
    }

    fn enroll(&self) -> Result<Outcome> {
        self.device.run(&["enroll"])
    }

    fn configured_thing(&self) -> Result<Value> {
        let configuration: Value =
            serde_json::from_str(&self.device.read("/etc/greengrass/config.yaml")?)?;
        Ok(configuration["system"]["thingName"].clone())
    }
}

#[test]
fn unreadable_settings_leave_the_device_in_service() -> Result<()> {
    for edition in ["nucleus", "nucleus-lite"] {
        let enrolled = Enrolled::new(edition)?;
        let good = enrolled.device.read(SETTINGS)?;
        let cut = good[..good.len() / 2].to_owned();
        for (what, words, text) in [
            ("cut off", "firstboot.json", cut.as_str()),
            ("a list", "firstboot.json", "[]"),
            (
                "an unknown key",
                "unknown field `thing`",
                r#"{"thing": "gw"}"#,
            ),
            (
                "a placeholder without source",
                "thing_name",
                r#"{"thing_name": "gw-${mac}"}"#,
            ),
        ] {
            enrolled.stays(what, words, |device| device.write(SETTINGS, text))?;
        }
        enrolled.recovers(SETTINGS, &good)?;
    }
    Ok(())
}

#[test]
fn lost_image_files_leave_the_device_in_service() -> Result<()> {
    let enrolled = Enrolled::new("nucleus-lite")?;
    let good = enrolled.device.read(IMAGE)?;
    enrolled.stays("the image's settings", IMAGE, |device| {
        device.write(IMAGE, "{{")
    })?;
    enrolled.recovers(IMAGE, &good)?;
    enrolled.stays("no serial number", "${serial}", |device| {
        device.remove("/sys/firmware/devicetree/base/serial-number")
    })
}

#[test]
fn a_missing_edition_leaves_the_device_in_service() -> Result<()> {
    let enrolled = Enrolled::new("nucleus")?;
    enrolled.stays("no group", "there is no group ggcore", |device| {
        device.write("/etc/group", "root:x:0:\n")?;
        let mut settings: Value = serde_json::from_str(&device.read(SETTINGS)?)?;
        settings["greengrass"]["edition"] = json!("nucleus-lite");
        device.settings(&settings)
    })
}

#[test]
fn a_missing_template_leaves_the_device_in_service() -> Result<()> {
    let enrolled = Enrolled::new("nucleus-lite")?;
    enrolled.stays("no template", "enrollment.template_name is missing", |_| {
        enrolled.set("enrollment", json!({ "method": "fleet-provisioning" }))
    })
}

/// Only writing the configuration shows that the settings do not work.
#[test]
fn settings_that_turn_out_not_to_work_leave_the_device_in_service() -> Result<()> {
    let enrolled = Enrolled::new("nucleus-lite")?;
    let mut settings: Value = serde_json::from_str(&enrolled.device.read(SETTINGS)?)?;
    settings["greengrass"]["iot_role_alias"] = json!("AnotherAlias");
    let ours: Value = serde_json::from_str(&enrolled.device.read("/etc/greengrass/config.yaml")?)?;
    let mut theirs = ours.clone();
    theirs["services"]["com.example.Large"] = json!("x".repeat(8000));
    let before = theirs.to_string();
    enrolled
        .device
        .write("/etc/greengrass/config.yaml", &before)?;
    enrolled.device.settings(&settings)?;
    enrolled.device.succeed(&["provision"])?;
    assert_ends(&enrolled.enroll()?, exit::DONE, "reads only 8192");
    assert_eq!(enrolled.device.read("/etc/greengrass/config.yaml")?, before);
    Ok(())
}

/// A device that is not in service still ends with the exit status for wrong settings.
#[test]
fn without_a_configuration_wrong_settings_are_an_error() -> Result<()> {
    let enrolled = Enrolled::new("nucleus-lite")?;
    enrolled.device.write(SETTINGS, "{")?;
    enrolled.device.remove("/etc/greengrass/openssl.cnf")?;
    assert_ends(&enrolled.enroll()?, exit::SETTINGS, "firstboot.json");
    let status = enrolled.device.status()?;
    assert_eq!(status["state"], "Error");
    assert_eq!(status["in_service"], false);
    assert_eq!(status["thing_name"], thing_name(), "the certificate's");
    Ok(())
}

/// Until there is a certificate for the new name, the old name stays configured; then both change.
#[test]
fn a_renamed_thing_waits_for_its_certificate() -> Result<()> {
    let enrolled = Enrolled::new("nucleus-lite")?;
    let before = enrolled.without_inputs()?.without("/var/lib/tpm2_pkcs11");
    enrolled.set("thing_name", json!("pump-7"))?;
    for command in ["provision", "enroll", "enroll"] {
        let outcome = enrolled.device.run(&[command])?;
        assert_ends(&outcome, exit::DONE, "thing_name is now \"pump-7\"");
        assert_ends(&outcome, exit::DONE, "certificates/pump-7.pem");
        before.assert_same(&enrolled.without_inputs()?.without("/var/lib/tpm2_pkcs11"));
    }
    let status = enrolled.device.status()?;
    assert_eq!(status["state"], "AwaitingCertificate");
    assert_eq!(status["in_service"], true);
    assert_eq!(status["thing_name"], thing_name());
    assert_eq!(status["wanted_thing_name"], "pump-7");

    // The configuration is lost, and written again with the certificate's name.
    enrolled.device.remove("/etc/greengrass/config.yaml")?;
    assert_ends(&enrolled.enroll()?, exit::DONE, "pump-7");
    assert_eq!(enrolled.configured_thing()?, thing_name());

    let request = enrolled.device.boot_file("requests/pump-7.csr.pem");
    let certificate = enrolled.authority.sign(&request)?;
    fs::write(
        enrolled.device.boot_file("certificates/pump-7.pem"),
        certificate,
    )?;
    enrolled.device.succeed(&["enroll"])?;
    assert_eq!(enrolled.device.status()?["state"], "Done");
    assert_eq!(enrolled.configured_thing()?, "pump-7");
    Ok(())
}

/// The same, but without an edit: /etc was reset.
#[test]
fn another_machine_id_renames_no_device_in_service() -> Result<()> {
    let device = device("nucleus-lite", KeyType::EccP256)?;
    let mut settings: Value = serde_json::from_str(&device.read(SETTINGS)?)?;
    settings["thing_name"] = json!("gw-${machine_id}");
    device.settings(&settings)?;
    let enrolled = Enrolled::with(device)?;
    assert_eq!(enrolled.configured_thing()?, format!("gw-{MACHINE_ID}"));
    enrolled
        .device
        .write("/etc/machine-id", "ffffffffffffffffffffffffffffffff\n")?;
    assert_ends(
        &enrolled.enroll()?,
        exit::DONE,
        "gw-ffffffffffffffffffffffffffffffff",
    );
    assert_eq!(enrolled.configured_thing()?, format!("gw-{MACHINE_ID}"));
    // With the old ID back, the old certificate is the right one again.
    enrolled
        .device
        .write("/etc/machine-id", format!("{MACHINE_ID}\n"))?;
    enrolled.device.succeed(&["enroll"])?;
    assert_eq!(enrolled.device.status()?["state"], "Done");
    assert_eq!(enrolled.configured_thing()?, format!("gw-{MACHINE_ID}"));
    Ok(())
}

#[test]
fn a_transient_machine_id_names_nothing() -> Result<()> {
    let device = device("nucleus-lite", KeyType::EccP256)?;
    let mut settings: Value = serde_json::from_str(&device.read(SETTINGS)?)?;
    settings["thing_name"] = json!("gw-${machine_id}");
    device.settings(&settings)?;
    let refused = || -> Result<()> {
        let outcome = device.run(&["provision"])?;
        assert_ends(&outcome, exit::SETTINGS, "this board has none");
        Ok(())
    };
    for none in [
        "",
        "uninitialized\n",
        &MACHINE_ID[1..],
        &MACHINE_ID.to_uppercase(),
    ] {
        device.write("/etc/machine-id", none)?;
        refused()?;
    }
    device.remove("/etc/machine-id")?;
    refused()?;
    device.write("/run/machine-id", MACHINE_ID)?;
    std::os::unix::fs::symlink("../run/machine-id", device.path("/etc/machine-id"))?;
    refused()?;
    device.remove("/etc/machine-id")?;
    device.write("/etc/machine-id", format!("{MACHINE_ID}\n"))?;
    device.succeed(&["provision"])?;
    Ok(())
}

const STORE: &str = "/var/lib/tpm2_pkcs11";

fn orphans(device: &Device) -> Result<usize> {
    let beside = fs::read_dir(device.path("/var/lib"))?.flatten();
    let names = beside.map(|entry| entry.file_name().to_string_lossy().into_owned());
    Ok(names.filter(|name| name.contains(".orphan-")).count())
}

/// The request or its record is damaged: both are made again with the same key.
#[test]
fn a_damaged_request_costs_no_identity() -> Result<()> {
    type Damage = fn(&Device, &str) -> Result<()>;
    let damages: [(&str, Damage); 4] = [
        ("gone", |device, file| {
            Ok(fs::remove_file(device.path(file))?)
        }),
        ("empty", |device, file| device.write(file, "")),
        ("garbage", |device, file| device.write(file, [0u8; 700])),
        ("cut off", |device, file| {
            let text = device.read(file)?;
            device.write(file, &text[..text.len() / 2])
        }),
    ];
    let enrolled = Enrolled::with(device("nucleus", KeyType::Rsa2048)?)?;
    let awaiting = device("nucleus-lite", KeyType::EccP256)?;
    awaiting.succeed(&["provision"])?;
    let request = [format!("{STORE}/device.csr.pem")];
    let record = [format!("{STORE}/request.json")];
    let both = [request.clone(), record.clone()].concat();
    for (device, enroll, state) in [
        (&enrolled.device, exit::DONE, "Done"),
        (&awaiting, exit::WAITING, "AwaitingCertificate"),
    ] {
        let before = device.key_sha256(STORE)?;
        for files in [&request[..], &record, &both] {
            for (what, damage) in &damages {
                files.iter().try_for_each(|file| damage(device, file))?;
                device.succeed(&["provision"])?;
                let outcome = device.run(&["enroll"])?;
                assert_eq!(outcome.code, enroll, "{what} {files:?}: {}", outcome.stderr);
                assert_eq!(device.status()?["state"], state, "{what} {files:?}");
                assert_eq!(device.key_sha256(STORE)?, before, "{what} {files:?}");
                assert_eq!(orphans(device)?, 0, "{what} {files:?}");
                let signed = device.read(format!("{STORE}/device.csr.pem"))?;
                assert_eq!(signed, fs::read_to_string(device.request()?)?);
            }
        }
    }
    // … which the next certificate is for.
    awaiting.enroll_with(&Authority::new()?)?;
    assert_eq!(awaiting.status()?["state"], "Done");
    Ok(())
}

/// Nothing tells any more whose key it was: the identity is kept for inspection, and never restored.
#[test]
fn an_identity_beyond_repair_is_replaced() -> Result<()> {
    let device = device("nucleus-lite", KeyType::EccP256)?;
    device.succeed(&["provision"])?;
    let before = device.key_sha256(STORE)?;
    for file in ["device.csr.pem", "tpm2_pkcs11.sqlite3"] {
        device.write(format!("{STORE}/{file}"), [0u8; 700])?;
    }
    device.succeed(&["provision"])?;
    let after = device.key_sha256(STORE)?;
    assert_ne!(after, before);
    assert_eq!(orphans(&device)?, 1);
    device.succeed(&["provision"])?;
    assert_eq!(device.key_sha256(STORE)?, after);
    assert_eq!(orphans(&device)?, 1);
    Ok(())
}
