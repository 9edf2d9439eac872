//! A device that is due renews over the network, with its key or a new one, by what firstboot-renew.service does.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Context, Result};
use image_tests::clients::KeyType;
use image_tests::device::{NEXT, PREVIOUS, STORE};
use image_tests::doubles::clock::ClockDouble;
use image_tests::doubles::est::{self, Misbehaviour};
use image_tests::doubles::iot_core::{self, Call, ClientIds, Rejection, Renewing, Status, Who};
use image_tests::doubles::pki::Authority;
use image_tests::faults::network::{CLAIM, Cloud};
use serde_json::{Value, json};

use crate::due::{Due, KEPT_CLAIM};
use crate::thing;

/// Before and after, by what the server sees; with one certificate more, and with the name under which the thing is
/// registered, whichever that is.
fn goes_its_way(due: &Due, new_key: bool, name: &str) -> Result<()> {
    let (serial, key) = (due.serial()?, due.key_sha256()?);
    due.greengrass_connects(name)?;
    assert_eq!(due.renew()?, new_key);
    assert_ne!(due.serial()?, serial);
    assert_eq!(due.key_sha256()? != key, new_key);
    assert_eq!(due.device.exists(PREVIOUS), new_key);
    assert_eq!(due.issued(), 2);
    assert_eq!(due.device.status()?["thing_name"], name);
    due.greengrass_connects(name)?;
    due.assert_idle()
}

fn fleet(key: KeyType) -> Result<()> {
    for (renewed, prefix) in [("keep", "gateway-"), ("new", "core-")] {
        let due = Due::by_fleet(key, renewed, Renewing::Allowed, prefix)?;
        let name = thing().replace("gateway-", prefix);
        goes_its_way(&due, renewed == "new", &name)?;
        let registry = due.cloud.core.registry();
        assert_eq!(registry.active_of(&name).len(), 2);
    }
    Ok(())
}

fn est(key: KeyType) -> Result<()> {
    for renewed in ["keep", "new"] {
        // The CA has added to the names of the first certificate: the request for the second has them, too.
        for renames in [false, true] {
            let options = est::Options {
                renames,
                ..est::Options::default()
            };
            let due = Due::by_est(key, renewed, options)?;
            let server = due.server()?;
            let serial = due.serial()?;
            goes_its_way(&due, renewed == "new", &thing())?;
            assert_eq!(server.shown(), [serial.as_str().unwrap_or_default()]);
            assert_eq!(server.counts().reenrolls, 1);
        }
    }
    Ok(())
}

image_tests::for_both_keys! {
    fleet: by_fleet_provisioning_with_ecc, by_fleet_provisioning_with_rsa;
    est: by_est_with_ecc, by_est_with_rsa;
}

/// AWS says no to the device's certificate: the claim pair that was kept, for root alone, is presented instead.
#[test]
fn the_kept_claim_pair_where_aws_says_no() -> Result<()> {
    for (renewed, renewing) in [
        ("keep", Renewing::Never),
        ("keep", Renewing::Rejected(Call::RegisterThing)),
        ("new", Renewing::Closed(Call::CreateCertificate)),
    ] {
        let due = Due::by_fleet(KeyType::EccP256, renewed, renewing, "gateway-")?;
        for (on_card, kept) in CLAIM.iter().zip(KEPT_CLAIM) {
            assert!(!due.device.exists(on_card));
            let mode = std::fs::metadata(due.device.path(kept))?
                .permissions()
                .mode();
            assert_eq!(mode & 0o077, 0, "{kept}");
        }
        assert_eq!(due.renew()?, renewed == "new", "{renewing:?}");
        assert_eq!(due.issued(), 2);
        let log = due.cloud.core.events().0;
        assert!(log.iter().any(|entry| entry.who == Who::Claim));
        due.assert_idle()?;
    }
    Ok(())
}

/// Without a claim pair, an operator signs the request that lies on the card, and nothing is lost.
#[test]
fn offline_where_aws_says_no_and_there_is_no_claim_pair() -> Result<()> {
    let authority = Authority::new()?;
    for renewed in ["keep", "new"] {
        let mut due = Due::by_fleet(KeyType::EccP256, renewed, Renewing::Never, "gateway-")?;
        due.remove_kept_claim()?;
        due.keeps_what_it_has("The device keeps its certificate")?;
        assert_eq!(due.issued(), 1);
        // AWS IoT Core knows the operator's CA from now on.
        due.resume(due.cloud.core.memory().registering(&authority)?)?;
        due.takes_certificate_of(&authority)?;
        assert_eq!(due.device.status()?["thing_name"], thing());
    }
    Ok(())
}

/// The registration's answer is lost, and AWS does not repeat it: the certificate is active, as the device can see. No
/// other one is requested.
#[test]
fn a_lost_answer_of_aws() -> Result<()> {
    for renewed in ["keep", "new"] {
        let due = Due::by_fleet(KeyType::EccP256, renewed, Renewing::Allowed, "gateway-")?;
        due.remove_kept_claim()?;
        loses_the_registrations_answer(&due)?;
        assert_eq!(due.renew()?, renewed == "new");
        assert_eq!(due.issued(), 2);
        due.assert_idle()?;
    }
    Ok(())
}

