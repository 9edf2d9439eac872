//! A new certificate is tried at AWS IoT Core: before it is in service, or as soon as somebody answers. A refused one
//! never costs a device its connection.

use std::fs;

use anyhow::Result;
use image_tests::clients::{KeyType, pkcs11_tool};
use image_tests::device::{NEXT, PREVIOUS, STORE};
use image_tests::doubles::iot_core::{Admission, certificate_id};
use image_tests::doubles::pki::Validity;
use image_tests::ports::NOBODY;

use super::Due;

/// Both before Greengrass is stopped for it. A refusal is said; each look tries again.
#[test]
fn a_refused_certificate_for_a_new_key_stays_out() -> Result<()> {
    for key in KeyType::BOTH {
        let mut due = Due::asked("nucleus", key)?;
        let (old, next) = (due.key(STORE)?, due.key(NEXT)?);
        due.certify_by(&due.stranger)?;
        let in_service = due.in_service()?;
        let refused = |due: &Due, words: &str| -> Result<()> {
            assert!(!due.renew()?, "Greengrass would stop each day");
            due.device.succeed(&["enroll"])?;
            in_service.assert_same(&due.in_service()?);
            let status = due.device.status()?;
            assert_eq!(status["in_service"], true);
            assert_eq!(due.result()?, "refused");
            let path = status["refused"][0]["path"].as_str().unwrap_or_default();
            assert!(path.ends_with(".next.pem"), "{status}");
            due.device.succeed(&["renew"])?;
            let message = due.message()?;
            assert!(message.contains("stays in service"), "{message}");
            assert!(message.contains(words), "{message}");
            Ok(())
        };
        refused(&due, "does not accept a connection with it")?;
        // What is refused does not become good where nobody answers.
        due.at(NOBODY)?;
        refused(&due, "could not be tried")?;
        assert_eq!(due.key(STORE)?, old);

        due.register_stranger()?;
        assert!(due.renew()?);
        assert_eq!(due.key(STORE)?, next);
        assert!(
            due.cloud
                .core
                .events()
                .let_in()
                .contains(&certificate_id(&due.accepted()?)?)
        );
        assert_eq!(due.result()?, "renewed");
    }
    Ok(())
}

#[test]
fn a_refused_certificate_for_the_kept_key_stays_out() -> Result<()> {
    for (edition, key) in [
        ("nucleus-lite", KeyType::EccP256),
        ("nucleus", KeyType::Rsa2048),
    ] {
        let mut due = Due::new(edition, key, "keep")?;
        due.device.succeed(&["renew"])?;
        let in_service = due.in_service()?;
        let refused = due.certify_by(&due.stranger)?;
        for _ in 0..2 {
            assert!(!due.renew()?);
            due.device.succeed(&["enroll"])?;
            in_service.assert_same(&due.in_service()?);
            assert_eq!(due.result()?, "refused");
        }
        let shown = due.device.succeed(&["status", "--json"])?;
        assert!(shown.contains("AWS IoT Core did not accept"), "{shown}");

        due.register_stranger()?;
        assert_eq!(due.renew()?, edition == "nucleus", "{edition}");
        assert_eq!(due.accepted()?, refused);
        assert_eq!(due.result()?, "renewed");
        pkcs11_tool::sign_and_verify(&due.device.identity(key)?)?;
    }
    Ok(())
}

/// Another certificate than the one that was refused is tried as soon as it has come.
#[test]
fn another_certificate_is_tried_after_a_refusal() -> Result<()> {
    let due = Due::asked("nucleus-lite", KeyType::EccP256)?;
    due.certify_by(&due.stranger)?;
    assert!(!due.renew()?);
    let pem = due.certify()?;
    assert!(due.renew()?);
    assert_eq!(due.accepted()?, pem);
    Ok(())
}

/// What AWS IoT Core would not let connect either way says nothing about the new certificate.
#[test]
fn a_refusal_counts_only_beside_an_acceptance() -> Result<()> {
    for renewed in ["keep", "new"] {
        let due = Due::new("nucleus-lite", KeyType::EccP256, renewed)?;
        due.device.succeed(&["renew"])?;
        due.certify()?;
        due.cloud.core.set_admission(Admission::Refused);
        let in_service = due.in_service()?;
        assert!(!due.renew()?);
        in_service.assert_same(&due.in_service()?);
        assert_eq!(due.result()?, "waiting");
        assert!(due.message()?.contains("neither with it nor with the one"));
        due.cloud.core.behave();
        due.renew()?;
        assert_eq!(due.result()?, "renewed", "{renewed}");
    }
    Ok(())
}

/// Greengrass's connection has the thing's name as its client ID, and stays.
#[test]
fn a_trial_does_not_disconnect_greengrass() -> Result<()> {
    let due = Due::new("nucleus-lite", KeyType::EccP256, "keep")?;
    due.certify()?;
    due.cloud.core.take_events()?;
    due.device.succeed(&["renew"])?;
    let events = due.cloud.core.take_events()?;
    let clients: Vec<_> = events.0.iter().map(|entry| entry.client.as_str()).collect();
    let thing = crate::thing_name();
    assert!(!clients.is_empty());
    assert!(
        clients
            .iter()
            .all(|client| client.starts_with(&thing) && *client != thing),
        "{clients:?}"
    );
    Ok(())
}

