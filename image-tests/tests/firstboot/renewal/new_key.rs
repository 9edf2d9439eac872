//! A renewal with a new key: a second identity, made like the first, that takes the place of the one in service.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use image_tests::clients::{KeyType, openssl, pkcs11_tool};
use image_tests::device::{NEXT, PREVIOUS, STORE};
use image_tests::doubles::clock::ClockDouble;
use image_tests::doubles::pki::Validity;
use image_tests::doubles::software_tpm::SoftwareTpm;
use image_tests::doubles::tls::{TlsServer, Version};
use serde_json::{Value, json};

use super::Due;
use crate::{assert_ends, exit, thing_name};

#[test]
fn the_new_key_takes_the_old_ones_place() -> Result<()> {
    for (edition, key) in [
        ("nucleus-lite", KeyType::EccP256),
        ("nucleus-lite", KeyType::Rsa2048),
        ("nucleus", KeyType::EccP256),
        ("nucleus", KeyType::Rsa2048),
    ] {
        let due = Due::new(edition, key, "new")?;
        let device = &due.device;
        let (old, pin) = (due.key(STORE)?, device.read(format!("{STORE}/pin"))?);
        let old_certificate = device.read(format!("{STORE}/certificate.pem"))?;
        let in_service = due.in_service()?;
        device.succeed(&["renew"])?;
        in_service.assert_same(&due.in_service()?);
        assert!(!due.is_due()?, "{edition}");
        let asked = ["thing.next.csr.pem", "thing.next.json", "thing.pem"];
        assert_eq!(due.card()?, asked);
        let status = device.status()?;
        assert_eq!(status["renewal"]["due"], true, "{status}");
        assert_eq!(status["renewal"]["last_request"]["result"], "waiting");
        let message = status["message"].as_str().context("no message")?;
        assert!(message.contains(".next.pem"), "{message}");

        let new_certificate = due.certify()?;
        device.succeed(&["renew"])?;
        in_service.assert_same(&due.in_service()?);
        assert!(due.is_due()?, "{edition}");

        let configuration = due.configuration()?;
        device.succeed(&["enroll"])?;
        configuration.assert_same(&due.configuration()?);
        assert!(!due.is_due()?);
        assert_ne!(due.key(STORE)?, old);
        assert_eq!(due.key(PREVIOUS)?, old);
        assert_eq!(device.read(format!("{STORE}/pin"))?, pin);
        let accepted = device.read(format!("{STORE}/certificate.pem"))?;
        assert_eq!(accepted, new_certificate);
        assert_ne!(accepted, old_certificate);
        assert!(!device.exists(NEXT));
        assert_eq!(device.tpm.persistent_handles()?, [0x8100_0001]);
        let there = ["thing.csr.pem", "thing.json", "thing.pem"];
        assert_eq!(due.card()?, there);
        let request = device.request()?;
        let own = device.read(format!("{STORE}/device.csr.pem"))?;
        assert_eq!(fs::read_to_string(request)?, own);
        let status = device.status()?;
        assert_eq!(
            (&status["state"], &status["in_service"]),
            (&json!("Done"), &json!(true))
        );
        assert_eq!(status["renewal"]["last_request"]["result"], "renewed");
        assert_eq!(status["message"], "nothing left to do");
        pkcs11_tool::sign_and_verify(&device.identity(key)?)?;
        let idle = device.snapshot()?;
        for command in ["provision", "enroll", "renew"] {
            device.succeed(&[command])?;
            idle.assert_same(&device.snapshot()?);
        }
    }
    Ok(())
}

/// The client that nucleus lite is, before and after, by what the server sees. `tests/renewal` has those of the other
/// editions.
#[test]
fn a_server_sees_the_new_certificate() -> Result<()> {
    for key in KeyType::BOTH {
        let due = Due::new("nucleus-lite", key, "new")?;
        let device = &due.device;
        let shows = || -> Result<Vec<u8>> {
            let server = TlsServer::start(&due.authority, Version::Tls13)?;
            let identity = device.identity_of_greengrass(key)?;
            openssl::connect(
                &identity,
                &device.lite_certificate()?,
                &device.openssl_conf()?,
                &server,
            )?;
            let accepted = device.read(format!("{STORE}/certificate.pem"))?;
            assert!(server.was_shown(&accepted)?, "{}", server.log());
            Ok(accepted.into_bytes())
        };
        let before = shows()?;
        device.succeed(&["renew"])?;
        due.certify()?;
        device.succeed(&["renew"])?;
        assert_eq!(shows()?, before, "it is in service until Greengrass stops");
        device.succeed(&["enroll"])?;
        assert_ne!(shows()?, before);
    }
    Ok(())
}

