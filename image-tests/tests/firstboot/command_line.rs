//! The command line: help with examples, exit statuses, JSON that can be piped.

use anyhow::Result;
use firstboot::provision::State;
use image_tests::clients::openssl;
use image_tests::device::Device;
use image_tests::doubles::pki::Authority;
use image_tests::process::{Finished, finish};
use serde_json::{Value, json};

use crate::{assert_ends, exit, thing_name, usual};

#[test]
fn each_command_has_help_with_an_example() -> Result<()> {
    let device = Device::unprovisioned()?;
    for command in ["provision", "enroll", "status", "tpm", "reset"] {
        let help = device.succeed(&[command, "--help"])?;
        assert!(help.contains("Example"), "{help}");
        assert!(
            help.contains(&format!("firstboot {command}")) || command == "tpm",
            "{help}"
        );
    }
    let help = device.succeed(&["--help"])?;
    assert!(
        help.contains("Exit status: 0 done; 64 usage; 69 no TPM"),
        "{help}"
    );
    Ok(())
}

#[test]
fn wrong_arguments_end_with_64() -> Result<()> {
    let device = Device::unprovisioned()?;
    for arguments in [&["launch"][..], &["status", "--yaml"], &[]] {
        assert_eq!(device.run(arguments)?.code, exit::USAGE, "{arguments:?}");
    }
    Ok(())
}

#[test]
fn a_wrong_tcti_is_named() -> Result<()> {
    let mut device = usual()?;
    device.tcti = Some("serial:/dev/ttyS0".into());
    assert_ends(
        &device.run(&["provision"])?,
        exit::SETTINGS,
        "the TCTI \"serial:/dev/ttyS0\"",
    );
    Ok(())
}

#[test]
fn status_describes_each_stage() -> Result<()> {
    let device = usual()?;
    let status = || -> Result<Value> {
        Ok(serde_json::from_str(
            &device.succeed(&["status", "--json"])?,
        )?)
    };
    assert_eq!(status()?["state"], "Blank");
    device.succeed(&["provision"])?;
    let awaiting = status()?;
    assert_eq!(awaiting["state"], "AwaitingCertificate");
    assert_eq!(awaiting["thing_name"], thing_name());
    assert_eq!(awaiting["key"], "ecc-p256");
    device.drop_certificate(&Authority::new()?.sign(&device.request()?)?)?;
    device.succeed(&["enroll"])?;
    let before = device.snapshot()?;
    assert_eq!(status()?["state"], "Done");
    before.assert_same(&device.snapshot()?);
    let text = device.succeed(&["status"])?;
    assert!(text.contains("state          Done"), "{text}");
    Ok(())
}

/// Help and docs/status.md explain all the states of `status`, in the same words.
#[test]
fn help_and_docs_explain_every_state() -> Result<()> {
    let help = Device::unprovisioned()?.succeed(&["status", "--help"])?;
    let page = include_str!("../../../docs/status.md");
    let explained: Vec<_> = page
        .lines()
        .skip_while(|line| !line.starts_with("| state |"))
        .skip(2)
        .map_while(|line| {
            line.strip_prefix("| `")?
                .strip_suffix(" |")?
                .split_once("` | ")
        })
        .collect();
    for state in State::ALL {
        let (name, meaning) = (state.to_string(), state.meaning());
        assert!(
            help.contains(&format!("  {name}\n      {meaning}\n")),
            "{name}: {help}"
        );
        assert!(
            explained.contains(&(name.as_str(), meaning)),
            "{name}: {explained:?}"
        );
    }
    assert_eq!(explained.len(), State::ALL.len());
    Ok(())
}

