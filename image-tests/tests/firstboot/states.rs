//! The states that status.json names: each test starts in one, and ends in Done or stops as it should.

use std::fs;

use anyhow::Result;
use image_tests::clients::{KeyType, pkcs11_tool};
use image_tests::device::{Device, STORE};
use image_tests::doubles::pki::Authority;

use crate::{assert_ends, device, exit, usual};

const SRK: u32 = 0x8100_0001;

/// Provisions from the current state, has the request signed and enrolls: Done, with one handle and a usable key.
#[track_caller]
fn assert_becomes_done(device: &Device) -> Result<()> {
    device.enroll_with(&Authority::new()?)?;
    assert_eq!(device.status()?["state"], "Done");
    assert_eq!(device.tpm.persistent_handles()?, [SRK]);
    assert!(!device.exists("/var/lib/tpm2_pkcs11.new"));
    pkcs11_tool::sign_and_verify(&device.identity(KeyType::EccP256)?)
}

#[test]
fn blank_becomes_done() -> Result<()> {
    assert_becomes_done(&usual()?)
}

#[test]
fn a_missing_tpm_is_reported_and_nothing_changes() -> Result<()> {
    let mut device = usual()?;
    device.tpm.pull_the_plug();
    let before = device.snapshot()?.without("/boot").without("/run");
    for command in ["provision", "enroll"] {
        let outcome = device.run(&[command])?;
        assert_ends(&outcome, exit::NO_TPM, "cannot open the TPM");
    }
    before.assert_same(&device.snapshot()?.without("/boot").without("/run"));
    assert_eq!(device.status()?["state"], "NoTpm");
    device.tpm.power_on()?;
    assert_becomes_done(&device)
}

#[test]
fn a_tpm_whose_self_test_failed_counts_as_missing() -> Result<()> {
    let device = usual()?;
    device.tpm.fail()?;
    let outcome = device.run(&["provision"])?;
    assert_ends(&outcome, exit::NO_TPM, "the TPM is in failure mode");
    assert_eq!(device.status()?["state"], "NoTpm");
    assert!(!device.exists(STORE));
    Ok(())
}

/// Without a device node, the kernel's view of the device tree tells what to check.
#[test]
fn a_missing_device_node_is_explained() -> Result<()> {
    const CHIP: &str = "/sys/bus/spi/devices/spi0.1";
    let mut device = usual()?;
    device.tcti = Some("device:/dev/no-such-tpm".into());
    let explains = |words: &str| -> Result<()> {
        let outcome = device.run(&["provision"])?;
        assert_ends(&outcome, exit::NO_TPM, "/dev/no-such-tpm");
        assert_ends(&outcome, exit::NO_TPM, words);
        Ok(())
    };
    explains("does config.txt load the overlay (dtoverlay=tpm-slb9670)")?;
    let compatible = format!("{CHIP}/of_node/compatible");
    device.write(&compatible, "spidev\0")?;
    explains("does config.txt load the overlay (dtoverlay=tpm-slb9670)")?;
    device.write(&compatible, "atmel,attpm20p\0")?;
    explains("a TPM without a driver (atmel,attpm20p)")?;
    device.write(&compatible, "infineon,slb9670\0tcg,tpm_tis-spi\0")?;
    explains("may be in failure mode")?;
    fs::create_dir(device.path(format!("{CHIP}/driver")))?;
    explains("may firstboot open it")
}

#[test]
fn a_lockout_with_empty_lockout_auth_is_ended() -> Result<()> {
    let device = usual()?;
    device.tpm.use_up_tries()?;
    assert!(device.tpm.in_lockout()?);
    assert_becomes_done(&device)?;
    assert_eq!(device.tpm.lockout_counter()?, 0);
    Ok(())
}

#[test]
fn a_lockout_with_lockout_auth_is_reported_and_waited_out() -> Result<()> {
    let device = usual()?;
    device.tpm.set_lockout_auth("theirs")?;
    device.tpm.use_up_tries()?;
    let outcome = device.run(&["provision"])?;
    assert_ends(&outcome, exit::WAITING, "dictionary-attack lockout");
    assert_eq!(device.status()?["state"], "LockedOut");
    assert!(!device.exists(STORE));
    Ok(())
}

#[test]
fn failed_tries_are_reset_also_when_done() -> Result<()> {
    let device = usual()?;
    assert_becomes_done(&device)?;
    device.tpm.use_up_tries()?;
    device.succeed(&["provision"])?;
    assert_eq!(device.tpm.lockout_counter()?, 0);
    pkcs11_tool::sign_and_verify(&device.identity(KeyType::EccP256)?)
}

