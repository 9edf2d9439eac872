//! The server answers later: the device comes back, and not before the server wants it to.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use firstboot_formats::encoding::to_hex;
use image_tests::doubles::est::{Happening, Misbehaviour};
use openssl::hash::MessageDigest;
use openssl::x509::X509;
use serde_json::{Value, json};

use crate::{CLAIM_PASSWORD, EST, EST_CA, Enrolling, exit};

fn says(status: u16, retry_after: Option<&str>) -> Misbehaviour {
    let headers = retry_after.map(|value| ("Retry-After", value.to_owned()));
    Misbehaviour::Answers(status, headers.into_iter().collect(), "")
}

/// Moves what the device has noted about its request so many seconds into the past, instead of waiting for them.
pub fn pass(enrolling: &Enrolling, seconds: u64) -> Result<()> {
    let mut asked: Value = serde_json::from_str(&enrolling.device.read(EST)?)?;
    for name in ["at", "again"] {
        let moment = asked[name].as_u64().context("no moment")?;
        asked[name] = (moment - seconds).into();
    }
    enrolling.device.write(EST, asked.to_string())
}

#[test]
fn the_request_is_repeated_after_the_wait_and_not_before() -> Result<()> {
    let enrolling = Enrolling::new()?;
    enrolling.server.misbehave(says(202, Some("3600")));
    enrolling.fails(exit::WAITING, "has not decided yet")?;
    let asked = enrolling.server.counts();
    let status = enrolling.device.status()?;
    let again = status["enrollment"]["retry_after"].as_str();
    let again = again.context("no retry_after")?.to_owned();
    // A wait that writes nothing and asks nobody, however often the schedule comes round.
    enrolling.fails(exit::WAITING, &again)?;
    let before = enrolling.device.snapshot()?;
    for _ in 0..3 {
        enrolling.fails(exit::WAITING, &again)?;
    }
    before.assert_same(&enrolling.device.snapshot()?);
    assert_eq!(enrolling.server.counts(), asked);
    pass(&enrolling, 3601)?;
    enrolling.ends_done()?;
    enrolling.assert_issued(1);
    // The same request, to the last bit.
    let sent = enrolling.server.requests();
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0], sent[1]);
    Ok(())
}

/// A server that cannot answer now may say when, too; and whoever says nothing is asked at the next try.
#[test]
fn every_way_to_say_later() -> Result<()> {
    let date = "Fri, 31 Dec 2100 23:59:59 GMT";
    for (status, retry_after, waits) in [
        (202, Some(date), true),
        (202, Some("0"), false),
        (202, Some("soon"), false),
        (202, None, false),
        (503, Some("120"), true),
        (503, None, false),
        (429, Some("120"), true),
    ] {
        let what = format!("{status} {retry_after:?}");
        let enrolling = Enrolling::new()?;
        enrolling.server.misbehave(says(status, retry_after));
        enrolling.fails(exit::WAITING, "").context(what.clone())?;
        if waits {
            enrolling
                .fails(exit::WAITING, "asks again after")
                .context(what.clone())?;
            assert_eq!(enrolling.server.counts().enrolls, 1, "{what}");
            // A day is the longest that a device waits.
            pass(&enrolling, 24 * 60 * 60)?;
        }
        enrolling.ends_done().context(what)?;
        enrolling.assert_issued(1);
    }
    Ok(())
}

/// Whoever changes something on the card, or only writes it again, wants another try.
#[test]
fn an_operator_ends_the_wait() -> Result<()> {
    let enrolling = Enrolling::new()?;
    for path in ["/boot/firstboot/firstboot.json", EST_CA, CLAIM_PASSWORD] {
        enrolling.server.misbehave(says(202, Some("99999999")));
        enrolling.fails(exit::WAITING, "has not decided yet")?;
        let asked = enrolling.server.counts().enrolls;
        enrolling.fails(exit::WAITING, "asks again after")?;
        assert_eq!(enrolling.server.counts().enrolls, asked, "{path}");
        let content = enrolling.device.read(path)?;
        enrolling.device.write(path, content)?;
    }
    enrolling.ends_done()?;
    assert_eq!(enrolling.server.counts().enrolls, 4);
    enrolling.assert_issued(1);
    Ok(())
}

