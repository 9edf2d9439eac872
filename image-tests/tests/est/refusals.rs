//! The server says no, or what it must not say: nothing is accepted, and a later start succeeds.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result};
use image_tests::device::STORE;
use image_tests::doubles::est::{EstServer, Misbehaviour, Options};
use image_tests::doubles::pki::{Authority, Validity};
use image_tests::doubles::tls::Version;
use image_tests::process::succeed;
use openssl::hash::MessageDigest;
use openssl::x509::X509;
use serde_json::json;

use crate::{CERTIFICATE, CLAIM_PASSWORD, EST_CA, Enrolling, Shows, assert_ends, exit, later};

/// The device waits, with these words; then, the server being right again, it has as many certificates.
#[track_caller]
fn holds(misbehaviour: Misbehaviour, words: &str, issued: usize) -> Result<()> {
    is_over(misbehaviour, words, issued, |_| Ok(()))
}

/// The same, but it asks nobody again before somebody has changed something on the card.
#[track_caller]
fn pauses(misbehaviour: Misbehaviour, words: &str, issued: usize) -> Result<()> {
    is_over(misbehaviour, words, issued, |enrolling| {
        let asked = enrolling.server.counts();
        enrolling.fails(exit::WAITING, "asks again after")?;
        assert_eq!(enrolling.server.counts(), asked);
        enrolling.touch_the_card()
    })
}

#[track_caller]
fn is_over(
    misbehaviour: Misbehaviour,
    words: &str,
    issued: usize,
    then: impl FnOnce(&Enrolling) -> Result<()>,
) -> Result<()> {
    let enrolling = Enrolling::new()?;
    let what = format!("{misbehaviour:?}");
    let key = enrolling.key_sha256()?;
    enrolling.server.misbehave(misbehaviour);
    enrolling
        .fails(exit::WAITING, words)
        .context(what.clone())?;
    assert!(enrolling.device.exists(CLAIM_PASSWORD), "{what}");
    then(&enrolling).context(what.clone())?;
    enrolling.ends_done().context(what.clone())?;
    assert_eq!(enrolling.key_sha256()?, key, "{what}");
    enrolling.assert_issued(issued);
    Ok(())
}

#[test]
fn the_server_refuses() -> Result<()> {
    for (status, headers, words, said) in [
        (
            401,
            vec![("WWW-Authenticate", "Basic realm=\"e\"")],
            "no",
            "claim.password",
        ),
        (
            401,
            vec![("WWW-Authenticate", "Digest realm=\"e\"")],
            "",
            "digest",
        ),
        (403, vec![], "", "claim.password"),
        (400, vec![], "no such \u{1b}[2J name", "no such"),
        (404, vec![], "", "enrollment.est.server"),
        (
            302,
            vec![("Location", "https://elsewhere.example/")],
            "",
            "elsewhere.example",
        ),
        (500, vec![], "", "tries again"),
    ] {
        let headers = headers
            .into_iter()
            .map(|(name, value)| (name, value.to_owned()));
        let answers = Misbehaviour::Answers(status, headers.collect(), words);
        holds(answers, said, 1)?;
    }
    let long = "x".repeat(60_000).leak();
    holds(Misbehaviour::Answers(400, vec![], long), "kind of key", 1)
}

#[test]
fn a_certificate_that_is_not_this_devices() -> Result<()> {
    let at = Misbehaviour::AnotherTime;
    for (misbehaviour, words) in [
        (Misbehaviour::AnotherKey, "another key"),
        (Misbehaviour::AnotherName, "somebody-else"),
        (
            Misbehaviour::AnotherCa(Arc::new(Authority::new()?)),
            "est-ca.pem",
        ),
        (at(Validity::Expired), "expired"),
        (at(Validity::NotYet), "not valid before"),
    ] {
        pauses(misbehaviour, words, 2)?;
    }
    Ok(())
}

/// What is wrong for as long as nobody does anything about it costs one certificate, and not one at each try.
#[test]
fn a_lasting_error_costs_one_certificate() -> Result<()> {
    let pkcs7 = "application/pkcs7-mime";
    for misbehaviour in [
        Misbehaviour::AnotherKey,
        Misbehaviour::Says(pkcs7, b"hello!".to_vec()),
    ] {
        let enrolling = Enrolling::new()?;
        for _ in 0..20 {
            enrolling.server.misbehave(misbehaviour.clone());
        }
        enrolling.fails(exit::WAITING, "asks again after")?;
        let before = enrolling.device.snapshot()?;
        for _ in 0..3 {
            enrolling.fails(exit::WAITING, "asks again after")?;
        }
        before.assert_same(&enrolling.device.snapshot()?);
        enrolling.assert_issued(1);
        // The next one only after the pause, and then a longer pause.
        for (minutes, issued) in [(14, 1), (2, 2), (59, 2), (2, 3)] {
            later::pass(&enrolling, 60 * minutes)?;
            enrolling.fails(exit::WAITING, "asks again after")?;
            enrolling.assert_issued(issued);
        }
    }
    Ok(())
}