#[test]
fn an_interrupted_identity_is_removed() -> Result<()> {
    let device = usual()?;
    device.write(
        "/var/lib/tpm2_pkcs11.new/tpm2_pkcs11.sqlite3",
        "half a database",
    )?;
    device.write("/var/lib/tpm2_pkcs11.new/pin", "")?;
    assert_becomes_done(&device)
}

/// tpm2-pkcs11 1.10's upgrade of the store, cut by a power failure: while the copy exists the library refuses to run,
/// and between the renames there is no store at all.
#[test]
fn a_torn_upgrade_of_the_store_is_repaired() -> Result<()> {
    let device = usual()?;
    let authority = Authority::new()?;
    device.enroll_with(&authority)?;
    let store = device.path(STORE).join("tpm2_pkcs11.sqlite3");
    let beside = |suffix: &str| store.with_file_name(format!("tpm2_pkcs11.sqlite3{suffix}"));
    let pin = device.identity(KeyType::EccP256)?.pin()?;

    fs::copy(&store, beside(".bak"))?;
    fs::write(beside(".bak-journal"), "")?;
    device.succeed(&["enroll"])?;
    assert!(!beside(".bak").exists() && !beside(".bak-journal").exists());

    fs::copy(&store, beside(".bak"))?;
    fs::rename(&store, beside(".old"))?;
    device.succeed(&["enroll"])?;
    assert!(!beside(".bak").exists() && !beside(".old").exists());

    let identity = device.identity(KeyType::EccP256)?;
    assert_eq!(identity.pin()?, pin, "the identity is the same");
    pkcs11_tool::sign_and_verify(&identity)
}

#[track_caller]
fn assert_refuses_somebody_elses(device: &Device, what: &str) -> Result<()> {
    let tried = device.tpm.lockout_counter()?;
    for _ in 0..2 {
        let outcome = device.run(&["provision"])?;
        assert_ends(&outcome, exit::OTHER, what);
        assert_ends(&outcome, exit::OTHER, "firstboot never evicts objects");
    }
    assert_eq!(device.status()?["state"], "ForeignPrimary");
    assert_eq!(
        device.tpm.persistent_handles()?,
        [SRK],
        "nothing is evicted"
    );
    assert!(!device.exists(STORE));
    assert!(!device.tpm.in_lockout()? && device.tpm.lockout_counter()? <= tried + 1);
    Ok(())
}

#[test]
fn a_signing_key_in_the_srks_place_is_refused() -> Result<()> {
    let device = usual()?;
    device.tpm.occupy_with_signing_key()?;
    assert_refuses_somebody_elses(&device, "signing key")
}

#[test]
fn an_srk_with_an_auth_value_is_refused() -> Result<()> {
    let device = usual()?;
    device.tpm.occupy_with_storage_key("theirs")?;
    assert_refuses_somebody_elses(&device, "a storage key with an authorization value")
}

#[test]
fn systemds_srk_is_shared() -> Result<()> {
    let device = usual()?;
    device.tpm.occupy_with_systemd_root_key()?;
    assert_becomes_done(&device)
}

#[test]
fn the_librarys_own_srk_is_used() -> Result<()> {
    let device = usual()?;
    device.tpm.occupy_with_library_root_key()?;
    assert_becomes_done(&device)
}

/// systemd's template and ours are the same: whoever creates the key, it is the same.
#[test]
fn our_srk_is_systemds() -> Result<()> {
    let name = |device: &Device| device.tpm.run(&["tpm2_readpublic", "-c", "0x81000001"]);
    let device = usual()?;
    device.succeed(&["provision"])?;
    let ours = name(&device)?;
    device.tpm.run(&["tpm2_evictcontrol", "-c", "0x81000001"])?;
    device.tpm.occupy_with_systemd_root_key()?;
    assert_eq!(ours, name(&device)?);
    Ok(())
}

#[test]
fn a_cleared_tpm_gets_a_new_identity_and_the_old_one_is_kept() -> Result<()> {
    let device = usual()?;
    assert_becomes_done(&device)?;
    let pin = device.identity(KeyType::EccP256)?.pin()?;
    device.tpm.clear()?;
    let outcome = device.run(&["enroll"])?;
    assert_ends(&outcome, exit::WAITING, "the TPM was cleared");
    assert!(
        !device.exists("/etc/greengrass/config.yaml"),
        "of the old identity"
    );
    assert_becomes_done(&device)?;
    assert_ne!(device.identity(KeyType::EccP256)?.pin()?, pin);
    assert_eq!(device.read("/var/lib/tpm2_pkcs11.orphan-1/pin")?, pin);
    Ok(())
}

