//! Certificates that an operator may put onto the card, good and bad.

use std::fs;

use anyhow::Result;
use image_tests::clients::{KeyType, pkcs11_tool};
use image_tests::device::Device;
use image_tests::doubles::pki::{Authority, Validity};
use image_tests::doubles::tpm_proxy::{Options, Proxy};
use serde_json::json;

use crate::{assert_ends, device, exit, thing_name};

struct Awaiting {
    device: Device,
    authority: Authority,
}

impl Awaiting {
    fn new() -> Result<Self> {
        Self::with("nucleus-lite")
    }

    fn with(edition: &str) -> Result<Self> {
        let device = device(edition, KeyType::EccP256)?;
        device.succeed(&["provision"])?;
        let authority = Authority::new()?;
        Ok(Self { device, authority })
    }

    fn signed(&self) -> Result<String> {
        self.authority.sign(&self.device.request()?)
    }

    /// The device refuses this, with the reason in the log and on the card, and changes nothing else.
    #[track_caller]
    fn refuses(&self, pem: &str, why: &str) -> Result<()> {
        self.device.drop_certificate(pem)?;
        let snapshot = || -> Result<_> {
            Ok(self
                .device
                .snapshot()?
                .without("/boot/firstboot/status.json"))
        };
        let before = snapshot()?;
        let outcome = self.device.run(&["enroll"])?;
        assert_ends(&outcome, exit::WAITING, why);
        before.assert_same(&snapshot()?);
        let status = self.device.status()?;
        assert_eq!(status["state"], "AwaitingCertificate");
        let message = status["message"].as_str().unwrap_or_default();
        assert!(
            message.contains("refused") && message.contains(why),
            "{message}"
        );
        Ok(())
    }

    #[track_caller]
    fn accepts(&self, pem: &str) -> Result<()> {
        self.device.drop_certificate(pem)?;
        self.device.succeed(&["enroll"])?;
        assert_eq!(self.device.status()?["state"], "Done");
        Ok(())
    }

    /// The accepted certificate and its chain.
    fn kept(&self) -> Result<String> {
        self.device.read("/var/lib/tpm2_pkcs11/certificate.pem")
    }

    fn objects(&self) -> Result<String> {
        pkcs11_tool::list(&self.device.identity(KeyType::EccP256)?)
    }
}

#[test]
fn a_missing_one_is_awaited_and_its_path_is_named() -> Result<()> {
    let awaiting = Awaiting::new()?;
    let outcome = awaiting.device.run(&["enroll"])?;
    assert_ends(
        &outcome,
        exit::WAITING,
        &format!("certificates/{}.pem", thing_name()),
    );
    assert_eq!(awaiting.device.status()?["state"], "AwaitingCertificate");
    Ok(())
}

#[test]
fn one_for_another_key_is_refused() -> Result<()> {
    let awaiting = Awaiting::new()?;
    let pem = awaiting
        .authority
        .certificate_of_another_key(&thing_name())?;
    awaiting.refuses(&pem, "it is for another key")?;
    let good = awaiting.signed()?;
    awaiting.accepts(&good)
}

#[test]
fn an_expired_one_is_refused() -> Result<()> {
    let awaiting = Awaiting::new()?;
    let request = awaiting.device.request()?;
    let pem = awaiting.authority.sign_valid(&request, Validity::Expired)?;
    awaiting.refuses(&pem, "it expired")
}

#[test]
fn garbage_is_refused() -> Result<()> {
    let awaiting = Awaiting::new()?;
    awaiting.refuses("hello", "it contains no certificate")?;
    let cut = awaiting.signed()?;
    awaiting.refuses(&cut[..cut.len() / 2], "has no end")?;
    let damaged = cut.replacen("MII", "MIJ", 1);
    awaiting.refuses(&damaged, "damaged")?;
    awaiting.refuses(&cut.replace("CERTIFICATE", "PRIVATE KEY"), "PRIVATE KEY")
}

/// The new one below the old one, for an operator who collects them in one file.
#[test]
fn the_newer_of_two_for_this_device_is_accepted() -> Result<()> {
    let awaiting = Awaiting::new()?;
    let request = awaiting.device.request()?;
    let old = awaiting.authority.sign_valid(&request, Validity::Expired)?;
    let new = awaiting.authority.sign_valid(&request, Validity::Recent)?;
    awaiting.accepts(&format!("{new}{old}"))?;
    assert_eq!(awaiting.kept()?, new);
    Ok(())
}

#[test]
fn the_cas_own_alone_is_refused() -> Result<()> {
    let awaiting = Awaiting::new()?;
    let pem = awaiting.authority.certificate_pem()?;
    awaiting.refuses(&pem, "only CA certificates")
}

#[test]
fn an_unrelated_ca_certificate_is_left_out_and_named() -> Result<()> {
    let awaiting = Awaiting::new()?;
    let request = awaiting.device.request()?;
    let chain = awaiting.authority.sign_by_intermediate(&request)?;
    // One chain's leaf with another chain's intermediate.
    let intermediate = &chain[chain.rfind("-----BEGIN").unwrap_or(0)..];
    let leaf = awaiting.signed()?;
    awaiting
        .device
        .drop_certificate(&format!("{intermediate}{leaf}"))?;
    let outcome = awaiting.device.run(&["enroll"])?;
    assert_ends(
        &outcome,
        exit::DONE,
        "not part of the certificate's chain: CN=Operator Issuing CA",
    );
    assert_eq!(awaiting.kept()?, leaf);
    Ok(())
}

