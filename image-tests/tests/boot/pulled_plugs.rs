//! The plug is pulled at an event: just before it, and just after it. firstboot is stopped there (`guest/gate.c`),
//! so that it is neither earlier nor later. The next undisturbed boot ends as if nothing had happened.
//!
//! `make test` cuts before the event, then after it as the recovery passes it again, and then lets the device be.
//! With POWERCUT=full each of the two cuts gets its own device.

use anyhow::Result;
use image_tests::device::machine::Machine;
use image_tests::doubles::pki::Authority;

use super::{certificate, certify, flash, let_in, request, sign};

/// An event while the identity is made.
fn provisioning_survives(event: &str) -> Result<()> {
    let authority = Authority::new()?;
    for cuts in series() {
        let mut machine = flash("nucleus-lite", &authority)?;
        for when in cuts {
            machine = cut(machine, when, event)?;
        }
        let shown = machine.card.read(&request())?;
        let mut running = machine.boot()?.until("multi-user.target")?;
        let asked = running.succeed(&format!("cat /boot/{}", request()))?;
        // What the operator may already have copied stays true.
        if let Some(shown) = shown {
            assert_eq!(
                String::from_utf8_lossy(&shown),
                asked,
                "the request has changed"
            );
        }
        certify(&mut running, &authority)?;
        is_done(let_in(running)?.power_off()?)?;
    }
    Ok(())
}

/// An event between the certificate and Greengrass.
fn enrollment_survives(edition: &str, event: &str) -> Result<()> {
    let authority = Authority::new()?;
    let machine = flash(edition, &authority)?
        .boot()?
        .until("firstboot.service")?
        .power_off()?;
    let request = machine.card.read_text(&request())?;
    machine
        .card
        .put(&certificate(), sign(&authority, request.as_bytes())?)?;
    for cuts in series() {
        let mut machine = machine.copy()?;
        for when in cuts {
            machine = cut(machine, when, event)?;
        }
        is_done(let_in(machine.boot()?)?.power_off()?)?;
    }
    Ok(())
}

/// The cuts that one device goes through.
fn series() -> Vec<Vec<&'static str>> {
    if std::env::var("POWERCUT").is_ok_and(|value| value == "full") {
        vec![vec!["before"], vec!["after"]]
    } else {
        vec![vec!["before", "after"]]
    }
}

pub(super) fn cut(machine: Machine, when: &str, event: &str) -> Result<Machine> {
    let gate = format!("LD_PRELOAD=/usr/lib/stand-in/gate.so\nGATE=\"{when} {event}\"\n");
    machine.card.put("gate/environment", gate)?;
    let what = event.split(' ').next().unwrap_or_default();
    let running = machine
        .boot()?
        .until_said(&format!("gate: {when} {what}"))?;
    let machine = running.pull_the_plug()?;
    machine.card.remove("gate/environment")?;
    Ok(machine)
}

/// Greengrass was accepted; there is no second handle, no failed try, nothing left behind and no identity set aside.
fn is_done(machine: Machine) -> Result<()> {
    let tpm = machine.tpm()?;
    assert_eq!(tpm.persistent_handles()?, [0x8100_0001]);
    assert_eq!(tpm.lockout_counter()?, 0);
    let beside = machine.card.list_ext4("/var/lib")?;
    assert!(beside.contains("tpm2_pkcs11\n"), "{beside}");
    for left in [".new", ".orphan-"] {
        assert!(!beside.contains(left), "left behind: {beside}");
    }
    Ok(())
}

#[test]
fn a_cut_at_the_storage_root_key_is_survived() -> Result<()> {
    // TPM2_EvictControl, which makes it persistent (TCG TPM 2.0 Library, part 2, TPM_CC_EvictControl).
    provisioning_survives("tpm 00000120")
}

#[test]
fn a_cut_at_the_staging_directory_is_survived() -> Result<()> {
    provisioning_survives("mkdir /var/lib/tpm2_pkcs11.new")
}

#[test]
fn a_cut_at_the_rename_is_survived() -> Result<()> {
    provisioning_survives("rename /var/lib/tpm2_pkcs11")
}

#[test]
fn a_cut_at_the_request_on_the_boot_partition_is_survived() -> Result<()> {
    provisioning_survives(&format!("rename /boot/{}", request()))
}

#[test]
fn a_cut_at_the_certificate_is_survived() -> Result<()> {
    enrollment_survives(
        "nucleus-lite",
        "rename /var/lib/tpm2_pkcs11/certificate.pem",
    )
}

/// The certificate is in the token, and that is not noted yet.
#[test]
fn a_cut_at_the_import_of_the_certificate_is_survived() -> Result<()> {
    enrollment_survives("nucleus", "rename /var/lib/tpm2_pkcs11/verified.json")
}

#[test]
fn a_cut_at_the_configuration_is_survived() -> Result<()> {
    enrollment_survives("nucleus-lite", "rename /etc/greengrass/config.yaml")
}
