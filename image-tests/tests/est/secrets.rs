//! Password, claim key and PIN never reach a log, an argument list, an environment, a status, or a file that others can
//! read.

use anyhow::Result;
use image_tests::clients::KeyType;
use image_tests::doubles::est::{Misbehaviour, PASSWORD};
use openssl::base64;

use crate::{CLAIM, CLAIM_KEY, CLAIM_PASSWORD, Enrolling, Shows, exit};

#[test]
fn they_stay_where_they_belong() -> Result<()> {
    let enrolling = Enrolling::new()?;
    enrolling.put_claim(Shows::Pair)?;
    let key = enrolling.device.read(CLAIM_KEY)?;
    let lines = key
        .lines()
        .filter(|line| line.len() > 20 && !line.starts_with('-'));
    let pin = enrolling.device.identity(KeyType::EccP256)?.pin()?;
    // As it goes over the wire, at any of three offsets, without what depends on its neighbours.
    let on_the_wire = (0..3).map(|offset| {
        let shifted = format!("{}{PASSWORD}", &"xxx"[offset..]);
        let encoded = base64::encode_block(shifted.as_bytes());
        encoded[4..encoded.len() - 4].to_owned()
    });
    let secrets: Vec<String> = [PASSWORD.to_owned(), pin.clone()]
        .into_iter()
        .chain(lines.map(str::to_owned))
        .chain(on_the_wire)
        .collect();

    let status = &["status", "--json"][..];
    let enroll = &["--verbose", "enroll"][..];
    let later = vec![("Retry-After", "0".to_owned())];
    let mut said = String::new();
    for misbehaviour in [
        Misbehaviour::Answers(401, vec![], "no"),
        Misbehaviour::Answers(202, later, ""),
        Misbehaviour::AnotherKey,
    ] {
        enrolling.server.misbehave(misbehaviour);
        said += &enrolling.device.run_traced(enroll)?;
        said += &enrolling.device.run_traced(status)?;
    }
    enrolling.touch_the_card()?;
    // On the card, and nowhere else.
    let snapshot = enrolling.device.snapshot()?;
    let found = snapshot.files_with(PASSWORD.as_bytes());
    assert_eq!(found, [std::path::Path::new(CLAIM_PASSWORD)]);
    said += &enrolling.device.run_traced(enroll)?;
    said += &enrolling.device.run_traced(status)?;
    enrolling.ends_done()?;
    assert!(said.contains("issued: "), "{said}");
    for secret in &secrets {
        assert!(!said.contains(secret), "a secret was said: {secret}");
        for path in enrolling.device.snapshot()?.files_with(secret.as_bytes()) {
            assert_eq!(*secret, pin, "a secret is in {}", path.display());
            assert_eq!(path, std::path::Path::new("/var/lib/tpm2_pkcs11/pin"));
        }
    }
    for path in CLAIM {
        assert!(!enrolling.device.exists(path));
    }
    Ok(())
}

/// By default, a mounted FAT partition is readable by everybody.
#[test]
fn a_password_that_everybody_can_read_causes_a_warning() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;

    let enrolling = Enrolling::new()?;
    for path in ["/boot", "/boot/firstboot", CLAIM_PASSWORD] {
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(enrolling.device.path(path), mode)?;
    }
    let outcome = enrolling.enroll()?;
    crate::assert_ends(&outcome, exit::DONE, "every user of this device can read");
    Ok(())
}

/// A password that is put onto the card of an enrolled device is removed and not used; where nothing uses it, each start
/// says that it lies there.
#[test]
fn a_password_does_not_stay_unnoticed() -> Result<()> {
    let enrolling = Enrolling::new()?;
    enrolling.ends_done()?;
    let before = enrolling.server.counts();
    enrolling.put_claim(Shows::Password)?;
    enrolling.ends_done()?;
    assert_eq!(enrolling.server.counts(), before);
    enrolling.put_claim(Shows::Password)?;
    enrolling.change(|enrollment| enrollment["method"] = "offline".into())?;
    let outcome = enrolling.enroll()?;
    crate::assert_ends(&outcome, exit::DONE, "nothing uses it");
    assert!(
        outcome.stderr.contains("claim.password"),
        "{}",
        outcome.stderr
    );
    assert!(enrolling.device.exists(CLAIM_PASSWORD));
    Ok(())
}
