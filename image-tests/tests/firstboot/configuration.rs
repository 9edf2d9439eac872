//! Each edition's configuration, in files that others write, too.

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::Result;
use image_tests::clients::{KeyType, pkcs11_tool};
use image_tests::device::{Device, offline_settings};
use image_tests::doubles::pki::Authority;
use serde_json::{Value, json};

use crate::{assert_ends, device, exit, thing_name, usual};

const NUCLEUS: &str = "/greengrass/v2/config/config.yaml";
const LITE: &str = "/etc/greengrass/config.yaml";
const V1: &str = "/greengrass/config/config.json";

fn enrolled(edition: &str) -> Result<Device> {
    let device = device(edition, KeyType::EccP256)?;
    device.enroll_with(&Authority::new()?)?;
    Ok(device)
}

fn json(device: &Device, path: &str) -> Result<Value> {
    Ok(serde_json::from_str(&device.read(path)?)?)
}

fn mode(device: &Device, path: &str) -> Result<u32> {
    Ok(fs::metadata(device.path(path))?.mode() & 0o7777)
}

#[test]
fn the_nucleus_is_configured() -> Result<()> {
    let device = enrolled("nucleus")?;
    let config = json(&device, NUCLEUS)?;
    assert_eq!(
        config["system"]["privateKeyPath"],
        "pkcs11:object=greenkey;type=private"
    );
    assert_eq!(
        config["system"]["certificateFilePath"],
        "pkcs11:object=greenkey;type=cert"
    );
    assert_eq!(config["system"]["rootCaPath"], "/greengrass/v2/root-ca.pem");
    assert_eq!(config["system"]["rootpath"], "/greengrass/v2");
    assert_eq!(config["system"]["thingName"], thing_name());
    let nucleus = &config["services"]["aws.greengrass.Nucleus"]["configuration"];
    assert_eq!(nucleus["awsRegion"], "eu-central-1");
    assert_eq!(
        nucleus["iotCredEndpoint"],
        "def456.credentials.iot.eu-central-1.amazonaws.com"
    );
    let plugin = &config["services"]["aws.greengrass.crypto.Pkcs11Provider"]["configuration"];
    assert_eq!(plugin["name"], "tpm2_pkcs11");
    assert!(plugin["slot"].is_u64() && plugin["userPin"].is_string());
    assert_eq!(mode(&device, NUCLEUS)?, 0o600);
    assert!(
        device
            .read("/greengrass/v2/root-ca.pem")?
            .contains("BEGIN CERTIFICATE")
    );
    Ok(())
}

#[test]
fn nucleus_lite_is_configured() -> Result<()> {
    let device = enrolled("nucleus-lite")?;
    let config = json(&device, LITE)?;
    let key = device.identity(KeyType::EccP256)?.uri("private");
    assert_eq!(config["system"]["privateKeyPath"], key);
    assert_eq!(
        config["system"]["certificateFilePath"],
        "/var/lib/tpm2_pkcs11/certificate.pem"
    );
    assert_eq!(config["system"]["thingName"], thing_name());
    assert!(device.read(LITE)?.len() < 8192);
    let openssl = device.read("/etc/greengrass/openssl.cnf")?;
    assert!(openssl.contains("pkcs11-module-token-pin = file:/var/lib/tpm2_pkcs11/pin"));
    assert!(openssl.contains("default = default_sect"));
    // ggconfigd reads all regular files, even hidden ones: there is no other.
    for entry in fs::read_dir(device.path("/etc/greengrass"))? {
        let entry = entry?;
        assert!(entry.file_type()?.is_file());
        let name = entry.file_name().into_string().unwrap_or_default();
        assert!(
            ["config.yaml", "openssl.cnf", "root-ca.pem"].contains(&name.as_str()),
            "{name}"
        );
    }
    Ok(())
}

#[test]
fn v1_is_configured() -> Result<()> {
    let device = enrolled("v1")?;
    let config = json(&device, V1)?;
    let arn = format!(
        "arn:aws:iot:eu-central-1:123456789012:thing/{}",
        thing_name()
    );
    assert_eq!(config["coreThing"]["thingArn"], arn);
    assert_eq!(config["crypto"]["PKCS11"]["slotLabel"], "greengrass");
    let pin = device.identity(KeyType::EccP256)?.pin()?;
    assert_eq!(config["crypto"]["PKCS11"]["slotUserPin"], pin);
    let certificate = &config["crypto"]["principals"]["IoTCertificate"]["certificatePath"];
    assert_eq!(*certificate, "file:///greengrass/certs/device.pem");
    assert_eq!(
        device.read("/greengrass/certs/device.pem")?,
        device.read("/var/lib/tpm2_pkcs11/certificate.pem")?
    );
    assert_eq!(mode(&device, V1)?, 0o600);
    Ok(())
}