/// The registration succeeds, its answer is lost, and nobody says more in this run.
fn loses_the_registrations_answer(due: &Due) -> Result<()> {
    let core = &due.cloud.core;
    core.misbehave(Call::RegisterThing, 1, iot_core::Misbehaviour::HangsUp);
    let later = Rejection::new(429, "Throttled", "later");
    core.misbehave(
        Call::RegisterThing,
        1,
        iot_core::Misbehaviour::Rejected(later),
    );
    due.keeps_what_it_has("tries again later").map(drop)
}

/// A policy that lets Greengrass in and nothing beside it: whether the certificate of the lost answer is active cannot
/// be told, so it is not thrown away, and no other one is requested.
#[test]
fn a_policy_for_one_client_id() -> Result<()> {
    let due = Due::by_fleet(KeyType::EccP256, "keep", Renewing::Allowed, "gateway-")?;
    loses_the_registrations_answer(&due)?;
    due.cloud.core.set_client_ids(ClientIds::Own);
    for _ in 0..2 {
        due.keeps_what_it_has(&format!("no connection as {}-renewal", thing()))?;
    }
    due.greengrass_connects(&thing())?;
    // The policy is mended.
    due.cloud.core.set_client_ids(ClientIds::Beginning);
    due.renew()?;
    assert_eq!(due.issued(), 2);
    due.assert_idle()
}

/// A token that has expired: the certificate is worthless, and another one is requested in the same run.
#[test]
fn a_kept_certificate_that_has_expired() -> Result<()> {
    let due = Due::by_fleet(KeyType::EccP256, "keep", Renewing::Allowed, "gateway-")?;
    due.remove_kept_claim()?;
    let core = &due.cloud.core;
    core.misbehave(Call::RegisterThing, 1, iot_core::Misbehaviour::Lost);
    core.set_renewing(Renewing::Closed(Call::RegisterThing));
    due.keeps_what_it_has("closed")?;
    core.behave();
    core.set_renewing(Renewing::Allowed);
    core.advance(Duration::from_secs(2 * 60 * 60));
    due.renew()?;
    assert_eq!(due.issued(), 3);
    due.assert_idle()
}

/// What cannot be used costs one certificate, and not one at each try.
#[test]
fn an_est_answer_that_cannot_be_used() -> Result<()> {
    let due = Due::by_est(KeyType::EccP256, "keep", est::Options::default())?;
    let server = due.server()?;
    for _ in 0..9 {
        server.misbehave(Misbehaviour::AnotherKey);
    }
    due.keeps_what_it_has("asks again after")?;
    due.keeps_what_it_has("asks again after")?;
    assert_eq!(due.issued(), 2);
    Ok(())
}

/// A server that fails, over and over: that says nothing about the certificate in service, which came from it.
#[test]
fn an_est_server_that_fails() -> Result<()> {
    let due = Due::by_est(KeyType::EccP256, "keep", est::Options::default())?;
    let server = due.server()?;
    for _ in 0..2 {
        server.misbehave(Misbehaviour::Answers(500, vec![], ""));
        due.keeps_what_it_has("(500")?;
    }
    due.keeps_what_it_has("has not given a certificate yet: firstboot asks again after")?;
    let status = due.device.status()?;
    assert_eq!(status["refused"], Value::Null, "{status}");
    let result = &status["renewal"]["last_request"]["result"];
    assert_eq!(result, "waiting", "{status}");
    due.device.settings(&due.settings)?;
    due.renew()?;
    due.assert_idle()
}

/// A server that has not decided yet: each look says until when it is waited for, and asks nobody before that. Then the
/// same request is sent again.
#[test]
fn an_est_server_that_has_not_decided() -> Result<()> {
    for (renewed, place) in [("keep", STORE), ("new", NEXT)] {
        let mut due = Due::by_est(KeyType::EccP256, renewed, est::Options::default())?;
        let wait = vec![("Retry-After", "3600".to_owned())];
        due.server()?
            .misbehave(Misbehaviour::Answers(202, wait, ""));
        due.keeps_what_it_has("has not decided yet")?;
        due.keeps_what_it_has("has not given a certificate yet: firstboot asks again after")?;
        let status = due.device.status()?;
        let again = status["renewal"]["retry_after"].as_str();
        let again = again.context("no retry_after")?;
        let shown = due.device.succeed(&["status"])?;
        for text in [status["message"].as_str().unwrap_or_default(), &shown] {
            assert!(
                text.contains(&format!("asks again after {again}")),
                "{text}"
            );
        }
        assert_eq!(status["enrollment"]["retry_after"], Value::Null);
        // With the key that the certificate will be for.
        let noted = due.device.read(format!("{place}/est.json"))?;
        let noted: Value = serde_json::from_str(&noted)?;
        assert!(noted["again"].is_u64(), "{noted}");

        let (asked, waiting) = (due.server()?.counts(), due.device.snapshot()?);
        for minutes in [0, 50] {
            due.device.clock = Some(ClockDouble::ahead(Duration::from_secs(minutes * 60))?);
            due.keeps_what_it_has("asks again after")?;
            waiting.assert_same(&due.device.snapshot()?);
        }
        assert_eq!(due.server()?.counts(), asked);
        due.device.clock = Some(ClockDouble::ahead(Duration::from_secs(3601))?);
        assert_eq!(due.renew()?, renewed == "new");
        assert_eq!(due.issued(), 2);
        let sent = due.server()?.requests();
        assert_eq!(sent.len(), 3);
        assert_eq!(sent[1], sent[2]);
        due.assert_idle()?;
    }
    Ok(())
}

