//! The storage root key is removed and recreated: an identity stays with its TPM.

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::Result;
use image_tests::clients::{KeyType, pkcs11_tool};
use image_tests::device::{Device, STORE};
use image_tests::doubles::pki::Authority;

use crate::{assert_ends, exit, usual};

const SRK: u32 = 0x8100_0001;

fn evict(device: &Device) -> Result<()> {
    device
        .tpm
        .run(&["tpm2_evictcontrol", "-c", "0x81000001"])
        .map(drop)
}

fn enrolled() -> Result<Device> {
    let device = usual()?;
    device.enroll_with(&Authority::new()?)?;
    Ok(device)
}

/// Everything beside the identity.
fn beside(device: &Device) -> Result<Vec<String>> {
    let mut names: Vec<_> = fs::read_dir(device.path("/var/lib"))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .filter(|name| !matches!(name, Ok(name) if name == "tpm2_pkcs11"))
        .collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}

#[track_caller]
fn assert_kept(device: &Device, key: &str) -> Result<()> {
    device.succeed(&["enroll"])?;
    assert_eq!(device.status()?["state"], "Done");
    assert_eq!(device.key_sha256(STORE)?, key);
    assert_eq!(device.tpm.persistent_handles()?, [SRK]);
    assert!(device.tpm.transient_handles()?.is_empty());
    pkcs11_tool::sign_and_verify(&device.identity(KeyType::EccP256)?)
}

#[test]
fn an_evicted_one_is_recreated_and_the_identity_stays() -> Result<()> {
    let device = enrolled()?;
    let key = device.key_sha256(STORE)?;
    evict(&device)?;
    let told = device.succeed(&["status"])?;
    assert!(told.contains("asking the TPM"), "{told}");
    assert!(
        device.tpm.persistent_handles()?.is_empty(),
        "status only looks"
    );
    device.succeed(&["provision"])?;
    assert!(beside(&device)?.is_empty());
    assert_kept(&device, &key)
}

/// The same for the key that tpm2-pkcs11 creates, from another template.
#[test]
fn the_librarys_own_is_recreated_too() -> Result<()> {
    let device = usual()?;
    device.tpm.occupy_with_library_root_key()?;
    device.enroll_with(&Authority::new()?)?;
    let key = device.key_sha256(STORE)?;
    evict(&device)?;
    assert_kept(&device, &key)?;
    assert!(beside(&device)?.is_empty());
    Ok(())
}

/// firstboot evicts nothing: once the key's owner has evicted it, the identity works again.
#[test]
fn with_another_key_in_its_place_it_waits() -> Result<()> {
    let device = enrolled()?;
    let key = device.key_sha256(STORE)?;
    for occupant in [["-G", "ecc384:aes256cfb"], ["-G", "rsa2048"]] {
        evict(&device)?;
        device.tpm.occupy(&occupant)?;
        for command in ["provision", "enroll"] {
            let outcome = device.run(&[command])?;
            assert_ends(&outcome, exit::OTHER, "firstboot never evicts objects");
        }
        assert_eq!(device.status()?["state"], "ForeignPrimary");
        assert!(beside(&device)?.is_empty());
        assert_eq!(device.key_sha256(STORE)?, key);
        evict(&device)?;
        assert_kept(&device, &key)?;
    }
    Ok(())
}

#[test]
fn with_an_owner_authorization_it_waits_for_the_owner() -> Result<()> {
    let device = enrolled()?;
    let key = device.key_sha256(STORE)?;
    evict(&device)?;
    device.tpm.set_owner_auth("theirs")?;
    let outcome = device.run(&["provision"])?;
    assert_ends(
        &outcome,
        exit::OTHER,
        "owner hierarchy has an authorization value",
    );
    assert_eq!(device.key_sha256(STORE)?, key);
    assert!(beside(&device)?.is_empty());
    device
        .tpm
        .run(&["tpm2_changeauth", "-c", "owner", "-p", "theirs"])?;
    assert_kept(&device, &key)
}

/// However often the TPMs are swapped, each finds its own identity.
#[test]
fn with_its_tpm_the_identity_is_restored() -> Result<()> {
    let mut device = enrolled()?;
    let first = device.key_sha256(STORE)?;
    let other = usual()?;
    device.tcti = Some(other.tpm.tcti());
    device.succeed(&["provision"])?;
    let second = device.key_sha256(STORE)?;
    assert_ne!(first, second);
    let orphan = device.path("/var/lib/tpm2_pkcs11.orphan-1");
    let metadata = fs::metadata(&orphan)?;
    assert_eq!((metadata.mode() & 0o7777, metadata.gid()), (0o700, 0));
    for _ in 0..3 {
        device.tcti = None;
        device.succeed(&["enroll"])?;
        assert_eq!(device.status()?["state"], "Done");
        assert_eq!(device.key_sha256(STORE)?, first);
        device.tcti = Some(other.tpm.tcti());
        device.succeed(&["provision"])?;
        assert_eq!(device.key_sha256(STORE)?, second);
        assert_eq!(beside(&device)?.len(), 1, "{:?}", beside(&device)?);
    }
    device.tcti = None;
    assert_kept(&device, &first)?;
    // Owner and modes are restored: nucleus lite's daemons can use it.
    let objects = pkcs11_tool::list(&device.identity_of_greengrass(KeyType::EccP256)?)?;
    assert!(objects.contains("greenkey"), "{objects}");
    Ok(())
}