/// GovCloud and China have other ARNs and other domains, and Beijing's endpoint has its own form.
#[test]
fn v1_is_configured_in_other_partitions() -> Result<()> {
    for (region, arn, host, data) in [
        (
            "us-gov-east-1",
            "arn:aws-us-gov:iot:us-gov-east-1:",
            "greengrass-ats.iot.us-gov-east-1.amazonaws.com",
            "abc123-ats.iot.us-gov-east-1.amazonaws.com",
        ),
        (
            "cn-north-1",
            "arn:aws-cn:iot:cn-north-1:",
            "greengrass.ats.iot.cn-north-1.amazonaws.com.cn",
            "abc123.ats.iot.cn-north-1.amazonaws.com.cn",
        ),
    ] {
        let device = Device::unprovisioned()?;
        let mut settings = offline_settings("v1", KeyType::EccP256);
        settings["greengrass"]["aws_region"] = json!(region);
        settings["greengrass"]["iot_data_endpoint"] = json!(data);
        settings["greengrass"]["iot_credential_endpoint"] = json!("");
        device.settings(&settings)?;
        device.enroll_with(&Authority::new()?)?;
        let thing = &json(&device, V1)?["coreThing"];
        assert_eq!(
            thing["thingArn"],
            format!("{arn}123456789012:thing/{}", thing_name())
        );
        assert_eq!(thing["ggHost"], host);
    }
    Ok(())
}

#[test]
fn amazons_root_is_the_default() -> Result<()> {
    let device = usual()?;
    device.succeed(&["provision"])?;
    device.drop_certificate(&Authority::new()?.sign(&device.request()?)?)?;
    device.succeed(&["enroll"])?;
    let amazon = device.read("/usr/lib/firstboot/AmazonTrustServices.pem")?;
    assert_eq!(device.read("/etc/greengrass/root-ca.pem")?, amazon);
    Ok(())
}

/// V1 takes intermediates only from this file.
#[test]
fn v1_gets_the_whole_chain() -> Result<()> {
    let device = device("v1", KeyType::EccP256)?;
    device.succeed(&["provision"])?;
    let chain = Authority::new()?.sign_by_intermediate(&device.request()?)?;
    device.drop_certificate(&chain)?;
    device.succeed(&["enroll"])?;
    let written = device.read("/greengrass/certs/device.pem")?;
    assert_eq!(written.matches("BEGIN CERTIFICATE").count(), 2, "{written}");
    Ok(())
}

/// meta-aws's YAML file: its version stays, its empty placeholders are replaced.
#[test]
fn the_images_configuration_stays() -> Result<()> {
    let device = device("nucleus", KeyType::EccP256)?;
    device.write(
        NUCLEUS,
        "---\nsystem:\n  certificateFilePath: \"\"\n  rootpath: \"/greengrass/v2\"\nservices:\n  \
         aws.greengrass.Nucleus:\n    componentType: \"NUCLEUS\"\n    version: \"2.16.0\"\n    \
         configuration:\n      awsRegion: \"us-east-1\"\n      mqtt:\n        port: 443\n",
    )?;
    device.enroll_with(&Authority::new()?)?;
    let config = json(&device, NUCLEUS)?;
    let nucleus = &config["services"]["aws.greengrass.Nucleus"];
    assert_eq!(nucleus["version"], "2.16.0");
    assert_eq!(nucleus["configuration"]["mqtt"], json!({ "port": 443 }));
    assert_eq!(nucleus["configuration"]["awsRegion"], "eu-central-1");
    assert_eq!(
        config["system"]["certificateFilePath"],
        "pkcs11:object=greenkey;type=cert"
    );

    device.succeed(&["reset"])?;
    let rest = json(&device, NUCLEUS)?;
    assert_eq!(
        rest["services"]["aws.greengrass.Nucleus"]["version"],
        "2.16.0"
    );
    assert!(
        rest["services"]
            .get("aws.greengrass.crypto.Pkcs11Provider")
            .is_none(),
        "{rest}"
    );
    assert!(rest["system"].get("privateKeyPath").is_none(), "{rest}");
    Ok(())
}