/// AWS IoT Core refuses a certificate that no operator has saved: the file that is shown is the device's own.
#[test]
fn a_refused_certificate_that_came_by_est() -> Result<()> {
    for (renewed, file) in [
        ("keep", format!("{STORE}/est.json")),
        ("new", format!("{NEXT}/certificate.pem")),
    ] {
        let mut due = Due::by_est(KeyType::EccP256, renewed, est::Options::default())?;
        let (authority, _) = due.est.as_ref().context("no EST")?;
        // It knows the certificate in service, and the CA's others no more.
        due.cloud = Cloud::with(iot_core::Options {
            trusted: vec![authority.certificate_pem()?],
            ..iot_core::Options::default()
        })?;
        due.cloud.core.has_seen(&due.id()?, &thing());
        let root = due.cloud.root.certificate_pem()?;
        due.device.write("/boot/firstboot/root-ca.pem", root)?;
        due.settings["enrollment"]["port"] = json!(due.cloud.core.port());
        due.device.settings(&due.settings)?;
        due.device.succeed(&["enroll"])?;
        due.keeps_what_it_has("is refused")?;
        let status = due.device.status()?;
        let path = status["refused"][0]["path"].as_str().unwrap_or_default();
        assert!(path.ends_with(&file), "{status}");
        assert!(std::path::Path::new(path).exists(), "{status}");
    }
    Ok(())
}

/// A server that recognises a request and sends what it has issued before: that is no renewal, and not the end of it.
#[test]
fn the_same_certificate_again() -> Result<()> {
    for renewed in ["keep", "new"] {
        let due = Due::by_est(KeyType::EccP256, renewed, est::Options::default())?;
        let server = due.server()?;
        server.misbehave(Misbehaviour::Again);
        due.keeps_what_it_has("asks again after")?;
        due.device.settings(&due.settings)?;
        assert_eq!(due.renew()?, renewed == "new");
        assert_eq!(due.issued(), 2);
        // Another request than before, where that was for the same key.
        let sent = server.requests();
        assert_ne!(sent[1], sent[2]);
        due.assert_idle()?;
    }
    Ok(())
}

/// A kept pair that cannot be used any more hides nothing of what AWS has said.
#[test]
fn a_damaged_claim_pair() -> Result<()> {
    let due = Due::by_fleet(KeyType::EccP256, "keep", Renewing::Never, "gateway-")?;
    due.device.write(KEPT_CLAIM[0], "hello")?;
    due.keeps_what_it_has("AWS IoT Core refused the subscription")?;
    Ok(())
}

/// The pair is kept for as long as renewals may need it.
#[test]
fn the_kept_claim_pair_goes() -> Result<()> {
    let mut due = Due::by_fleet(KeyType::EccP256, "keep", Renewing::Allowed, "gateway-")?;
    // A new one replaces it; one that cannot be used does not.
    let good = due.device.read(KEPT_CLAIM[1])?;
    for (path, pem) in CLAIM.iter().zip(["hello", "hello"]) {
        due.device.write(path, pem)?;
    }
    due.device.succeed(&["enroll"])?;
    assert_eq!(due.device.read(KEPT_CLAIM[1])?, good);
    assert!(!due.device.exists(CLAIM[1]));

    due.settings["renew"] = Value::Null;
    due.device.settings(&due.settings)?;
    due.device.succeed(&["enroll"])?;
    for path in KEPT_CLAIM {
        assert!(!due.device.exists(path));
    }
    let due = Due::by_fleet(KeyType::EccP256, "keep", Renewing::Allowed, "gateway-")?;
    due.device.succeed(&["reset"])?;
    for path in KEPT_CLAIM {
        assert!(!due.device.exists(path));
    }
    Ok(())
}

/// The old certificate is deactivated after the new one was seen, and nobody misses it.
#[test]
fn the_old_one_is_deactivated() -> Result<()> {
    let due = Due::by_fleet(KeyType::EccP256, "new", Renewing::Allowed, "gateway-")?;
    let old = due.id()?;
    due.renew()?;
    due.cloud.core.set_status(&old, Status::Inactive);
    due.greengrass_connects(&thing())?;
    due.assert_idle()
}