/// The TPM comes back without its storage root key, to a device that lost its other identity.
#[test]
fn it_is_restored_even_without_a_storage_root_key() -> Result<()> {
    let mut device = enrolled()?;
    let key = device.key_sha256(STORE)?;
    let other = usual()?;
    device.tcti = Some(other.tpm.tcti());
    device.succeed(&["provision"])?;
    device.tcti = None;
    fs::remove_dir_all(device.path(STORE))?;
    evict(&device)?;
    assert_kept(&device, &key)?;
    assert!(beside(&device)?.is_empty());
    Ok(())
}

/// An identity with a certificate outlives any number without.
#[test]
fn an_enrolled_identity_is_not_dropped_for_newer_ones() -> Result<()> {
    let mut device = enrolled()?;
    let key = device.key_sha256(STORE)?;
    for _ in 0..4 {
        let other = usual()?;
        device.tcti = Some(other.tpm.tcti());
        device.succeed(&["provision"])?;
    }
    assert_eq!(device.key_sha256("/var/lib/tpm2_pkcs11.orphan-1")?, key);
    assert_eq!(beside(&device)?.len(), 2, "{:?}", beside(&device)?);
    device.tcti = None;
    assert_kept(&device, &key)
}

/// The TPM's answers about its key and the loaded key contradict each other: neither is trusted.
#[test]
fn a_contradiction_changes_nothing() -> Result<()> {
    let device = enrolled()?;
    let name = device.read(format!("{STORE}/srk.name"))?;
    let other = format!("000b{}", "00".repeat(32));
    for false_name in [other.as_str(), "000b"] {
        fs::remove_file(device.path(format!("{STORE}/srk.name")))?;
        device.write(format!("{STORE}/srk.name"), false_name)?;
        let outcome = device.run(&["provision"])?;
        assert_ends(&outcome, exit::OTHER, "one of the two is wrong");
        assert!(beside(&device)?.is_empty());
    }
    device.write(format!("{STORE}/srk.name"), name)?;
    device.succeed(&["provision"])?;
    Ok(())
}

/// Another program's key with a password and without noDA: a survey costs no try, and provisioning costs one in all.
#[test]
fn a_key_with_a_password_costs_one_try_in_all() -> Result<()> {
    let device = usual()?;
    device.tpm.occupy(&["-G", "rsa2048", "-p", "theirs"])?;
    device.tpm.set_max_tries(10)?;
    device.tpm.set_lockout_auth("theirs")?;
    device.succeed(&["status"])?;
    assert_eq!(device.tpm.lockout_counter()?, 0);
    for _ in 0..3 {
        for command in ["provision", "enroll", "status"] {
            device.run(&[command])?;
        }
        assert_eq!(device.status()?["state"], "ForeignPrimary");
        assert_eq!(device.tpm.lockout_counter()?, 1);
    }
    // Another key is tried again.
    evict(&device)?;
    device.tpm.occupy(&["-G", "rsa2048:aes256cfb"])?;
    device.succeed(&["provision"])?;
    assert_eq!(device.tpm.lockout_counter()?, 1);
    Ok(())
}

/// Once it is gone, a key with the same Name, which may have another password, is tried again.
#[test]
fn the_note_about_a_key_is_removed_with_it() -> Result<()> {
    let device = usual()?;
    device.tpm.occupy_with_storage_key("theirs")?;
    assert_eq!(device.run(&["provision"])?.code, exit::OTHER);
    evict(&device)?;
    device.tpm.occupy_with_storage_key("")?;
    let outcome = device.run(&["provision"])?;
    assert_ends(
        &outcome,
        exit::OTHER,
        "remove /var/lib/firstboot/root-key-with-auth",
    );
    evict(&device)?;
    device.succeed(&["provision"])?;
    assert!(!device.exists("/var/lib/firstboot/root-key-with-auth"));
    Ok(())
}

/// If somebody has set lockoutAuth, a try that could be the last but one is not made.
#[test]
fn the_last_tries_are_left_to_their_owner() -> Result<()> {
    let device = usual()?;
    device.tpm.set_max_tries(3)?;
    device.tpm.use_up_one_try()?;
    device.tpm.set_lockout_auth("theirs")?;
    device.tpm.occupy(&["-G", "rsa2048"])?;
    let outcome = device.run(&["provision"])?;
    assert_ends(&outcome, exit::WAITING, "1 of 3 failed tries");
    assert_eq!(device.tpm.lockout_counter()?, 1);
    assert!(!device.exists(STORE));
    Ok(())
}

/// Tries that firstboot cannot reset are reported before they are used up, also while the device waits for a
/// certificate.
#[test]
fn tries_that_somebody_else_has_to_reset_are_reported() -> Result<()> {
    let device = usual()?;
    device.succeed(&["provision"])?;
    device.tpm.set_max_tries(8)?;
    device.tpm.set_lockout_auth("theirs")?;
    assert!(!device.run(&["provision"])?.stderr.contains("tries"));
    device.tpm.use_up_one_try()?;
    device.tpm.use_up_one_try()?;
    let words = "2 of 8 failed tries before its dictionary-attack lockout";
    assert_ends(&device.run(&["provision"])?, exit::DONE, words);
    assert!(device.succeed(&["status"])?.contains(words));
    device.enroll_with(&Authority::new()?)?;
    let message = device.status()?["message"].to_string();
    assert!(message.contains(words), "{message}");
    Ok(())
}
