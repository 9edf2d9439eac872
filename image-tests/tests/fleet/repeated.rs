//! A registration that is requested twice, as after a cut. AWS does not document its answer, so each of the two
//! possible ones has to lead to a working device.

use std::time::Duration;

use anyhow::Result;
use image_tests::doubles::iot_core::{Call, Misbehaviour, Options, Repeated, Status};

use crate::{Enrolling, exit};

/// The thing is registered, but the answer is lost.
fn registered_without_an_answer(enrolling: &Enrolling) -> Result<()> {
    enrolling
        .cloud
        .core
        .misbehave(Call::RegisterThing, 1, Misbehaviour::HangsUp);
    enrolling.ends(exit::WAITING, "closed")?;
    enrolling.assert_certificates(1, 1);
    assert!(
        enrolling
            .device
            .exists("/var/lib/tpm2_pkcs11/ownership.json")
    );
    Ok(())
}

#[test]
fn a_repeated_answer_is_accepted() -> Result<()> {
    let enrolling = Enrolling::with(Options {
        repeated: Repeated::Idempotent,
        ..Options::default()
    })?;
    registered_without_an_answer(&enrolling)?;
    enrolling.ends_done()?;
    enrolling.assert_certificates(1, 1);
    assert_eq!(enrolling.cloud.core.counts().register_calls, 2);
    Ok(())
}

/// The device tries its certificate with the TPM's key: it is active, so it has been registered.
#[test]
fn a_refused_token_does_not_matter_if_the_certificate_is_active() -> Result<()> {
    let enrolling = Enrolling::with_the_settings_name(Options::default())?;
    registered_without_an_answer(&enrolling)?;
    enrolling.ends_done()?;
    enrolling.assert_certificates(1, 1);
    let events = enrolling.cloud.core.events();
    assert!(events.authenticated(&enrolling.thing), "{events:?}");
    Ok(())
}

/// If template and settings give the thing different names, and the policy ties the client ID to the name, the device
/// cannot find out that its certificate is active. Only then does a second one become active.
#[test]
fn a_lost_name_that_differs_from_the_settings_costs_a_second_certificate() -> Result<()> {
    let enrolling = Enrolling::new()?;
    registered_without_an_answer(&enrolling)?;
    enrolling.ends_done()?;
    enrolling.assert_certificates(2, 2);
    assert_eq!(enrolling.cloud.core.counts().things, 1);
    enrolling.assert_own_key()
}

/// The device was off until its token had expired.
#[test]
fn an_expired_token_leads_to_another_certificate() -> Result<()> {
    let enrolling = Enrolling::with_the_settings_name(Options::default())?;
    let refused = image_tests::doubles::iot_core::Rejection::new(429, "Throttled", "later");
    enrolling
        .cloud
        .core
        .misbehave(Call::RegisterThing, 1, Misbehaviour::Rejected(refused));
    enrolling.ends(exit::WAITING, "later")?;
    enrolling.cloud.core.advance(Duration::from_secs(3600));
    enrolling.ends_done()?;
    enrolling.assert_certificates(2, 1);
    Ok(())
}

/// The template leaves the certificate inactive until somebody approves it: the device is done all the same.
#[test]
fn a_certificate_that_is_not_activated_yet_is_kept() -> Result<()> {
    let mut options = Options::default();
    options.templates[0].status = Status::Inactive;
    let enrolling = Enrolling::with(options)?;
    enrolling.ends(exit::DONE, "")?;
    enrolling.assert_certificates(1, 0);
    assert_eq!(enrolling.configured_thing()?, enrolling.thing);
    Ok(())
}

/// A reset before the registration leads to another key and another certificate, and discards the old token.
#[test]
fn a_reset_discards_the_token() -> Result<()> {
    let enrolling = Enrolling::with_the_settings_name(Options::default())?;
    enrolling.cloud.core.misbehave(
        Call::RegisterThing,
        1,
        Misbehaviour::Rejected(image_tests::doubles::iot_core::Rejection::new(
            429,
            "Throttled",
            "later",
        )),
    );
    enrolling.ends(exit::WAITING, "later")?;
    let key = enrolling.key()?;
    enrolling.device.succeed(&["reset"])?;
    enrolling.ends_done()?;
    assert_ne!(enrolling.key()?, key);
    enrolling.assert_certificates(2, 1);
    Ok(())
}

/// A damaged certificate file is repaired without the network or a person.
#[test]
fn a_damaged_certificate_is_restored_without_the_network() -> Result<()> {
    let enrolling = Enrolling::new()?;
    enrolling.ends_done()?;
    let before = enrolling.certificate()?;
    enrolling.cloud.core.take_events()?;
    for damage in ["", "hello", &before[..before.len() / 2]] {
        enrolling
            .device
            .write("/var/lib/tpm2_pkcs11/certificate.pem", damage)?;
        enrolling.ends_done()?;
        assert_eq!(enrolling.certificate()?, before);
    }
    assert_eq!(enrolling.cloud.core.events().0.len(), 0);
    enrolling.assert_certificates(1, 1);
    Ok(())
}

/// If the token that is kept for the registration is damaged, the device still succeeds.
#[test]
fn a_damaged_token_leads_to_another_certificate() -> Result<()> {
    for damage in ["", "{}", "hello"] {
        let enrolling = Enrolling::with_the_settings_name(Options::default())?;
        let refused = image_tests::doubles::iot_core::Rejection::new(429, "Throttled", "later");
        enrolling
            .cloud
            .core
            .misbehave(Call::RegisterThing, 1, Misbehaviour::Rejected(refused));
        enrolling.ends(exit::WAITING, "later")?;
        enrolling
            .device
            .write("/var/lib/tpm2_pkcs11/ownership.json", damage)?;
        enrolling.ends_done()?;
        enrolling.assert_certificates(2, 1);
    }
    Ok(())
}