/// A boot does not keep Greengrass waiting for a trial or a key: that is for later. What it finds tried, it takes up.
#[test]
fn a_boot_takes_up_what_was_tried() -> Result<()> {
    let due = Due::asked("nucleus", KeyType::EccP256)?;
    let old = due.key(STORE)?;
    due.certify()?;
    due.cloud.core.take_events()?;
    let boot = || -> Result<()> {
        due.device.succeed(&["provision"])?;
        due.device.succeed(&["enroll"]).map(drop)
    };
    boot()?;
    assert_eq!(due.key(STORE)?, old);
    assert!(due.cloud.core.events().let_in().is_empty());
    assert!(due.message()?.contains("`firstboot renew` does that"));
    due.device.succeed(&["renew"])?;
    assert!(!due.cloud.core.events().let_in().is_empty());
    due.device.succeed(&["provision"])?;
    assert_eq!(due.key(STORE)?, old, "that is for enrollment");
    boot()?;
    assert_ne!(due.key(STORE)?, old);
    Ok(())
}

/// The one before the last goes; the token's PIN stays through all of them.
#[test]
fn again_and_again() -> Result<()> {
    let due = Due::new("nucleus-lite", KeyType::EccP256, "new")?;
    let device = &due.device;
    let pin = device.read(format!("{STORE}/pin"))?;
    let mut before = due.key(STORE)?;
    for generation in 1..4 {
        device.succeed(&["renew"])?;
        let next = due.key(NEXT)?;
        let pem = due
            .authority
            .sign_valid(&device.request()?, Validity::DUE)?;
        device.drop_certificate(&pem)?;
        assert!(due.renew()?);
        assert_eq!(due.key(STORE)?, next);
        assert_eq!(due.key(PREVIOUS)?, before);
        // That certificate is due as well.
        assert!(!device.exists(NEXT));
        let noted = device.read(format!("{STORE}/generation"))?;
        assert_eq!(noted, generation.to_string());
        assert_eq!(device.read(format!("{STORE}/pin"))?, pin);
        before = next;
    }
    assert_eq!(device.tpm.persistent_handles()?, [0x8100_0001]);
    Ok(())
}

#[test]
fn a_certificate_that_is_not_for_it_changes_nothing() -> Result<()> {
    let due = Due::asked("nucleus-lite", KeyType::EccP256)?;
    let device = &due.device;
    let in_service = due.in_service()?;
    let next = due.key(NEXT)?;
    let request = device.path(format!("{STORE}/device.csr.pem"));
    let for_the_old_key = due.authority.sign_valid(&request, Validity::YOUNG)?;
    let expired = due
        .authority
        .sign_valid(&device.request()?, Validity::Expired)?;
    for (pem, words) in [
        (for_the_old_key, "another key"),
        (expired, "expired"),
        ("nothing".to_owned(), "refused"),
    ] {
        device.drop_certificate(&pem)?;
        assert_ends(&device.run(&["renew"])?, exit::DONE, words);
        assert!(!due.is_due()?);
        device.succeed(&["enroll"])?;
        in_service.assert_same(&due.in_service()?);
        assert_eq!(due.key(NEXT)?, next);
        let status = device.status()?;
        assert_eq!(status["renewal"]["last_request"]["result"], "refused");
        let path = status["refused"][0]["path"].as_str().context("no path")?;
        assert!(path.ends_with(".next.pem"), "{status}");
    }
    due.certify()?;
    device.succeed(&["renew"])?;
    assert!(due.is_due()?);
    Ok(())
}