/// The same where the answers are lost: the first time, that may be the network. A server that fails, or one behind a
/// proxy that does, may have issued before.
#[test]
fn lost_answers_cost_two_certificates() -> Result<()> {
    let long = Misbehaviour::Says("application/pkcs7-mime", vec![b'A'; 1_000_000]);
    let fails = |status| Misbehaviour::Answers(status, Vec::new(), "");
    for misbehaviour in [
        Misbehaviour::Half,
        Misbehaviour::ClosesAfterIssuing,
        long,
        fails(500),
        fails(502),
        fails(504),
    ] {
        let enrolling = Enrolling::new()?;
        for _ in 0..20 {
            enrolling.server.misbehave(misbehaviour.clone());
        }
        for _ in 0..5 {
            assert_eq!(enrolling.enroll()?.code, exit::WAITING);
        }
        assert_eq!(enrolling.server.counts().enrolls, 2, "{misbehaviour:?}");
        enrolling.fails(exit::WAITING, "asks again after")?;
    }
    Ok(())
}

/// Nothing is requested if the answer could not be kept, also by a device that has asked before.
#[test]
fn a_full_disk_costs_no_certificate() -> Result<()> {
    let enrolling = Enrolling::new()?;
    let later = vec![("Retry-After", "0".to_owned())];
    enrolling
        .server
        .misbehave(Misbehaviour::Answers(202, later, ""));
    enrolling.fails(exit::WAITING, "has not decided yet")?;
    let asked = enrolling.server.counts().enrolls;
    let store = enrolling.device.path(STORE);
    let disk = Disk::holding(&store)?;
    let outcome = enrolling.enroll()?;
    assert_ends(&outcome, exit::CANNOT_WRITE, "is full");
    assert_eq!(enrolling.server.counts().enrolls, asked);
    disk.widen()?;
    enrolling.ends_done()?;
    enrolling.assert_issued(1);
    Ok(())
}

/// A tmpfs over an identity's directory, with its files, and no room for more.
struct Disk(std::path::PathBuf);

impl Disk {
    fn holding(store: &Path) -> Result<Self> {
        let aside = tempfile::tempdir()?;
        copy(store, aside.path())?;
        succeed(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", "size=256k,mode=750", "none"])
                .arg(store),
        )?;
        let disk = Self(store.to_owned());
        copy(aside.path(), store)?;
        Ok(disk)
    }

