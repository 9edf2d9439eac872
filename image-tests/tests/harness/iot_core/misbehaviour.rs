//! The double misbehaves as it is told, and as often.

use anyhow::Result;
use image_tests::doubles::iot_core::{Call, Misbehaviour, Rejection};
use serde_json::{Value, json};

use super::{CREATE, Double};

const ACCEPTED: &str = "$aws/certificates/create-from-csr/json/accepted";
const REJECTED: &str = "$aws/certificates/create-from-csr/json/rejected";

/// What a client receives at a topic, and how many certificates there are then.
fn heard(misbehaviour: Misbehaviour, at: &str) -> Result<(String, usize)> {
    let double = Double::new()?;
    let payload = json!({ "certificateSigningRequest": double.ecc_request()?.1 }).to_string();
    let nothing = matches!(
        misbehaviour,
        Misbehaviour::Lost | Misbehaviour::Silent | Misbehaviour::HangsUp
    );
    double
        .core
        .misbehave(Call::CreateCertificate, 1, misbehaviour);
    let said = if nothing {
        double.in_vain(CREATE, at, &payload)?
    } else {
        double
            .request(CREATE, at, &payload, double.core.port())?
            .stdout
    };
    let created = double.core.counts().created;
    // The next request is handled as documented.
    let well = double.request(CREATE, ACCEPTED, &payload, double.core.port())?;
    assert!(well.stdout.contains("certificatePem"), "{well:?}");
    Ok((said, created))
}

#[test]
fn requests_and_answers_are_lost_refused_or_changed() -> Result<()> {
    assert_eq!(heard(Misbehaviour::Lost, ACCEPTED)?, (String::new(), 0));
    assert_eq!(heard(Misbehaviour::Silent, ACCEPTED)?, (String::new(), 1));
    assert_eq!(heard(Misbehaviour::HangsUp, ACCEPTED)?, (String::new(), 1));

    let rejection = Rejection::new(503, "ServiceUnavailable", "later");
    let (said, created) = heard(Misbehaviour::Rejected(rejection.clone()), REJECTED)?;
    let said: Value = serde_json::from_str(&said)?;
    assert_eq!((&said["statusCode"], created), (&json!(503), 0));
    let (said, created) = heard(Misbehaviour::RejectedAfterAll(rejection), REJECTED)?;
    assert!(said.contains("ServiceUnavailable") && created == 1);

    assert_eq!(heard(Misbehaviour::Says(b"{".to_vec()), ACCEPTED)?.0, "{\n");
    let (said, _) = heard(Misbehaviour::Says(vec![b'x'; 1_000_000]), ACCEPTED)?;
    assert_eq!(said.len(), 1_000_001);
    let (said, _) = heard(Misbehaviour::With("certificatePem", None), ACCEPTED)?;
    let said: Value = serde_json::from_str(&said)?;
    assert!(said["certificatePem"].is_null() && said["certificateId"].is_string());
    let (said, _) = heard(Misbehaviour::At(REJECTED.into()), REJECTED)?;
    assert!(said.contains("certificatePem"));
    let (said, _) = heard(
        Misbehaviour::After(ACCEPTED.into(), b"noise".to_vec()),
        ACCEPTED,
    )?;
    assert_eq!(said, "noise\n");
    Ok(())
}

#[test]
fn a_certificate_for_another_key_is_well_formed() -> Result<()> {
    let double = Double::new()?;
    double.core.misbehave(
        Call::CreateCertificate,
        1,
        Misbehaviour::AnotherKeysCertificate,
    );
    let (key, request) = double.ecc_request()?;
    let pair = double.pair(key, &double.create(&request)?)?;
    let of = |arguments: &[&str], path: &std::path::Path| {
        let mut command = image_tests::process::bounded("openssl");
        image_tests::process::succeed(command.args(arguments).arg("-in").arg(path))
    };
    assert_ne!(
        of(&["x509", "-noout", "-pubkey"], &pair.certificate)?,
        of(&["pkey", "-pubout"], &pair.key)?
    );
    Ok(())
}

/// A late answer is sent when it is released, and only on a connection that still exists.
#[test]
fn a_late_answer_waits_to_be_released() -> Result<()> {
    let double = Double::new()?;
    double
        .core
        .misbehave(Call::CreateCertificate, 1, Misbehaviour::Late);
    let payload = json!({ "certificateSigningRequest": double.ecc_request()?.1 }).to_string();
    let said = std::thread::scope(|scope| {
        let asking = scope.spawn(|| double.request(CREATE, ACCEPTED, &payload, double.core.port()));
        double
            .core
            .wait_until("the request", |counts| counts.created == 1)?;
        double.core.release();
        asking.join().unwrap_or_else(|_| anyhow::bail!("panic"))
    })?;
    assert!(said.stdout.contains("certificatePem"), "{said:?}");
    Ok(())
}

#[test]
fn an_answer_can_come_twice() -> Result<()> {
    let double = Double::new()?;
    double
        .core
        .misbehave(Call::CreateCertificate, 1, Misbehaviour::Twice);
    double.create(&double.ecc_request()?.1)?;
    let answered = double.core.events().count(
        |event| matches!(event, image_tests::doubles::iot_core::Event::Answered(topic, _) if topic == ACCEPTED),
    );
    assert_eq!((answered, double.core.counts().created), (2, 1));
    Ok(())
}