/// For programs: numbers as numbers, times in RFC 3339, nothing that has to be parsed further.
#[test]
fn status_can_be_read_by_programs() -> Result<()> {
    let device = usual()?;
    let authority = Authority::new()?;
    device.enroll_with(&authority)?;
    device.tpm.set_lockout_auth("theirs")?;
    device.drop_certificate("no certificate")?;
    device.write("/etc/greengrass/config.yaml.unreadable", "?")?;
    let status: Value = serde_json::from_str(&device.succeed(&["status", "--json"])?)?;
    assert_eq!(status["version"], 1);
    assert_eq!(status["failed_tries"], 0);
    assert!(status["max_tries"].as_u64() > Some(0), "{status}");
    let certificate = &status["certificate"];
    assert_eq!(certificate["subject"], format!("CN={}", thing_name()));
    for time in ["not_before", "not_after"] {
        let time = certificate[time].as_str().unwrap_or_default();
        assert!(
            time.len() == 20 && time.ends_with('Z') && &time[10..11] == "T",
            "{time}"
        );
    }
    let refused = &status["refused"][0];
    let path = device.boot_file(&format!("certificates/{}.pem", thing_name()));
    assert_eq!(refused["path"], json!(path));
    assert!(
        refused["reason"]
            .as_str()
            .is_some_and(|reason| !reason.contains('/')),
        "{refused}"
    );
    assert_eq!(
        status["set_aside"],
        json!([device.path("/etc/greengrass/config.yaml.unreadable")])
    );
    // The file on the card has the same fields.
    device.succeed(&["enroll"])?;
    let on_card = device.status()?;
    for name in [
        "version",
        "thing_name",
        "state",
        "in_service",
        "certificate",
        "refused",
        "set_aside",
    ] {
        assert_eq!(on_card[name], status[name], "{name}");
    }
    let record: Value = serde_json::from_str(&std::fs::read_to_string(
        device.boot_file(&format!("requests/{}.json", thing_name())),
    )?)?;
    assert_eq!(record["version"], 1);
    Ok(())
}

/// An older firstboot's record has no version: it is read, and not made again.
#[test]
fn a_record_without_a_version_is_kept() -> Result<()> {
    let device = usual()?;
    device.succeed(&["provision"])?;
    let path = "/var/lib/tpm2_pkcs11/request.json";
    let text = device.read(path)?.replacen("  \"version\": 1,\n", "", 1);
    assert!(!text.contains("version"), "{text}");
    let file = device.path(path);
    let mode = std::fs::metadata(&file)?.permissions();
    device.write(path, &text)?;
    std::fs::set_permissions(&file, mode)?;
    device.succeed(&["provision"])?;
    assert_eq!(device.read(path)?, text);
    Ok(())
}

fn of_card(device: &Device, arguments: &[&str], tcti: Option<String>) -> Result<Finished> {
    let mut command = std::process::Command::new(image_tests::device::firstboot()?);
    command
        .env_clear()
        .arg("--root")
        .arg(device.root())
        .args(arguments);
    command.envs(tcti.map(|tcti| ("TPM2_PKCS11_TCTI", tcti)));
    finish(&mut command)
}

/// A card in a reader has no TPM, and this host's is another's: the card can be inspected, and is not changed.
#[test]
fn a_card_in_a_reader_can_only_be_inspected() -> Result<()> {
    let device = usual()?;
    device.enroll_with(&Authority::new()?)?;
    std::fs::remove_dir_all(device.path("/sys"))?;
    // The card has its own libraries.
    for line in device.read("/etc/greengrass/openssl.cnf")?.lines() {
        if let Some((_, path)) = line
            .split_once("= ")
            .filter(|(_, path)| path.ends_with(".so"))
        {
            device.write(path, "")?;
        }
    }
    let before = device.snapshot()?;
    for arguments in [&["provision"][..], &["enroll"], &["reset"], &["tpm"]] {
        let ended = of_card(&device, arguments, None)?;
        assert_eq!(ended.code, exit::USAGE, "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains("--tcti"), "{}", ended.stderr);
    }
    let shown = of_card(&device, &["status", "--json"], None)?;
    let status: Value = serde_json::from_str(&shown.stdout)?;
    assert_eq!(status["state"], "Done", "{status}");
    assert_eq!(
        status["thing_name"],
        thing_name(),
        "the serial number is the record's"
    );
    assert_eq!(status["tpm_looked_at"], false);
    assert_eq!(status["failed_tries"], Value::Null);
    before.assert_same(&device.snapshot()?);
    Ok(())
}

/// With its TPM named, by an argument or in the environment, a card is a device like any other.
#[test]
fn a_card_with_a_named_tpm_is_a_device() -> Result<()> {
    let device = usual()?;
    let ended = of_card(&device, &["provision"], Some(device.tpm.tcti()))?;
    assert_eq!(ended.code, exit::DONE, "{}", ended.stderr);
    assert_eq!(device.tpm.persistent_handles()?, [0x8100_0001]);
    let blank = usual()?;
    let shown = of_card(&blank, &["status", "--json"], None)?;
    let status: Value = serde_json::from_str(&shown.stdout)?;
    assert_eq!(
        status["state"], "Error",
        "no record, no serial number: {status}"
    );
    Ok(())
}

#[test]
fn tpm_explains_every_handle() -> Result<()> {
    let device = usual()?;
    device.succeed(&["provision"])?;
    let report: Value = serde_json::from_str(&device.succeed(&["tpm", "--json"])?)?;
    assert_eq!(report["persistent"][0]["handle"], "0x81000001");
    assert_eq!(
        report["persistent"][0]["object"],
        "an ECC storage key, noDA"
    );
    assert_eq!(report["limits"]["persistent"], 1);
    assert_eq!(report["lockout"]["counter"], 0);
    // tpm2-tools report the same.
    let shown = device.tpm.run(&["tpm2_getcap", "properties-fixed"])?;
    let manufacturer = report["manufacturer"].as_str().unwrap_or("?");
    assert!(shown.contains(manufacturer), "{manufacturer}: {shown}");
    Ok(())
}

/// `systemctl status` shows the current step.
#[test]
fn systemd_is_told_the_current_step() -> Result<()> {
    let device = usual()?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path)?;
    socket.set_nonblocking(true)?;
    let outcome = device.run_with(&["provision"], |command| {
        command.env("NOTIFY_SOCKET", &path)
    })?;
    assert_eq!(outcome.code, exit::DONE, "{}", outcome.stderr);
    let mut told = String::new();
    let mut buffer = [0; 4096];
    while let Ok(length) = socket.recv(&mut buffer) {
        told += &String::from_utf8_lossy(&buffer[..length]);
    }
    assert!(
        told.contains("STATUS=generating the ECC P-256 key in the TPM"),
        "{told}"
    );
    // The log has the same before the step, and its duration after it.
    let line = |text: &str| outcome.stderr.lines().position(|line| line.contains(text));
    let before = line("generating the ECC P-256 key in the TPM …");
    let after = line("generating the ECC P-256 key in the TPM: done in");
    assert!(before.is_some() && before < after, "{}", outcome.stderr);
    Ok(())
}