    fn widen(&self) -> Result<()> {
        succeed(
            Command::new("mount")
                .args(["-o", "remount,size=8m"])
                .arg(&self.0),
        )
        .map(drop)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut contents = from.as_os_str().to_owned();
    contents.push("/.");
    succeed(Command::new("cp").arg("-a").arg(contents).arg(to)).map(drop)
}

/// What was issued is accepted as soon as what spoke against it is put right: nothing else is asked for.
#[test]
fn a_refused_certificate_is_not_lost() -> Result<()> {
    let enrolling = Enrolling::new()?;
    let other = Arc::new(Authority::new()?);
    let misbehaviour = Misbehaviour::AnotherCa(Arc::clone(&other));
    enrolling.server.misbehave(misbehaviour);
    enrolling.fails(exit::WAITING, "est-ca.pem")?;
    let both = enrolling.authority.certificate_pem()? + &other.certificate_pem()?;
    enrolling.device.write(EST_CA, both)?;
    let asked = enrolling.server.counts();
    assert_ends(&enrolling.enroll()?, exit::DONE, "");
    assert_eq!(enrolling.server.counts(), asked);
    let certificate = enrolling.device.read(CERTIFICATE)?;
    assert!(certificate.starts_with(&enrolling.server.issued()[0]));
    assert!(certificate.ends_with(&other.certificate_pem()?));
    Ok(())
}

/// Where no certificate could be accepted, none is asked for: the server's own certificate is from a CA that is trusted,
/// and none of those that issue is.
#[test]
fn a_ca_that_is_not_trusted_is_not_asked() -> Result<()> {
    let enrolling = Enrolling::new()?;
    let (own, other) = (&enrolling.authority, Arc::new(Authority::new()?));
    let server = EstServer::start_as(
        &own.server()?,
        &other,
        Version::Tls13,
        Options {
            intermediate: true,
            ..Options::default()
        },
    )?;
    enrolling.change(|e| e["est"]["server"] = json!(format!("localhost:{}", server.port())))?;
    enrolling.fails(exit::SETTINGS, "est-ca.pem")?;
    let counts = server.counts();
    assert_eq!((counts.cacerts, counts.enrolls), (1, 0));
    let both = own.certificate_pem()? + &other.certificate_pem()?;
    enrolling.device.write(EST_CA, both)?;
    assert_ends(&enrolling.enroll()?, exit::DONE, "");
    assert_eq!(server.counts().issued, 1);
    Ok(())
}

/// Somebody in between answers for the server, as far as the certificate that the device trusts lets it: that passes.
#[test]
fn a_portal_instead_of_the_cas_certificates() -> Result<()> {
    let enrolling = Enrolling::new()?;
    let html = vec![("Content-Type", "text/html".to_owned())];
    enrolling.server.refuse_cacerts(200, html);
    enrolling.fails(exit::WAITING, "text/html")?;
    assert_eq!(enrolling.server.counts().enrolls, 0);
    enrolling.ends_done()
}

#[test]
fn an_answer_that_is_none() -> Result<()> {
    let pkcs7 = "application/pkcs7-mime";
    for (content_type, body, words) in [
        ("text/html", b"<p>hello</p>".to_vec(), "text/html"),
        (pkcs7, b"hello!".to_vec(), "base64"),
        (pkcs7, b"MIIB".to_vec(), "PKCS#7"),
        (pkcs7, Vec::new(), "PKCS#7"),
        (pkcs7, vec![b'A'; 60_000], "PKCS#7"),
    ] {
        pauses(Misbehaviour::Says(content_type, body), words, 2)?;
    }
    let long = Misbehaviour::Says(pkcs7, vec![b'A'; 1_000_000]);
    holds(long, "bytes", 2)
}

#[test]
fn the_connection_ends_instead_of_an_answer() -> Result<()> {
    holds(Misbehaviour::Closes, "closed", 1)?;
    holds(Misbehaviour::ClosesAfterIssuing, "closed", 2)?;
    holds(Misbehaviour::Half, "closed", 2)
}

/// Another CA than the one that is named, however trusted, is not asked.
#[test]
fn named_issuers_take_the_place_of_the_pinned_ones() -> Result<()> {
    let enrolling = Enrolling::new()?;
    enrolling.change(|e| e["issuers"] = json!(["00".repeat(32)]))?;
    enrolling.fails(exit::SETTINGS, "enrollment.issuers")?;
    assert_eq!(enrolling.server.counts().enrolls, 0);
    let own = X509::from_pem(enrolling.authority.certificate_pem()?.as_bytes())?;
    let own: String = own
        .digest(MessageDigest::sha256())?
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    enrolling.change(|e| e["issuers"] = json!([own]))?;
    enrolling.ends_done()
}

#[test]
fn what_is_missing_on_the_card_is_waited_for() -> Result<()> {
    for path in [CLAIM_PASSWORD, EST_CA] {
        let enrolling = Enrolling::new()?;
        let content = enrolling.device.read(path)?;
        enrolling.device.remove(path)?;
        let name = path.rsplit('/').next().context("a name")?;
        enrolling.fails(exit::WAITING, name)?;
        assert_eq!(enrolling.server.counts().cacerts, 0);
        enrolling.device.write(path, content)?;
        enrolling.ends_done()?;
    }
    Ok(())
}

#[test]
fn what_is_on_the_card_cannot_be_used() -> Result<()> {
    for (path, content) in [
        (CLAIM_PASSWORD, String::new()),
        (CLAIM_PASSWORD, "\n".into()),
        (CLAIM_PASSWORD, "two\nlines".into()),
        (CLAIM_PASSWORD, "x".repeat(5000)),
        (EST_CA, "hello".into()),
        (EST_CA, String::new()),
    ] {
        let enrolling = Enrolling::new()?;
        let good = enrolling.device.read(path)?;
        enrolling.device.write(path, &content)?;
        let name = path.rsplit('/').next().context("a name")?;
        enrolling.fails(exit::SETTINGS, name)?;
        assert_eq!(enrolling.server.counts().cacerts, 0, "{path}: {content}");
        enrolling.device.write(path, good)?;
        enrolling.ends_done()?;
    }
    Ok(())
}

#[test]
fn a_password_that_is_not_the_right_one() -> Result<()> {
    let enrolling = Enrolling::new()?;
    enrolling.device.write(CLAIM_PASSWORD, "another")?;
    enrolling.fails(exit::WAITING, "claim.password")?;
    enrolling.put_claim(Shows::Password)?;
    enrolling.ends_done()?;
    enrolling.assert_issued(1);
    Ok(())
}
