//! `firstboot renew`: a new certificate beside a running Greengrass.

use anyhow::Result;
use image_tests::clients::KeyType;
use image_tests::device::{Device, STORE};
use image_tests::doubles::pki::Authority;

use crate::{assert_ends, device, exit, thing_name, usual};

struct Enrolled {
    device: Device,
    authority: Authority,
}

impl Enrolled {
    fn new(edition: &str) -> Result<Self> {
        let device = device(edition, KeyType::EccP256)?;
        let authority = Authority::new()?;
        device.enroll_with(&authority)?;
        Ok(Self { device, authority })
    }

    /// Puts a new certificate onto the card.
    fn renew(&self) -> Result<String> {
        let newer = self.authority.sign(&self.device.request()?)?;
        self.device.drop_certificate(&newer)?;
        Ok(newer)
    }

    fn accepted(&self) -> Result<String> {
        self.device.read(format!("{STORE}/certificate.pem"))
    }

    fn is_due(&self) -> Result<bool> {
        let before = self.device.snapshot()?;
        let outcome = self.device.run(&["renew", "--due"])?;
        before.assert_same(&self.device.snapshot()?);
        assert!(
            [exit::DONE, exit::WAITING].contains(&outcome.code),
            "{outcome:?}"
        );
        Ok(outcome.code == exit::DONE)
    }
}

#[test]
fn nucleus_lite_has_it_at_once() -> Result<()> {
    let enrolled = Enrolled::new("nucleus-lite")?;
    let device = &enrolled.device;
    assert!(!enrolled.is_due()?);
    let newer = enrolled.renew()?;
    let rest = || -> Result<_> {
        let all = device.snapshot()?.without("/boot/firstboot/status.json");
        Ok(all.without("/var/lib/tpm2_pkcs11/certificate.pem"))
    };
    let before = rest()?;
    device.succeed(&["renew"])?;
    before.assert_same(&rest()?);
    assert_eq!(enrolled.accepted()?, newer);
    assert!(!enrolled.is_due()?);
    assert_eq!(device.status()?["state"], "Done");
    Ok(())
}

/// What a hard power-off has left in the TPM's count does not keep a renewal waiting for the next boot.
#[test]
fn failed_tries_are_reset() -> Result<()> {
    let enrolled = Enrolled::new("nucleus-lite")?;
    let device = &enrolled.device;
    device.tpm.use_up_tries()?;
    let newer = enrolled.renew()?;
    device.succeed(&["renew"])?;
    assert_eq!(enrolled.accepted()?, newer);
    assert_eq!(device.tpm.lockout_counter()?, 0);
    Ok(())
}

/// Nobody stops Greengrass for a person who runs `firstboot enroll`, as systemd does for the service.
#[test]
fn a_person_is_told_to_stop_greengrass() -> Result<()> {
    let words = "Greengrass must not be running now";
    for edition in ["nucleus-lite", "nucleus"] {
        let device = device(edition, KeyType::EccP256)?;
        let authority = Authority::new()?;
        device.succeed(&["provision"])?;
        let says = |service: bool| -> Result<bool> {
            let outcome = device.run_with(&["enroll"], |command| match service {
                true => command.env("NOTIFY_SOCKET", "/nowhere"),
                false => command,
            })?;
            assert_ends(&outcome, exit::DONE, "");
            Ok(outcome.stderr.contains(words))
        };
        let renew = || device.drop_certificate(&authority.sign(&device.request()?)?);
        renew()?;
        assert!(!says(false)?, "it has never run");
        assert!(!says(false)?, "there is nothing to do");
        renew()?;
        // nucleus lite reads the certificate from a file.
        assert_eq!(says(false)?, edition == "nucleus");
        renew()?;
        assert!(!says(true)?);
    }
    Ok(())
}

#[test]
fn the_token_has_it_when_enrollment_starts_again() -> Result<()> {
    for edition in ["nucleus", "v1"] {
        let enrolled = Enrolled::new(edition)?;
        let device = &enrolled.device;
        let newer = enrolled.renew()?;
        let rest = || -> Result<_> {
            let all = device.snapshot()?;
            Ok(all.without("/var/lib/tpm2_pkcs11/certificate.pem"))
        };
        let before = rest()?;
        device.succeed(&["renew"])?;
        before.assert_same(&rest()?);
        assert_eq!(enrolled.accepted()?, newer, "{edition}");
        assert!(enrolled.is_due()?, "{edition}");
        device.succeed(&["provision"])?;
        device.succeed(&["enroll"])?;
        assert!(!enrolled.is_due()?, "{edition}");
        assert_eq!(device.status()?["state"], "Done");
    }
    Ok(())
}

/// It is named on the card, and changes nothing else.
#[test]
fn a_bad_one_is_refused() -> Result<()> {
    for edition in ["nucleus-lite", "nucleus"] {
        let enrolled = Enrolled::new(edition)?;
        let device = &enrolled.device;
        let other = enrolled
            .authority
            .certificate_of_another_key(&thing_name())?;
        let half = enrolled.renew()?;
        for bad in [&other, &half[..half.len() / 2]] {
            device.drop_certificate(bad)?;
            let before = device.snapshot()?.without("/boot/firstboot/status.json");
            let outcome = device.run(&["renew"])?;
            assert_ends(&outcome, exit::DONE, "a new certificate is refused");
            before.assert_same(&device.snapshot()?.without("/boot/firstboot/status.json"));
            let status = device.status()?;
            assert_eq!(status["in_service"], true);
            assert!(status["refused"][0]["reason"].is_string(), "{status}");
            assert!(!enrolled.is_due()?);
        }
    }
    Ok(())
}

/// Only the certificate is accepted; whatever else is due is left to enrollment.
#[test]
fn nothing_else_is_done() -> Result<()> {
    let enrolled = Enrolled::new("nucleus-lite")?;
    let device = &enrolled.device;
    device.remove("/etc/greengrass/root-ca.pem")?;
    let newer = enrolled.renew()?;
    let before = device.snapshot()?;
    device.succeed(&["renew"])?;
    before.assert_same(&device.snapshot()?);
    assert!(!enrolled.is_due()?);
    device.succeed(&["enroll"])?;
    assert_eq!(enrolled.accepted()?, newer);
    Ok(())
}

#[test]
fn the_first_certificate_is_left_to_enrollment() -> Result<()> {
    let device = usual()?;
    device.succeed(&["provision"])?;
    let authority = Authority::new()?;
    let before = device.snapshot()?;
    assert_ends(&device.run(&["renew"])?, exit::WAITING, "waiting");
    device.drop_certificate(&authority.sign(&device.request()?)?)?;
    device.succeed(&["renew"])?;
    assert!(!device.exists(format!("{STORE}/certificate.pem")));
    assert_eq!(device.run(&["renew", "--due"])?.code, exit::WAITING);
    drop(before);
    Ok(())
}
