//! The PIN never reaches a log, an argument list, a file that others can read, or the boot partition.

use std::os::unix::fs::PermissionsExt;

use anyhow::Result;
use image_tests::clients::KeyType;
use image_tests::doubles::pki::Authority;

use crate::{device, exit, usual};

#[test]
fn the_pin_stays_where_it_belongs() -> Result<()> {
    for (edition, holders) in [
        (
            "nucleus",
            &[
                "/greengrass/v2/config/config.yaml",
                "/var/lib/tpm2_pkcs11/pin",
            ][..],
        ),
        ("nucleus-lite", &["/var/lib/tpm2_pkcs11/pin"][..]),
        (
            "v1",
            &["/greengrass/config/config.json", "/var/lib/tpm2_pkcs11/pin"][..],
        ),
    ] {
        let device = device(edition, KeyType::EccP256)?;
        let loud = |command| device.run_traced(&["--verbose", command]);
        let mut said = loud("provision")?;
        device.drop_certificate(&Authority::new()?.sign(&device.request()?)?)?;
        for command in ["enroll", "status", "tpm"] {
            said += &loud(command)?;
        }
        assert!(said.contains("creating the identity"), "{said}");
        let pin = device.identity(KeyType::EccP256)?.pin()?;
        assert_eq!(pin.len(), 30);
        assert!(
            !said.contains(&pin),
            "the PIN is in the log, an argument or an environment"
        );

        let snapshot = device.snapshot()?;
        let mut found: Vec<String> = snapshot
            .files_with(pin.as_bytes())
            .iter()
            .map(|p| p.display().to_string())
            .collect();
        found.sort();
        assert_eq!(found, holders, "{edition}");
        for path in holders {
            let mode = std::fs::metadata(device.path(path))?.permissions().mode();
            assert_eq!(mode & 0o007, 0, "{path} is readable by everybody");
        }
        // The same for the store, which has the keys' encrypted private parts.
        for (path, entry) in snapshot.entries() {
            if path.starts_with("/var/lib") && path.to_string_lossy().contains("tpm2_pkcs11") {
                assert_eq!(entry.mode & 0o007, 0, "{}", path.display());
            }
        }
    }
    Ok(())
}

/// Whoever has the card has the claim key, so it must not be there unnoticed if nothing uses it. It belongs to the
/// operator, and stays.
#[test]
fn an_unused_claim_pair_is_reported() -> Result<()> {
    let device = usual()?;
    let words = "enrollment.method is offline: nothing uses it";
    let said = |command: &str, code: i32| -> Result<String> {
        let outcome = device.run(&[command])?;
        assert_eq!(outcome.code, code, "{}", outcome.stderr);
        Ok(outcome.stdout + &outcome.stderr)
    };
    assert!(!said("provision", exit::DONE)?.contains(words));
    for name in ["claim.key.pem", "claim.cert.pem"] {
        let file = device.boot_file(name);
        std::fs::write(&file, "the claim's secret")?;
        for (command, code) in [("provision", exit::DONE), ("enroll", exit::WAITING)] {
            let log = said(command, code)?;
            let line = log.lines().find(|line| line.contains(words));
            assert!(line.is_some_and(|line| line.starts_with("WARN")), "{log}");
            assert!(!log.contains("secret"), "{log}");
        }
        assert_eq!(std::fs::read_to_string(&file)?, "the claim's secret");
        std::fs::remove_file(file)?;
        assert!(!said("enroll", exit::WAITING)?.contains(words));
    }
    Ok(())
}