/// A certificate of the running key is taken while the next one waits for its own.
#[test]
fn the_present_key_can_still_get_one() -> Result<()> {
    let mut due = Due::asked("nucleus-lite", KeyType::EccP256)?;
    due.device.clock = Some(ClockDouble::unset()?);
    let device = &due.device;
    let request = device.path(format!("{STORE}/device.csr.pem"));
    let pem = due.authority.sign_valid(&request, Validity::YOUNG)?;
    device.write(
        format!("/boot/firstboot/certificates/{}.pem", thing_name()),
        &pem,
    )?;
    device.succeed(&["renew"])?;
    assert_eq!(due.accepted()?, pem);
    assert_eq!(due.result()?, "renewed");
    assert!(device.exists(NEXT));
    // It is young: nothing is due, also for a clock that says nothing.
    let mut settings = due.settings.clone();
    settings["enrollment"]["trust_clock"] = json!(false);
    device.settings(&settings)?;
    device.succeed(&["renew"])?;
    assert_eq!(device.status()?["renewal"]["due"], false);
    due.certify()?;
    device.succeed(&["renew"])?;
    assert!(due.is_due()?);
    Ok(())
}

/// Another name, another kind of key, the present key after all: what was made for it goes, and its request with it.
#[test]
fn a_next_identity_that_is_not_wanted_any_more_is_removed() -> Result<()> {
    let due = Due::asked("nucleus-lite", KeyType::EccP256)?;
    let device = &due.device;
    let first = due.key(NEXT)?;
    let change = |key: &str, value: Value| {
        let mut settings = due.settings.clone();
        settings[key] = value;
        device.settings(&settings)
    };
    change("key", json!("rsa-2048"))?;
    device.succeed(&["renew"])?;
    let second = due.key(NEXT)?;
    assert_ne!(second, first);
    change("subject", json!({ "O": "Example" }))?;
    device.succeed(&["enroll"])?;
    assert!(!device.exists(NEXT));
    device.succeed(&["renew"])?;
    assert_ne!(due.key(NEXT)?, second);
    for renew in [json!({ "key": "keep" }), Value::Null] {
        change("renew", json!({ "key": "new" }))?;
        device.succeed(&["enroll"])?;
        device.succeed(&["renew"])?;
        assert!(device.exists(NEXT));
        change("renew", renew)?;
        device.succeed(&["renew"])?;
        assert!(!device.exists(NEXT));
        let left = due.card()?;
        assert!(!left.iter().any(|name| name.contains("next")), "{left:?}");
    }
    Ok(())
}

/// What a damaged disk or another program leaves there is not put into service.
#[test]
fn what_does_not_belong_to_the_identity_is_removed() -> Result<()> {
    let due = Due::asked("nucleus-lite", KeyType::EccP256)?;
    let device = &due.device;
    let in_service = due.in_service()?;
    let mut known = due.key(NEXT)?;
    for (file, content) in [
        ("pin", "another PIN"),
        ("srk.name", "000b00"),
        ("tpm2_pkcs11.sqlite3", ""),
        ("device.csr.pem", "torn"),
        ("request.json", "{}"),
        ("generation", "0"),
        ("tpm2_pkcs11.sqlite3.bak", "an upgrade was cut"),
    ] {
        device.write(format!("{NEXT}/{file}"), content)?;
        device.succeed(&["renew"])?;
        let made = due.key(NEXT)?;
        assert_ne!(made, known, "{file}");
        in_service.assert_same(&due.in_service()?);
        assert!(!device.exists(PREVIOUS), "{file}");
        known = made;
    }
    // What cannot be read, or is somebody else's, stays, and so does the device.
    device.write(format!("{NEXT}/generation"), "torn")?;
    let outcome = device.run(&["renew"])?;
    assert_ends(&outcome, exit::DONE, "generation is damaged");
    assert_eq!(due.key(NEXT)?, known);
    fs::remove_dir_all(device.path(NEXT))?;
    device.write(NEXT, "a file")?;
    device.write(format!("{PREVIOUS}/pin"), "a backup")?;
    let outcome = device.run(&["renew"])?;
    assert_ends(&outcome, exit::DONE, "is not firstboot's");
    device.succeed(&["enroll"])?;
    in_service.assert_same(&due.in_service()?);
    device.succeed(&["reset"])?;
    assert_eq!(device.read(NEXT)?, "a file");
    assert_eq!(device.read(format!("{PREVIOUS}/pin"))?, "a backup");
    Ok(())
}

