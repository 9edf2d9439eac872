//! The command line: help with examples, exit statuses, JSON that can be piped.

use anyhow::Result;
use image_tests::authority::Authority;
use image_tests::clients::openssl;
use image_tests::device::Device;
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
    // The same as tpm2-tools says.
    let shown = device.tpm.run(&["tpm2_getcap", "properties-fixed"])?;
    let manufacturer = report["manufacturer"].as_str().unwrap_or("?");
    assert!(shown.contains(manufacturer), "{manufacturer}: {shown}");
    Ok(())
}

/// `systemctl status` shows what takes so long.
#[test]
fn systemd_is_told_what_is_going_on() -> Result<()> {
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
        told.contains("STATUS=making the ECC P-256 key in the TPM"),
        "{told}"
    );
    // The same is said in the log before it starts, and how long it took afterwards.
    let line = |text: &str| outcome.stderr.lines().position(|line| line.contains(text));
    let before = line("making the ECC P-256 key in the TPM …");
    let after = line("making the ECC P-256 key in the TPM: done in");
    assert!(before.is_some() && before < after, "{}", outcome.stderr);
    Ok(())
}

#[test]
fn the_subject_can_have_more_than_the_things_name() -> Result<()> {
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

    // Changed afterwards, the request is made again, with the same key.
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

/// What the record says can be compared with the request by anybody.
#[test]
fn the_record_beside_the_request_is_true() -> Result<()> {
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

/// A card that cannot be written: the request has nowhere to go.
#[test]
fn what_cannot_be_written_is_named() -> Result<()> {
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
