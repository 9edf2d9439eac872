//! The identity's records are wrong: whatever has to be repaired, a run requests at most one certificate from AWS.

use anyhow::{Context, Result};
use image_tests::clients::KeyType;
use image_tests::doubles::iot_core::{Call, Misbehaviour, Options, Rejection};
use serde_json::{Value, json};

use crate::{Enrolling, exit};

const RECORD: &str = "/var/lib/tpm2_pkcs11/request.json";
const OWNERSHIP: &str = "/var/lib/tpm2_pkcs11/ownership.json";

fn edit(enrolling: &Enrolling, file: &str, change: impl FnOnce(&mut Value)) -> Result<()> {
    let mut document: Value = serde_json::from_str(&enrolling.device.read(file)?)?;
    change(&mut document);
    enrolling.device.write(file, document.to_string())
}

/// Enrolls up to the registration, which is refused for now; the certificate is kept.
fn kept(enrolling: &Enrolling) -> Result<()> {
    let later = Rejection::new(429, "Throttled", "later");
    let core = &enrolling.cloud.core;
    core.misbehave(Call::RegisterThing, 1, Misbehaviour::Rejected(later));
    enrolling.ends(exit::WAITING, "later")?;
    enrolling.assert_certificates(1, 0);
    assert!(enrolling.device.exists(OWNERSHIP));
    Ok(())
}

#[test]
fn a_record_of_another_key_costs_no_certificates() -> Result<()> {
    let enrolling = Enrolling::new()?;
    let key = enrolling.key()?;
    edit(&enrolling, RECORD, |record| {
        record["key_sha256"] = json!("00".repeat(32));
    })?;
    enrolling.ends_done()?;
    enrolling.assert_certificates(1, 1);
    assert_eq!(enrolling.key()?, key, "the record is right again");
    Ok(())
}

/// Only the record is wrong: the kept certificate is used, also with an RSA key.
#[test]
fn a_kept_certificate_survives_a_record_of_another_key() -> Result<()> {
    let cloud = image_tests::faults::network::Cloud::with(Options::default())?;
    let enrolling = Enrolling::at(cloud, "nucleus", KeyType::Rsa2048)?;
    kept(&enrolling)?;
    edit(&enrolling, RECORD, |record| {
        let digits = record["key_sha256"].as_str().unwrap_or_default();
        let turned: String = digits.chars().rev().collect();
        record["key_sha256"] = json!(turned);
    })?;
    enrolling.ends(exit::DONE, "")?;
    enrolling.assert_certificates(1, 1);
    Ok(())
}

/// The kept certificate is useless: the device requests one more, and no third.
#[test]
fn a_kept_certificate_that_is_not_ours_costs_one_more() -> Result<()> {
    let others = Enrolling::new()?;
    others.ends_done()?;
    for useless in [others.certificate()?, "no certificate".to_owned()] {
        let enrolling = Enrolling::new()?;
        kept(&enrolling)?;
        edit(&enrolling, OWNERSHIP, |ownership| {
            ownership["certificate_pem"] = json!(useless);
        })?;
        enrolling.ends_done()?;
        enrolling.assert_certificates(2, 1);
    }
    Ok(())
}

/// The registration keeps refusing the tokens of new certificates: a run requests only one.
#[test]
fn a_token_that_is_always_refused_costs_one_certificate_a_run() -> Result<()> {
    let enrolling = Enrolling::new()?;
    let refused = Rejection::new(400, "InvalidCertificateOwnershipToken", "ownership token");
    let core = &enrolling.cloud.core;
    core.misbehave(Call::RegisterThing, 100, Misbehaviour::Rejected(refused));
    for runs in 1..=3 {
        let outcome = enrolling.enroll()?;
        assert_ne!(outcome.code, exit::DONE, "{}", outcome.stderr);
        enrolling.assert_certificates(runs, 0);
    }
    enrolling.cloud.core.behave();
    let status = enrolling.device.status()?;
    let message = status["message"].as_str().context("no message")?;
    assert!(message.contains("ownership token"), "{message}");
    enrolling.ends_done()
}