/// What somebody has put into the place of the previous identity is not removed for it.
#[test]
fn somebody_elses_previous_identity_stays() -> Result<()> {
    let due = Due::asked("nucleus-lite", KeyType::EccP256)?;
    let device = &due.device;
    let (old, next) = (due.key(STORE)?, due.key(NEXT)?);
    due.certify()?;
    let theirs = format!("{PREVIOUS}/pin");
    device.write(&theirs, "a backup")?;
    assert!(due.renew()?);
    assert_eq!(due.key(STORE)?, next);
    for command in ["enroll", "renew"] {
        let outcome = device.run(&[command])?;
        assert_ends(&outcome, exit::DONE, "is not firstboot's: remove it");
        assert_eq!(device.read(&theirs)?, "a backup");
        assert_eq!(due.key(NEXT)?, old);
    }
    fs::remove_dir_all(device.path(PREVIOUS))?;
    device.succeed(&["renew"])?;
    assert_eq!(due.key(PREVIOUS)?, old);
    Ok(())
}

/// Another program's token would be where that program does not look for it.
#[test]
fn another_programs_token_stays_in_service() -> Result<()> {
    let due = Due::asked("nucleus-lite", KeyType::EccP256)?;
    let device = &due.device;
    due.certify()?;
    device.succeed(&["renew"])?;
    let old = due.key(STORE)?;
    pkcs11_tool::make_token(&device.identity(KeyType::EccP256)?, "vpn")?;
    let outcome = device.run(&["enroll"])?;
    assert_ends(&outcome, exit::DONE, "token \"vpn\" of another program");
    assert_eq!(due.key(STORE)?, old);
    assert!(!due.is_due()?, "Greengrass would stop each day");
    fs::remove_dir_all(device.path(NEXT))?;
    let outcome = device.run(&["renew"])?;
    assert_ends(&outcome, exit::DONE, "token \"vpn\" of another program");
    assert!(!device.exists(NEXT));
    Ok(())
}

/// With another TPM there is another identity, and what waits is not its. Back at its TPM, the first one has lost that.
#[test]
fn a_next_identity_does_not_outlive_its_tpm() -> Result<()> {
    let mut due = Due::asked("nucleus-lite", KeyType::EccP256)?;
    let old = due.key(STORE)?;
    let pem = due.certify()?;
    let other = SoftwareTpm::start()?;
    due.device.tcti = Some(other.tcti());
    due.device.succeed(&["provision"])?;
    assert_ne!(due.key(STORE)?, old);
    let folder = due.device.boot_file("requests");
    let request = folder.join(format!("{}.csr.pem", thing_name()));
    let own = due.authority.sign_valid(&request, Validity::YOUNG)?;
    let certificates = due.device.boot_file("certificates");
    fs::write(certificates.join(format!("{}.pem", thing_name())), &own)?;
    due.device.succeed(&["enroll"])?;
    let accepted = due.device.read(format!("{STORE}/certificate.pem"))?;
    assert_eq!(accepted, own);
    assert_ne!(accepted, pem);
    assert!(!due.device.exists(NEXT));
    due.device.tcti = None;
    due.device.succeed(&["provision"])?;
    due.device.succeed(&["enroll"])?;
    assert_eq!(due.key(STORE)?, old);
    assert_eq!(due.device.status()?["in_service"], true);
    Ok(())
}

/// The store was exchanged after its certificate had come: it does not sign for that, and the old key serves on.
#[test]
fn a_key_that_does_not_sign_for_its_certificate_stays_out() -> Result<()> {
    let due = Due::asked("nucleus-lite", KeyType::EccP256)?;
    let device = &due.device;
    due.certify()?;
    device.succeed(&["renew"])?;
    fs::copy(
        device.path(format!("{STORE}/tpm2_pkcs11.sqlite3")),
        device.path(format!("{NEXT}/tpm2_pkcs11.sqlite3")),
    )?;
    let in_service = due.in_service()?;
    let outcome = device.run(&["enroll"])?;
    assert_ends(&outcome, exit::DONE, "the renewal cannot go on");
    assert!(!due.is_due()?, "Greengrass would stop each day");
    in_service.assert_same(&due.in_service()?);
    assert_eq!(device.status()?["in_service"], true);
    Ok(())
}