#[test]
fn one_for_another_thing_is_refused() -> Result<()> {
    let awaiting = Awaiting::new()?;
    let request = awaiting.device.request()?;
    let certificate = awaiting.authority.sign(&request)?;
    let mut settings: serde_json::Value =
        serde_json::from_str(&awaiting.device.read("/boot/firstboot/firstboot.json")?)?;
    settings["thing_name"] = json!("another-name");
    awaiting.device.settings(&settings)?;
    // The new name is requested with the same key …
    awaiting.device.succeed(&["provision"])?;
    let path = awaiting.device.boot_file("requests/another-name.csr.pem");
    let again = awaiting.authority.sign(&path)?;
    // … so the old name's certificate has the right key, but the wrong name.
    let drop = |pem: &str| {
        fs::write(
            awaiting.device.boot_file("certificates/another-name.pem"),
            pem,
        )
    };
    drop(&certificate)?;
    let outcome = awaiting.device.run(&["enroll"])?;
    assert_ends(
        &outcome,
        exit::WAITING,
        "this thing's name is \"another-name\"",
    );
    drop(&again)?;
    awaiting.device.succeed(&["enroll"])?;
    assert!(
        awaiting
            .device
            .read("/etc/greengrass/config.yaml")?
            .contains("another-name")
    );
    Ok(())
}

#[test]
fn crlf_and_text_around_it_are_accepted() -> Result<()> {
    let awaiting = Awaiting::new()?;
    let pem = format!(
        "Subject: someone\r\n{}",
        awaiting.signed()?.replace('\n', "\r\n")
    );
    awaiting.accepts(&pem)
}

#[test]
fn a_newer_one_replaces_the_old_one() -> Result<()> {
    let awaiting = Awaiting::with("nucleus")?;
    let first = awaiting.signed()?;
    awaiting.accepts(&first)?;
    let second = awaiting.signed()?;
    assert_ne!(
        first, second,
        "the authority gives each a serial number of its own"
    );
    awaiting.accepts(&second)?;
    let objects = awaiting.objects()?;
    assert_eq!(
        objects.matches("Certificate Object").count(),
        1,
        "{objects}"
    );
    assert_eq!(
        awaiting
            .device
            .read("/var/lib/tpm2_pkcs11/certificate.pem")?
            .trim(),
        second.trim()
    );
    Ok(())
}

/// The token is unchanged, its library is not even loaded, and the TPM gets no more commands than at a boot with
/// nothing to do.
#[test]
fn for_nucleus_lite_a_newer_one_changes_only_the_file() -> Result<()> {
    let mut awaiting = Awaiting::new()?;
    let proxy = Proxy::start(awaiting.device.tpm.upstream(), Options::default())?;
    awaiting.device.tcti = Some(proxy.tcti());
    let rest = |device: &Device| -> Result<_> {
        let all = device.snapshot()?.without("/boot");
        Ok(all.without("/var/lib/tpm2_pkcs11/certificate.pem"))
    };
    let accepts = |awaiting: &Awaiting| -> Result<()> {
        let newer = awaiting.signed()?;
        proxy.take_commands();
        awaiting.accepts(&newer)?;
        let commands = proxy.take_commands().names();
        assert_eq!(commands.len(), 3, "{commands:?}");
        assert_eq!(awaiting.kept()?, newer);
        Ok(())
    };
    accepts(&awaiting)?;
    let before = rest(&awaiting.device)?;
    accepts(&awaiting)?;
    before.assert_same(&rest(&awaiting.device)?);
    awaiting.device.tcti = None;
    assert!(!awaiting.objects()?.contains("Certificate Object"));
    Ok(())
}

/// A bad successor is reported, and the good certificate stays in use.
#[test]
fn a_bad_successor_leaves_the_good_one() -> Result<()> {
    let awaiting = Awaiting::new()?;
    let good = awaiting.signed()?;
    awaiting.accepts(&good)?;
    let before = awaiting.device.snapshot()?.without("/boot");
    let other = awaiting
        .authority
        .certificate_of_another_key(&thing_name())?;
    awaiting.device.drop_certificate(&other)?;
    let outcome = awaiting.device.run(&["enroll"])?;
    assert_ends(&outcome, exit::DONE, "a new certificate is refused");
    before.assert_same(&awaiting.device.snapshot()?.without("/boot"));
    let message = awaiting.device.status()?["message"].to_string();
    assert!(message.contains("another key"), "{message}");
    Ok(())
}

#[test]
fn a_chain_is_kept_in_order_and_put_into_the_token() -> Result<()> {
    let awaiting = Awaiting::with("nucleus")?;
    let request = awaiting.device.request()?;
    let chain = awaiting.authority.sign_by_intermediate(&request)?;
    let split = chain.rfind("-----BEGIN").unwrap_or(0);
    let (leaf, intermediate) = chain.split_at(split);
    // In the wrong order, as some CAs deliver it.
    awaiting.accepts(&format!("{intermediate}{leaf}"))?;
    let kept = awaiting
        .device
        .read("/var/lib/tpm2_pkcs11/certificate.pem")?;
    assert_eq!(kept.replace('\n', ""), chain.replace('\n', ""));
    let objects = awaiting.objects()?;
    assert_eq!(
        objects.matches("Certificate Object").count(),
        2,
        "{objects}"
    );
    assert_eq!(objects.matches("greenkey-issuer").count(), 1, "{objects}");
    Ok(())
}