#[test]
fn a_swapped_tpm_gets_a_new_identity() -> Result<()> {
    let mut device = usual()?;
    assert_becomes_done(&device)?;
    let other = usual()?;
    other.succeed(&["provision"])?;
    device.tcti = Some(other.tpm.tcti());
    let outcome = device.run(&["enroll"])?;
    assert_ends(&outcome, exit::WAITING, "created with another TPM");
    assert!(device.exists("/var/lib/tpm2_pkcs11.orphan-1/pin"));
    assert!(device.exists("/var/lib/tpm2_pkcs11/pin"));
    assert_eq!(other.tpm.persistent_handles()?, [SRK]);
    Ok(())
}

#[test]
fn a_lost_store_is_made_again_below_the_same_srk() -> Result<()> {
    let device = usual()?;
    assert_becomes_done(&device)?;
    fs::remove_dir_all(device.path(STORE))?;
    assert_becomes_done(&device)
}

#[test]
fn a_lost_pin_costs_the_identity_but_not_the_device() -> Result<()> {
    let device = usual()?;
    assert_becomes_done(&device)?;
    device.remove("/var/lib/tpm2_pkcs11/pin")?;
    assert_becomes_done(&device)?;
    assert!(device.exists("/var/lib/tpm2_pkcs11.orphan-1"));
    Ok(())
}

/// The token lost its certificate, or has a second one: it is restored from the accepted one.
#[test]
fn a_certificate_missing_from_the_token_is_restored() -> Result<()> {
    let device = device("nucleus", KeyType::EccP256)?;
    device.enroll_with(&Authority::new()?)?;
    let identity = device.identity(KeyType::EccP256)?;
    let certificates = || -> Result<usize> {
        Ok(pkcs11_tool::list(&identity)?
            .matches("Certificate Object")
            .count())
    };
    pkcs11_tool::delete_certificate(&identity)?;
    assert_eq!(certificates()?, 0);
    device.succeed(&["enroll"])?;
    assert_eq!(certificates()?, 1);
    Ok(())
}

/// A rollback journal that a power cut brought back may remove the certificate from the token: the store is read again,
/// and an empty one does not stay.
#[test]
fn a_rollback_journal_is_not_overlooked() -> Result<()> {
    let device = device("nucleus", KeyType::EccP256)?;
    assert_becomes_done(&device)?;
    for void in ["", "no journal", "\0\0\0\0"] {
        let journal = format!("{STORE}/tpm2_pkcs11.sqlite3-journal");
        device.write(&journal, void)?;
        device.succeed(&["enroll"])?;
        assert!(!device.exists(&journal), "{void:?}");
        assert_eq!(device.status()?["state"], "Done");
    }
    Ok(())
}

#[test]
fn a_lost_certificate_is_restored_from_the_boot_partition() -> Result<()> {
    let device = usual()?;
    assert_becomes_done(&device)?;
    device.remove("/var/lib/tpm2_pkcs11/certificate.pem")?;
    device.succeed(&["enroll"])?;
    assert_eq!(device.status()?["state"], "Done");
    Ok(())
}

#[test]
fn an_edited_or_deleted_configuration_is_written_again() -> Result<()> {
    let device = usual()?;
    assert_becomes_done(&device)?;
    let config = "/etc/greengrass/config.yaml";
    let good = device.read(config)?;
    device.write(config, good.replace("gateway-", "impostor-"))?;
    device.succeed(&["enroll"])?;
    assert_eq!(device.read(config)?, good);
    for file in [
        config,
        "/etc/greengrass/openssl.cnf",
        "/etc/greengrass/root-ca.pem",
    ] {
        let content = device.read(file)?;
        device.remove(file)?;
        device.succeed(&["enroll"])?;
        assert_eq!(device.read(file)?, content, "{file}");
    }
    Ok(())
}

#[test]
fn owner_auth_matters_only_without_an_srk() -> Result<()> {
    let device = usual()?;
    device.tpm.set_owner_auth("theirs")?;
    let outcome = device.run(&["provision"])?;
    assert_ends(
        &outcome,
        exit::OTHER,
        "owner hierarchy has an authorization value",
    );
    assert!(device.tpm.persistent_handles()?.is_empty());

    let device = usual()?;
    device.tpm.occupy_with_systemd_root_key()?;
    device.tpm.set_owner_auth("theirs")?;
    assert_becomes_done(&device)
}