/// Also while the server is answering: that answer is about what was there before.
#[test]
fn a_change_during_a_try_ends_its_wait() -> Result<()> {
    for path in ["/boot/firstboot/firstboot.json", EST_CA, CLAIM_PASSWORD] {
        let enrolling = Enrolling::new()?;
        let (file, content) = (enrolling.device.path(path), enrolling.device.read(path)?);
        let saved = Happening::new(move || drop(std::fs::write(&file, &content)));
        let later = Box::new(says(202, Some("99999999")));
        enrolling
            .server
            .misbehave(Misbehaviour::Meanwhile(saved, later));
        enrolling.fails(exit::WAITING, "has not decided yet")?;
        enrolling.ends_done().context(path)?;
        enrolling.assert_issued(1);
    }
    Ok(())
}

/// So does whoever updates the image's settings.
#[test]
fn an_update_ends_the_wait() -> Result<()> {
    let enrolling = Enrolling::new()?;
    enrolling.server.misbehave(says(202, Some("99999999")));
    enrolling.fails(exit::WAITING, "has not decided yet")?;
    enrolling.fails(exit::WAITING, "asks again after")?;
    // What EST has nothing to do with changes nothing.
    let others = json!({ "http_proxy": "", "port": 443, "template_name": "another" });
    let corrected = json!({ "enrollment": others });
    let image = "/usr/lib/firstboot/firstboot.json";
    enrolling.device.write(image, corrected.to_string())?;
    enrolling.fails(exit::WAITING, "asks again after")?;
    let authority = X509::from_pem(enrolling.authority.certificate_pem()?.as_bytes())?;
    let issuer = to_hex(&authority.digest(MessageDigest::sha256())?);
    let corrected = json!({ "enrollment": { "issuers": [issuer] } });
    enrolling.device.write(image, corrected.to_string())?;
    enrolling.ends_done()?;
    assert_eq!(enrolling.server.counts().enrolls, 2);
    Ok(())
}

/// A server that is too busy for its CA's certificates is left alone, too.
#[test]
fn the_cas_certificates_later() -> Result<()> {
    let enrolling = Enrolling::new()?;
    let later = vec![("Retry-After", "3600".to_owned())];
    enrolling.server.refuse_cacerts(503, later);
    enrolling.fails(exit::WAITING, "(503")?;
    enrolling.fails(exit::WAITING, "asks again after")?;
    assert_eq!(enrolling.server.counts().cacerts, 1);
    pass(&enrolling, 3601)?;
    enrolling.ends_done()?;
    enrolling.assert_issued(1);
    Ok(())
}

/// A server that refuses, and says nothing about later, is asked at each try, and nothing is written for that.
#[test]
fn a_refusal_writes_nothing() -> Result<()> {
    let enrolling = Enrolling::new()?;
    for _ in 0..3 {
        enrolling.server.misbehave(says(403, None));
    }
    enrolling.fails(exit::WAITING, "(403")?;
    let before = enrolling.device.snapshot()?;
    enrolling.fails(exit::WAITING, "(403")?;
    enrolling.fails(exit::WAITING, "(403")?;
    before.assert_same(&enrolling.device.snapshot()?);
    enrolling.ends_done()
}

/// A clock that has gone back, or a file that is damaged, keeps nobody waiting.
#[test]
fn what_cannot_be_believed_does_not_hold() -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let enrolling = Enrolling::new()?;
    enrolling.server.misbehave(says(202, Some("3600")));
    enrolling.fails(exit::WAITING, "has not decided yet")?;
    let mut asked: Value = serde_json::from_str(&enrolling.device.read(EST)?)?;
    (asked["at"], asked["again"]) = ((now + 7200).into(), (now + 9000).into());
    enrolling.device.write(EST, asked.to_string())?;
    enrolling.server.misbehave(says(202, Some("3600")));
    enrolling.fails(exit::WAITING, "has not decided yet")?;
    assert_eq!(enrolling.server.counts().enrolls, 2);
    enrolling.device.write(EST, "{")?;
    enrolling.ends_done()
}