/// A server that is away for a month: what is in service stays, untouched, until its end is near.
#[test]
fn without_an_answer_a_good_certificate_stays() -> Result<()> {
    for renewed in ["keep", "new"] {
        let mut due = Due::new("nucleus", KeyType::EccP256, renewed)?;
        due.device.succeed(&["renew"])?;
        let new = due.certify()?;
        let in_service = due.in_service()?;
        due.at(NOBODY)?;
        // It has 50 days.
        for day in [0, 1, 10, 19] {
            due.wait(day)?;
            assert!(!due.renew()?, "{day}");
            due.device.succeed(&["enroll"])?;
            in_service.assert_same(&due.in_service()?);
            assert_eq!(due.result()?, "waiting");
        }
        let message = {
            due.device.succeed(&["renew"])?;
            due.message()?
        };
        assert!(
            message.contains("waits until AWS IoT Core accepts"),
            "{message}"
        );
        due.wait(21)?;
        assert!(due.renew()?, "{renewed}");
        assert_eq!(due.accepted()?, new);
        assert_eq!(due.result()?, "untried");
        due.back()?;
        assert!(!due.renew()?);
        assert_eq!(due.result()?, "renewed");
    }
    Ok(())
}

/// Nobody signs for a month, and the certificate ends: nothing of what is in service is touched, and the day after the end
/// it still asks, and takes the answer.
#[test]
fn the_day_after_the_end_it_still_asks() -> Result<()> {
    for renewed in ["keep", "new"] {
        let mut due = Due::new("nucleus-lite", KeyType::EccP256, renewed)?;
        due.device.succeed(&["renew"])?;
        let in_service = due.in_service()?;
        for day in (20..=51).step_by(3).chain([51]) {
            due.wait(day)?;
            if day == 51 {
                fs::remove_file(due.device.request()?)?;
            }
            assert!(!due.renew()?);
            in_service.assert_same(&due.in_service()?);
            let status = due.device.status()?;
            assert_eq!(status["renewal"]["due"], true, "{day}");
            assert_eq!(status["in_service"], true, "{day}");
        }
        let warning = due.device.status()?["warnings"][0].to_string();
        assert!(warning.contains("the certificate expired"), "{warning}");
        let new = due.certify()?;
        due.renew()?;
        assert_eq!(due.accepted()?, new, "{renewed}");
        assert_eq!(due.result()?, "renewed");
    }
    Ok(())
}

/// It came near the end of the present one, while nobody answered, and is refused later: back, within one run.
#[test]
fn a_refused_certificate_for_the_kept_key_is_given_up() -> Result<()> {
    for edition in ["nucleus-lite", "nucleus"] {
        let mut due = Due::of_age(edition, KeyType::EccP256, "keep", Validity::ENDING)?;
        let old = due.accepted()?;
        due.device.succeed(&["renew"])?;
        due.at(NOBODY)?;
        let refused = due.certify_by(&due.stranger)?;
        assert_eq!(due.renew()?, edition == "nucleus");
        assert_eq!(due.accepted()?, refused);
        assert_eq!(due.device.status()?["in_service"], true);
        assert_eq!(due.result()?, "untried");
        // A boot does not wait for anybody's answer.
        due.device.succeed(&["enroll"])?;
        assert_eq!(due.accepted()?, refused);

        due.back()?;
        assert_eq!(due.renew()?, edition == "nucleus", "{edition}");
        assert_eq!(due.accepted()?, old);
        assert_eq!(due.result()?, "refused");
        assert_eq!(due.device.status()?["in_service"], true);
        pkcs11_tool::sign_and_verify(&due.device.identity(KeyType::EccP256)?)?;
        // Nor does it come again where nobody answers.
        due.at(NOBODY)?;
        assert!(!due.renew()?);
        assert_eq!(due.accepted()?, old);

        due.register_stranger()?;
        due.renew()?;
        assert_eq!(due.accepted()?, refused);
        assert_eq!(due.result()?, "renewed");
        assert!(!due.device.exists(format!("{STORE}/probation")));
    }
    Ok(())
}

/// The power fails while a second untried certificate takes the place of the first: what had been accepted is still
/// what there is to go back to.
#[test]
fn the_way_back_leads_past_whatever_is_untried() -> Result<()> {
    let mut due = Due::of_age("nucleus-lite", KeyType::EccP256, "keep", Validity::ENDING)?;
    let accepted = due.accepted()?;
    due.device.succeed(&["renew"])?;
    due.at(NOBODY)?;
    let ending = Validity::Days {
        over: 239,
        left: 11,
    };
    let first = due.stranger.sign_valid(&due.device.request()?, ending)?;
    due.device.drop_certificate(&first)?;
    due.renew()?;
    assert_eq!(due.accepted()?, first);

    let second = due.certify_by(&due.stranger)?;
    due.device
        .write(format!("{STORE}/probation"), certificate_id(&second)?)?;
    due.renew()?;
    assert_eq!(due.accepted()?, second);
    let former = due.device.read(format!("{STORE}/former.pem"))?;
    assert_eq!(former, accepted);
    due.back()?;
    due.renew()?;
    assert_eq!(due.accepted()?, accepted);
    Ok(())
}

