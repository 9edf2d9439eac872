//! Starting over, again and again: the TPM does not fill up, and neither does the disk.

use std::fs;

use anyhow::Result;
use image_tests::authority::Authority;
use image_tests::clients::{KeyType, pkcs11_tool};

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
fn reset_takes_the_configuration_away() -> Result<()> {
    let device = usual()?;
    device.enroll_with(&Authority::new()?)?;
    device.succeed(&["reset"])?;
    for gone in ["config.yaml", "openssl.cnf", "root-ca.pem"] {
        assert!(!device.exists(format!("/etc/greengrass/{gone}")), "{gone}");
    }
    assert_eq!(device.status()?["state"], "Blank");
    // The old certificate still lies on the card: it is another key's now.
    device.succeed(&["provision"])?;
    assert_ends(
        &device.run(&["enroll"])?,
        exit::WAITING,
        "it is for another key",
    );
    Ok(())
}

#[test]
fn reset_of_a_blank_device_is_fine() -> Result<()> {
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
