//! The claim pair on the card: the accepted forms, the errors, and its removal.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use anyhow::{Context, Result};
use image_tests::clients::openssl;
use image_tests::doubles::iot_core::{ClaimKey, Options};
use image_tests::faults::network::CLAIM;
use image_tests::process::succeed;
use nix::sched::{CloneFlags, unshare};

use crate::{Enrolling, assert_ends, exit};

const CERTIFICATE: &str = CLAIM[0];
const KEY: &str = CLAIM[1];

impl Enrolling {
    /// Writes the claim key in the form of this openssl command.
    fn rewrite_key(&self, arguments: &[&str]) -> Result<String> {
        let path = self.device.path(KEY);
        succeed(openssl::plain(arguments).arg("-in").arg(path))
    }

    fn refuses_the_key(&self, pem: &str, words: &str) -> Result<()> {
        let good = self.device.read(KEY)?;
        self.device.write(KEY, pem)?;
        self.ends(exit::SETTINGS, words)?;
        assert_eq!(self.device.read(KEY)?, pem, "the key was changed");
        assert_eq!(self.cloud.core.events().0.len(), 0, "the key was used");
        self.device.write(KEY, good)
    }
}

#[test]
fn every_form_of_a_private_key_is_accepted() -> Result<()> {
    let forms: [(ClaimKey, &str, &[&str]); 4] = [
        (ClaimKey::Ecc, "BEGIN EC PRIVATE KEY", &["ec"]),
        (ClaimKey::Ecc, "BEGIN PRIVATE KEY", &["pkey"]),
        (
            ClaimKey::Rsa,
            "BEGIN RSA PRIVATE KEY",
            &["rsa", "-traditional"],
        ),
        (ClaimKey::Rsa, "BEGIN PRIVATE KEY", &["pkey"]),
    ];
    for (claim, marker, form) in forms {
        let enrolling = Enrolling::with(Options {
            claim,
            ..Options::default()
        })?;
        let pem = enrolling.rewrite_key(form)?;
        assert!(pem.contains(marker), "{form:?} is {}", &pem[..40]);
        enrolling.device.write(KEY, pem)?;
        enrolling.ends_done()?;
    }
    Ok(())
}

/// With the block that `openssl ecparam -genkey` writes before the key; and with Windows line endings.
#[test]
fn a_key_with_its_parameters_and_other_line_endings_is_accepted() -> Result<()> {
    let enrolling = Enrolling::new()?;
    let parameters = succeed(&mut openssl::plain(&["ecparam", "-name", "prime256v1"]))?;
    assert!(parameters.contains("BEGIN EC PARAMETERS"));
    let pem = (parameters + &enrolling.rewrite_key(&["ec"])?).replace('\n', "\r\n");
    enrolling.device.write(KEY, pem)?;
    let certificate = enrolling.device.read(CERTIFICATE)?.replace('\n', "\r\n");
    enrolling.device.write(CERTIFICATE, certificate)?;
    enrolling.ends_done()
}

#[test]
fn keys_that_cannot_be_used_are_refused() -> Result<()> {
    let enrolling = Enrolling::with(Options {
        claim: ClaimKey::Rsa,
        ..Options::default()
    })?;
    for form in [
        &["pkey", "-aes256", "-passout", "pass:secret"][..],
        &["rsa", "-traditional", "-aes256", "-passout", "pass:secret"],
    ] {
        let encrypted = enrolling.rewrite_key(form)?;
        assert!(encrypted.contains("ENCRYPTED"));
        enrolling.refuses_the_key(&encrypted, "encrypted")?;
    }
    let another = succeed(&mut openssl::plain(&["genpkey", "-algorithm", "RSA"]))?;
    enrolling.refuses_the_key(&another, "is not the key of")?;
    let public = enrolling.rewrite_key(&["pkey", "-pubout"])?;
    let good = enrolling.device.read(KEY)?;
    for wrong in [&public, "hello", "", &good[..good.len() / 2]] {
        enrolling.refuses_the_key(wrong, "claim.key.pem")?;
    }
    enrolling.refuses_the_key(&(good + &"\n".repeat(100_000)), "claim.key.pem")?;
    enrolling.ends_done()
}