#[test]
fn the_subject_can_have_more_than_the_thing_name() -> Result<()> {
    let device = usual()?;
    let mut settings: Value =
        serde_json::from_str(&device.read("/boot/firstboot/firstboot.json")?)?;
    settings["subject"] = json!({ "O": "Example, Inc.", "OU": "Gateways", "C": "DE" });
    device.settings(&settings)?;
    device.succeed(&["provision"])?;
    let subject = || -> Result<String> {
        let mut show = openssl::plain(&["req", "-noout", "-subject", "-nameopt", "RFC2253", "-in"]);
        image_tests::process::succeed(show.arg(device.request()?))
    };
    let wanted = format!("CN={},OU=Gateways,O=Example\\, Inc.,C=DE", thing_name());
    assert!(subject()?.contains(&wanted), "{}", subject()?);

    // If it changes later, the request is made again, with the same key.
    let key = || -> Result<Value> {
        let status: Value = serde_json::from_str(&device.succeed(&["status", "--json"])?)?;
        Ok(status["key_sha256"].clone())
    };
    let before = key()?;
    settings["subject"]["OU"] = json!("Sensors");
    device.settings(&settings)?;
    device.succeed(&["provision"])?;
    assert!(subject()?.contains("OU=Sensors"), "{}", subject()?);
    assert_eq!(key()?, before);
    Ok(())
}

/// Anybody can compare the record with the request.
#[test]
fn the_record_matches_the_request() -> Result<()> {
    let device = usual()?;
    device.succeed(&["provision"])?;
    let request = device.request()?;
    let record: Value = serde_json::from_str(&std::fs::read_to_string(
        device.boot_file(&format!("requests/{}.json", thing_name())),
    )?)?;
    assert_eq!(record["serial"], image_tests::device::SERIAL);
    let sum = |script: &str| -> Result<String> {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", script, "sh"]).arg(&request);
        let line = image_tests::process::succeed(&mut shell)?;
        Ok(line
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned())
    };
    assert_eq!(record["csr_sha256"], sum("sha256sum \"$1\"")?);
    let key =
        "openssl req -in \"$1\" -pubkey -noout | openssl pkey -pubin -outform DER | sha256sum";
    assert_eq!(record["key_sha256"], sum(key)?);
    Ok(())
}

/// The card cannot be written, so the request cannot be published.
#[test]
fn a_file_that_cannot_be_written_is_named() -> Result<()> {
    let device = usual()?;
    device.write(
        "/boot/firstboot/requests",
        "a file where the folder belongs",
    )?;
    assert_ends(
        &device.run(&["provision"])?,
        exit::CANNOT_WRITE,
        "boot/firstboot/requests",
    );
    device.remove("/boot/firstboot/requests")?;
    device.succeed(&["provision"])?;
    Ok(())
}