/// As the operator's guide says.
#[test]
fn the_previous_identity_can_be_put_back() -> Result<()> {
    let due = Due::asked("nucleus", KeyType::EccP256)?;
    let device = &due.device;
    let old = due.key(STORE)?;
    let in_service = due.in_service()?.without(STORE);
    due.certify()?;
    assert!(due.renew()?);
    fs::remove_dir_all(device.path(STORE))?;
    let card = format!("/boot/firstboot/certificates/{}.pem", thing_name());
    device.remove(card)?;
    fs::rename(device.path(PREVIOUS), device.path(STORE))?;
    device.succeed(&["enroll"])?;
    assert_eq!(due.key(STORE)?, old);
    in_service.assert_same(&due.in_service()?.without(STORE));
    let status = device.status()?;
    assert_eq!(status["state"], "Done", "{status}");
    assert_eq!(status["in_service"], true);
    assert_eq!(status["refused"], Value::Null);
    // And another one is asked for.
    device.succeed(&["renew"])?;
    assert_ne!(due.key(NEXT)?, old);
    pkcs11_tool::sign_and_verify(&device.identity(KeyType::EccP256)?)
}

/// After a month, and only by a clock that can be believed. Where it could not be at the exchange, the month begins later.
#[test]
fn the_previous_identity_goes_after_a_while() -> Result<()> {
    let mut due = Due::asked("nucleus-lite", KeyType::EccP256)?;
    due.certify()?;
    due.device.succeed(&["renew"])?;
    let mut settings = due.settings.clone();
    settings["enrollment"]["trust_clock"] = json!(false);
    due.device.settings(&settings)?;
    due.device.clock = Some(ClockDouble::unset()?);
    due.device.succeed(&["enroll"])?;
    let file = format!("{STORE}/taken-up");
    due.device.succeed(&["renew"])?;
    assert!(due.device.exists(PREVIOUS) && !due.device.exists(&file));

    due.device.settings(&due.settings)?;
    due.device.succeed(&["renew"])?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let noted = Duration::from_secs(due.device.read(&file)?.parse()?);
    assert!(now - noted < Duration::from_secs(3600), "{noted:?}");
    for (days, is_kept) in [(29, true), (31, false)] {
        due.wait(days)?;
        due.device.succeed(&["renew"])?;
        assert_eq!(due.device.exists(PREVIOUS), is_kept, "{days}");
    }
    Ok(())
}

/// A number that is damaged says nothing, whatever it would be.
#[test]
fn damaged_numbers_are_survived() -> Result<()> {
    let due = Due::asked("nucleus-lite", KeyType::EccP256)?;
    let device = &due.device;
    due.certify()?;
    assert!(due.renew()?);
    let in_service = due.key(STORE)?;
    for number in ["18446744073709551615", "9999999999999", "-1", "", "1\n"] {
        for place in [STORE, PREVIOUS] {
            for file in ["taken-up", "generation"] {
                let path = format!("{place}/{file}");
                let kept = device.read(&path).ok();
                device.write(&path, number)?;
                for command in ["enroll", "renew"] {
                    device.succeed(&[command])?;
                }
                assert_eq!(due.key(STORE)?, in_service);
                match kept {
                    Some(kept) if device.exists(place) => device.write(&path, kept)?,
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

/// It came, and the device was off until it had ended.
#[test]
fn an_ended_certificate_does_not_go_into_service() -> Result<()> {
    let mut due = Due::asked("nucleus", KeyType::EccP256)?;
    let short = Validity::Days { over: 1, left: 3 };
    let pem = due.authority.sign_valid(&due.device.request()?, short)?;
    due.device.drop_certificate(&pem)?;
    due.device.succeed(&["renew"])?;
    assert!(due.is_due()?);
    due.wait(4)?;
    assert!(!due.renew()?);
    due.device.succeed(&["enroll"])?;
    assert_ne!(due.accepted()?, pem);
    assert!(due.message()?.contains("expired"));
    let next = due
        .authority
        .sign_valid(&due.device.request()?, Validity::YOUNG)?;
    due.device.drop_certificate(&next)?;
    assert!(due.renew()?);
    assert_eq!(due.accepted()?, next);
    Ok(())
}
