//! Starting over, again and again: neither the TPM nor the disk fills up.

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::Result;
use image_tests::clients::{KeyType, pkcs11_tool};
use image_tests::doubles::pki::Authority;

use crate::{assert_ends, exit, usual};

#[test]
fn twenty_times_reset_and_provision_leave_one_handle_and_two_old_identities() -> Result<()> {
    let device = usual()?;
    device.succeed(&["provision"])?;
    let mut keys = std::collections::BTreeSet::new();
    for _ in 0..20 {
        device.succeed(&["reset"])?;
        assert!(!device.exists("/var/lib/tpm2_pkcs11"));
        device.succeed(&["provision"])?;
        keys.insert(fs::read(device.request()?)?);
        assert_eq!(device.tpm.persistent_handles()?, [0x8100_0001]);
    }
    assert_eq!(keys.len(), 20, "each time another key");
    let mut kept: Vec<String> = fs::read_dir(device.path("/var/lib"))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    kept.sort();
    assert_eq!(
        kept,
        [
            "tpm2_pkcs11",
            "tpm2_pkcs11.orphan-19",
            "tpm2_pkcs11.orphan-20"
        ]
    );
    pkcs11_tool::sign_and_verify(&device.identity(KeyType::EccP256)?)
}

#[test]
fn reset_removes_the_configuration() -> Result<()> {
    let device = usual()?;
    device.enroll_with(&Authority::new()?)?;
    device.succeed(&["reset"])?;
    for gone in ["config.yaml", "openssl.cnf", "root-ca.pem"] {
        assert!(!device.exists(format!("/etc/greengrass/{gone}")), "{gone}");
    }
    assert_eq!(device.status()?["state"], "Blank");
    // The old certificate is still on the card, but for another key now.
    device.succeed(&["provision"])?;
    assert_ends(
        &device.run(&["enroll"])?,
        exit::WAITING,
        "it is for another key",
    );
    Ok(())
}

#[test]
fn a_blank_device_can_be_reset() -> Result<()> {
    let device = usual()?;
    device.succeed(&["reset"])?;
    device.succeed(&["reset"])?;
    device.succeed(&["provision"])?;
    Ok(())
}

#[test]
fn reset_needs_no_tpm() -> Result<()> {
    let mut device = usual()?;
    device.succeed(&["provision"])?;
    device.tpm.pull_the_plug();
    device.succeed(&["reset"])?;
    assert!(!device.exists("/var/lib/tpm2_pkcs11"));
    Ok(())
}

/// Without its PIN nobody can use the key, and only root sees what is left.
#[test]
fn reset_destroys_the_pin_and_leaves_the_rest_to_root() -> Result<()> {
    const ORPHAN: &str = "/var/lib/tpm2_pkcs11.orphan-1";
    let device = usual()?;
    device.enroll_with(&Authority::new()?)?;
    device.succeed(&["reset"])?;
    assert!(!device.exists(format!("{ORPHAN}/pin")));
    assert!(device.exists(format!("{ORPHAN}/certificate.pem")));
    let metadata = fs::metadata(device.path(ORPHAN))?;
    assert_eq!((metadata.mode() & 0o7777, metadata.gid()), (0o700, 0));
    Ok(())
}

#[test]
fn reset_keep_leaves_a_key_that_root_can_use() -> Result<()> {
    const ORPHAN: &str = "/var/lib/tpm2_pkcs11.orphan-1";
    let device = usual()?;
    device.succeed(&["provision"])?;
    let pin = device.identity(KeyType::EccP256)?.pin()?;
    device.succeed(&["reset", "--keep"])?;
    let mut kept = device.identity(KeyType::EccP256)?;
    kept.store = device.path(ORPHAN);
    kept.pin_file = kept.store.join("pin");
    assert_eq!(kept.pin()?, pin);
    pkcs11_tool::sign_and_verify(&kept)?;
    let metadata = fs::metadata(device.path(ORPHAN))?;
    assert_eq!((metadata.mode() & 0o7777, metadata.gid()), (0o700, 0));
    Ok(())
}

/// An identity that was given up does not come back, even if it fits the TPM.
#[test]
fn after_a_reset_there_is_another_key() -> Result<()> {
    for reset in [&["reset"][..], &["reset", "--keep"]] {
        let device = usual()?;
        device.enroll_with(&Authority::new()?)?;
        let before = fs::read(device.request()?)?;
        device.succeed(reset)?;
        device.succeed(&["provision"])?;
        assert_ne!(fs::read(device.request()?)?, before, "{reset:?}");
    }
    Ok(())
}

/// The power failed when only the mark was there: the next start does the rest.
#[test]
fn an_interrupted_reset_is_finished() -> Result<()> {
    for (mark, keeps) in [("reset", false), ("reset-keep", true)] {
        let device = usual()?;
        device.enroll_with(&Authority::new()?)?;
        device.write(format!("/var/lib/tpm2_pkcs11/{mark}"), "")?;
        assert_ends(&device.run(&["enroll"])?, exit::WAITING, "was interrupted");
        let pin = "/var/lib/tpm2_pkcs11.orphan-1/pin";
        assert_eq!(device.exists(pin), keeps, "{mark}");
        assert!(!device.exists("/etc/greengrass/config.yaml"));
    }
    Ok(())
}