/// The same for a new key: the two identities change places again.
#[test]
fn a_refused_new_key_is_given_up() -> Result<()> {
    for edition in ["nucleus-lite", "nucleus"] {
        let mut due = Due::of_age(edition, KeyType::EccP256, "new", Validity::ENDING)?;
        let (old, configuration) = (due.key(STORE)?, due.configuration()?);
        due.device.succeed(&["renew"])?;
        let next = due.key(NEXT)?;
        due.at(NOBODY)?;
        due.certify_by(&due.stranger)?;
        assert!(due.renew()?);
        assert_eq!(due.key(STORE)?, next);
        assert_eq!(due.result()?, "untried");

        due.back()?;
        assert!(due.renew()?, "{edition}");
        assert_eq!(due.key(STORE)?, old);
        assert_eq!(due.key(NEXT)?, next);
        assert!(!due.device.exists(PREVIOUS));
        configuration.assert_same(&due.configuration()?);
        let names = ["thing.next.csr.pem", "thing.next.json", "thing.next.pem"];
        assert_eq!(due.card()?, names);
        assert_eq!(due.result()?, "refused");
        assert_eq!(due.device.status()?["in_service"], true);
        assert!(!due.renew()?);
        assert_eq!(due.key(STORE)?, old);
        pkcs11_tool::sign_and_verify(&due.device.identity(KeyType::EccP256)?)?;

        due.register_stranger()?;
        assert!(due.renew()?);
        assert_eq!(due.key(STORE)?, next);
        assert_eq!(due.result()?, "renewed");
        assert!(!due.device.exists(format!("{STORE}/probation")));
    }
    Ok(())
}

/// A previous identity that does not come back: Greengrass is stopped for it once, and each boot tries again.
#[test]
fn a_way_back_that_fails_does_not_stop_greengrass_again() -> Result<()> {
    let mut due = Due::of_age("nucleus-lite", KeyType::EccP256, "new", Validity::ENDING)?;
    let old = due.key(STORE)?;
    due.device.succeed(&["renew"])?;
    let next = due.key(NEXT)?;
    due.at(NOBODY)?;
    due.certify_by(&due.stranger)?;
    assert!(due.renew()?);
    due.back()?;
    due.device.succeed(&["renew"])?;
    assert!(due.is_due()?);

    let [own, other] = [PREVIOUS, STORE].map(|place| {
        let store = format!("{place}/tpm2_pkcs11.sqlite3");
        due.device.path(store)
    });
    let kept = fs::read(&own)?;
    fs::copy(other, &own)?;
    assert!(due.renew()?);
    let message = due.message()?;
    assert!(message.contains("going back"), "{message}");
    for _ in 0..2 {
        let status = due.device.status()?;
        assert_eq!(due.result()?, "refused");
        let path = status["refused"][0]["path"].as_str().unwrap_or_default();
        assert!(path.ends_with(".pem"), "{status}");
        assert!(!due.renew()?, "Greengrass would stop each day");
        assert_eq!(due.key(STORE)?, next);
        assert_eq!(due.device.status()?["in_service"], true);
        // Nothing else waits for the next boot.
        let message = due.message()?;
        assert!(message.contains("The next boot tries again"), "{message}");
        due.device.succeed(&["enroll"])?;
    }
    fs::write(&own, kept)?;
    assert!(!due.renew()?);
    due.device.succeed(&["enroll"])?;
    assert_eq!(due.key(STORE)?, old);
    assert!(!due.device.exists(format!("{STORE}/tried.json")));
    Ok(())
}

/// It cannot be gone back from, and is activated after all: that is found out.
#[test]
fn a_certificate_that_cannot_be_given_up_is_tried_again() -> Result<()> {
    let mut due = Due::of_age("nucleus-lite", KeyType::EccP256, "new", Validity::ENDING)?;
    due.device.succeed(&["renew"])?;
    due.at(NOBODY)?;
    due.certify_by(&due.stranger)?;
    assert!(due.renew()?);
    due.back()?;
    due.device.succeed(&["renew"])?;
    let new = due.key(STORE)?;
    let [own, other] = [PREVIOUS, STORE].map(|place| {
        let store = format!("{place}/tpm2_pkcs11.sqlite3");
        due.device.path(store)
    });
    fs::copy(other, &own)?;
    assert!(due.renew()?);
    assert_eq!(due.result()?, "refused");
    due.register_stranger()?;
    assert!(!due.renew()?);
    assert_eq!(due.key(STORE)?, new);
    assert_eq!(due.result()?, "renewed");
    assert!(!due.device.exists(format!("{STORE}/probation")));
    Ok(())
}