#[test]
fn certificates_that_cannot_be_used_are_refused() -> Result<()> {
    let enrolling = Enrolling::new()?;
    let good = enrolling.device.read(CERTIFICATE)?;
    let foreign = enrolling.cloud.root.certificate_of_another_key("claim")?;
    for (wrong, words) in [
        (foreign.as_str(), "is not the key of"),
        ("hello", "claim.cert.pem"),
        ("", "claim.cert.pem"),
        (&good[..good.len() / 2], "claim.cert.pem"),
    ] {
        enrolling.device.write(CERTIFICATE, wrong)?;
        enrolling.ends(exit::SETTINGS, words)?;
    }
    assert_eq!(enrolling.cloud.core.events().0.len(), 0);
    enrolling.device.write(CERTIFICATE, good)?;
    enrolling.ends_done()
}

#[test]
fn a_missing_pair_is_waited_for() -> Result<()> {
    for path in CLAIM {
        let enrolling = Enrolling::new()?;
        let content = enrolling.device.read(path)?;
        enrolling.device.remove(path)?;
        enrolling.ends(exit::WAITING, "claim certificate")?;
        assert_eq!(enrolling.device.status()?["state"], "AwaitingCertificate");
        enrolling.device.write(path, content)?;
        enrolling.ends_done()?;
    }
    Ok(())
}

/// By default, a mounted FAT partition is readable by everybody.
#[test]
fn a_key_that_everybody_can_read_causes_a_warning() -> Result<()> {
    let enrolling = Enrolling::new()?;
    for path in ["/boot", "/boot/firstboot"] {
        fs::set_permissions(enrolling.device.path(path), Permissions::from_mode(0o755))?;
    }
    fs::set_permissions(enrolling.device.path(KEY), Permissions::from_mode(0o755))?;
    enrolling.ends(exit::DONE, "every user of this device can read")?;

    for (path, mode) in [(KEY, 0o600), ("/boot/firstboot", 0o700)] {
        let enrolling = Enrolling::new()?;
        fs::set_permissions(enrolling.device.path(path), Permissions::from_mode(mode))?;
        let outcome = enrolling.enroll()?;
        assert_ends(&outcome, exit::DONE, "");
        assert!(
            !outcome.stderr.contains("every user"),
            "{path}: {}",
            outcome.stderr
        );
    }
    Ok(())
}

/// On a read-only card the device enrolls and is configured, and says that the key is still there.
#[test]
fn a_read_only_card_keeps_the_claim_and_is_reported() -> Result<()> {
    assert!(
        nix::unistd::getuid().is_root(),
        "this test mounts: run it as root"
    );
    let enrolling = Enrolling::new()?;
    let boot = enrolling.device.path("/boot/firstboot");
    std::thread::scope(|scope| {
        let working = scope.spawn(|| -> Result<()> {
            // For this thread and what it starts (unshare(2)).
            unshare(CloneFlags::CLONE_NEWNS).context("no mount namespace")?;
            let mount = |arguments: &[&str]| {
                succeed(Command::new("mount").args(arguments).arg(&boot)).map(drop)
            };
            succeed(Command::new("mount").args(["--make-rprivate", "/"]))?;
            mount(&["--bind", &boot.to_string_lossy()])?;
            mount(&["-o", "remount,bind,ro"])?;
            for _ in 0..2 {
                let outcome = enrolling.enroll()?;
                assert_ends(&outcome, exit::DONE, "claim is still on the boot partition");
                assert_eq!(enrolling.configured_thing()?, enrolling.thing);
                assert!(enrolling.device.exists(KEY));
            }
            enrolling.assert_certificates(1, 1);
            Ok(())
        });
        working.join().unwrap_or_else(|_| anyhow::bail!("a panic"))
    })?;
    // Once the card is writable, the next start removes the key.
    enrolling.ends_done()
}

/// A claim pair that is put onto the card of an enrolled device is removed and not used.
#[test]
fn a_later_claim_is_not_used() -> Result<()> {
    let enrolling = Enrolling::new()?;
    enrolling.ends_done()?;
    enrolling.cloud.core.take_events()?;
    for (path, pem) in CLAIM.iter().zip(enrolling.cloud.core.claim()) {
        enrolling.device.write(path, pem)?;
    }
    enrolling.ends_done()?;
    assert_eq!(enrolling.cloud.core.events().0.len(), 0);
    Ok(())
}