/// Each of these would override the new configuration.
#[test]
fn the_state_of_an_unknown_identity_does_not_win() -> Result<()> {
    for (edition, directory, derived, stays) in [
        (
            "nucleus",
            "/greengrass/v2/config",
            &[
                "config.tlog",
                "config.tlog~",
                "bootstrap.tlog",
                "bootstrap.tlog~",
                "effectiveConfig.yaml",
            ][..],
            "config.tlogs",
        ),
        (
            "nucleus-lite",
            "/var/lib/greengrass",
            &["config.db", "config.db-journal", "config.db.backup"][..],
            "config.database",
        ),
    ] {
        let device = device(edition, KeyType::EccP256)?;
        for name in derived.iter().chain([&stays]) {
            device.write(format!("{directory}/{name}"), "old")?;
        }
        device.enroll_with(&Authority::new()?)?;
        for name in derived {
            assert!(!device.exists(format!("{directory}/{name}")), "{name}");
            assert_eq!(device.read(format!("{directory}/{name}.earlier"))?, "old");
        }
        assert!(device.exists(format!("{directory}/{stays}")));
        // The state that Greengrass derives from the new configuration is left alone.
        let made = format!("{directory}/{}", derived[0]);
        device.write(&made, "new")?;
        device.succeed(&["enroll"])?;
        assert!(device.exists(&made));
    }
    Ok(())
}

#[test]
fn a_symbolic_link_is_replaced_by_a_file() -> Result<()> {
    let device = usual()?;
    device.write("/etc/elsewhere.yaml", "{}")?;
    fs::create_dir_all(device.path("/etc/greengrass"))?;
    std::os::unix::fs::symlink(device.path("/etc/elsewhere.yaml"), device.path(LITE))?;
    device.enroll_with(&Authority::new()?)?;
    assert!(fs::symlink_metadata(device.path(LITE))?.is_file());
    assert_eq!(device.read("/etc/elsewhere.yaml")?, "{}");
    Ok(())
}

#[test]
fn a_file_that_cannot_be_read_is_kept_beside_the_new_one() -> Result<()> {
    let device = usual()?;
    device.write(LITE, "system: [unfinished")?;
    device.enroll_with(&Authority::new()?)?;
    assert_eq!(json(&device, LITE)?["system"]["thingName"], thing_name());
    assert_eq!(
        device.read("/etc/greengrass/config.yaml.unreadable")?,
        "system: [unfinished"
    );
    Ok(())
}

/// ggconfigd would truncate it silently.
#[test]
fn a_value_too_long_for_lite_is_refused() -> Result<()> {
    let device = usual()?;
    let large = json!({ "services": { "com.example": { "note": "x".repeat(8000) } } }).to_string();
    device.write(LITE, &large)?;
    device.succeed(&["provision"])?;
    device.drop_certificate(&Authority::new()?.sign(&device.request()?)?)?;
    let outcome = device.run(&["enroll"])?;
    assert_ends(&outcome, exit::SETTINGS, "this edition reads only 8192");
    assert_eq!(device.read(LITE)?, large);
    Ok(())
}

/// Another edition on the same device gets its configuration, and its group gets the identity.
#[test]
fn the_edition_can_be_changed() -> Result<()> {
    let device = enrolled("nucleus")?;
    let group = |path: &str| -> Result<u32> { Ok(fs::metadata(device.path(path))?.gid()) };
    assert_eq!(group("/var/lib/tpm2_pkcs11/pin")?, 0);
    let settings = offline_settings("nucleus-lite", KeyType::EccP256);
    device.settings(&settings)?;
    device.succeed(&["enroll"])?;
    assert!(device.exists(LITE));
    assert!(!device.exists(NUCLEUS), "it has the PIN in it");
    for path in ["/var/lib/tpm2_pkcs11", "/var/lib/tpm2_pkcs11/pin"] {
        assert_eq!(group(path)?, device.group("ggcore"), "{path}");
    }
    Ok(())
}

/// The certificate is put into the token as soon as an edition reads it there.
#[test]
fn a_change_to_the_nucleus_puts_the_certificate_into_the_token() -> Result<()> {
    let device = enrolled("nucleus-lite")?;
    let identity = device.identity(KeyType::EccP256)?;
    let certificates = || -> Result<usize> {
        let objects = pkcs11_tool::list(&identity)?;
        Ok(objects.matches("Certificate Object").count())
    };
    assert_eq!(certificates()?, 0);
    device.settings(&offline_settings("nucleus", KeyType::EccP256))?;
    device.succeed(&["enroll"])?;
    assert_eq!(certificates()?, 1);
    assert!(json(&device, NUCLEUS)?["system"]["thingName"].is_string());
    Ok(())
}
