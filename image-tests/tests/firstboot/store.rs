//! Other programs' tokens, before and beside ours: tpm2-pkcs11 has one store for a whole system.

use std::fs;

use anyhow::Result;
use image_tests::clients::{Identity, KeyType, pkcs11_tool};
use image_tests::device::{Device, STORE};
use image_tests::doubles::pki::Authority;

use crate::{assert_ends, exit, usual};

/// Another program creates a token with this label in the store, as it would without firstboot.
fn make_token(device: &Device, label: &str) -> Result<()> {
    fs::create_dir_all(device.path(STORE))?;
    pkcs11_tool::make_token(&store(device, STORE)?, label)
}

/// A store in this directory, as another program uses it.
fn store(device: &Device, directory: &str) -> Result<Identity> {
    let mut identity = device.identity(KeyType::EccP256)?;
    identity.store = device.path(directory);
    Ok(identity)
}

#[track_caller]
fn assert_stops(device: &Device, words: &str) -> Result<()> {
    let before = device.snapshot()?.without("/boot").without("/run");
    for command in ["provision", "enroll"] {
        assert_ends(&device.run(&[command])?, exit::OTHER, words);
    }
    assert_eq!(device.status()?["state"], "ForeignStore");
    before.assert_same(&device.snapshot()?.without("/boot").without("/run"));
    Ok(())
}

/// Even if it has our label: AWS's tutorial creates one with that name.
#[test]
fn a_store_that_was_there_before_is_left_alone() -> Result<()> {
    for label in ["disk", "greengrass"] {
        let device = usual()?;
        make_token(&device, label)?;
        assert_stops(&device, &format!("the token {label:?} of another program"))?;
        for _ in 0..3 {
            device.succeed(&["reset"])?;
            assert_stops(&device, "set TPM2_PKCS11_STORE to its new place")?;
        }
        let labels = pkcs11_tool::token_labels(&store(&device, STORE)?)?;
        assert_eq!(labels, [label]);
        // The message's advice helps.
        fs::rename(device.path(STORE), device.path("/var/lib/other"))?;
        device.enroll_with(&Authority::new()?)?;
        let labels = pkcs11_tool::token_labels(&store(&device, "/var/lib/other")?)?;
        assert_eq!(labels, [label]);
    }
    Ok(())
}

#[test]
fn unknown_files_are_left_alone() -> Result<()> {
    let device = usual()?;
    device.write(format!("{STORE}/vpn.key"), "theirs")?;
    assert_stops(&device, "files of another program")
}

/// A package's empty directory, and the store that the library creates at any use, belong to nobody.
#[test]
fn an_empty_directory_and_a_store_without_tokens_are_no_obstacle() -> Result<()> {
    let device = usual()?;
    fs::create_dir_all(device.path(STORE))?;
    device.succeed(&["provision"])?;
    assert!(!device.exists("/var/lib/tpm2_pkcs11.orphan-1"));

    let device = usual()?;
    fs::create_dir_all(device.path(STORE))?;
    assert!(pkcs11_tool::token_labels(&store(&device, STORE)?)?.is_empty());
    assert!(device.exists(format!("{STORE}/tpm2_pkcs11.sqlite3")));
    device.enroll_with(&Authority::new()?)
}

#[test]
fn a_token_beside_ours_is_left_alone() -> Result<()> {
    let device = usual()?;
    device.enroll_with(&Authority::new()?)?;
    make_token(&device, "disk")?;
    device.succeed(&["enroll"])?;
    assert_eq!(device.status()?["state"], "Done");
    let outcome = device.run(&["reset"])?;
    assert_ends(&outcome, exit::OTHER, "the token \"disk\"");
    device.succeed(&["enroll"])?;
    // Ours is lost; theirs is not.
    device.remove(format!("{STORE}/pin"))?;
    assert_stops(&device, "pin is missing")?;
    let labels = pkcs11_tool::token_labels(&store(&device, STORE)?)?;
    assert_eq!(labels, ["greengrass", "disk"]);
    Ok(())
}

/// Another TPM cannot use the old one's tokens: the whole store is set aside, and stays.
#[test]
fn a_store_with_somebody_elses_token_is_never_removed() -> Result<()> {
    let mut device = usual()?;
    device.succeed(&["provision"])?;
    make_token(&device, "disk")?;
    for _ in 0..4 {
        let other = usual()?;
        device.tcti = Some(other.tpm.tcti());
        device.succeed(&["provision"])?;
        if !device.exists("/boot/firstboot/root-ca.pem") {
            // With certificates, the others are worth more than ours.
            device.enroll_with(&Authority::new()?)?;
        }
    }
    let orphan = store(&device, "/var/lib/tpm2_pkcs11.orphan-1")?;
    assert_eq!(pkcs11_tool::token_labels(&orphan)?, ["greengrass", "disk"]);
    device.tcti = None;
    device.succeed(&["provision"])?;
    let labels = pkcs11_tool::token_labels(&store(&device, STORE)?)?;
    assert_eq!(labels, ["greengrass", "disk"], "both are back");
    Ok(())
}
