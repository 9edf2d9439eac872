//! Replies that a device refuses: only the status is written, no try counts, and a reply that can be seen to be wrong
//! does not reach the TPM.

use anyhow::Result;
use firstboot_formats::attestation::Reply;
use firstboot_formats::encoding;
use image_tests::clients::KeyType;
use image_tests::device::{Device, STORE, assert_ends};
use image_tests::doubles::software_tpm::Ek;
use image_tests::doubles::tpm_proxy::{Options, Proxy};
use serde_json::{Value, json};

use super::{Desk, drop_reply, record, reply_path, text, thing_name};

/// EX_TEMPFAIL: the device still waits for the certificate.
const WAITING: i32 = 75;
/// The number of TPM commands of a survey.
const LOOK: [&str; 3] = ["GetCapability", "ReadPublic", "ReadPublic"];

/// The device keeps waiting, reports these words, and has changed nothing but its status; the TPM has got so many
/// ActivateCredential commands.
#[track_caller]
fn assert_refused(device: &mut Device, words: &str, activations: usize) -> Result<()> {
    let proxy = Proxy::start(device.tpm.upstream(), Options::default())?;
    device.tcti = Some(proxy.tcti());
    let snapshot = |device: &Device| -> Result<_> {
        let all = device.snapshot()?.without("/run");
        Ok(all.without("/boot/firstboot/status.json"))
    };
    let before = snapshot(device)?;
    let outcome = device.run(&["enroll"])?;
    assert_ends(&outcome, WAITING, words);
    assert_ends(&outcome, WAITING, "the certificate is refused");
    let said = device.status()?["message"].to_string();
    assert!(said.contains(&reply_path()[1..]), "{said}");
    before.assert_same(&snapshot(device)?);
    let log = proxy.take_commands();
    assert_eq!(log.count("ActivateCredential"), activations);
    if activations == 0 {
        assert_eq!(log.names(), LOOK);
    }
    device.tcti = None;
    assert!(device.tpm.transient_handles()?.is_empty());
    assert_eq!(device.tpm.lockout_counter()?, 0);
    assert!(!device.exists(format!("{STORE}/certificate.pem")));
    Ok(())
}

fn value(reply: &Reply) -> Result<Value> {
    Ok(serde_json::from_str(&text(reply)?)?)
}

/// Changes one bit of a base64 field.
fn flip(reply: &mut Value, field: &str) {
    let text = reply[field].as_str().expect("a text");
    let mut bytes = encoding::from_base64(text).expect("base64");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    reply[field] = json!(encoding::to_base64(&bytes));
}

#[test]
fn replies_for_others_or_from_others_never_reach_the_tpm() -> Result<()> {
    let (desk, rogue) = (Desk::new()?, Desk::new()?);
    let mut device = desk.provisioned()?;
    device.run(&["enroll"])?;
    let chain = desk.operator.sign(&device.request()?)?;
    let with = |change: &dyn Fn(&mut firstboot_formats::attestation::Contents<'_>)| {
        desk.reply_with(&device, chain.as_bytes(), |contents| change(contents))
    };
    let replies = [
        (rogue.reply(&device)?, "enrollment.issuers"),
        (with(&|c| c.ek_sha256[0] ^= 1)?, "another TPM"),
        (with(&|c| c.key_name[33] ^= 1)?, "another key"),
        (
            with(&|c| c.thing_name = "gateway-2")?,
            "it is for \"gateway-2\"",
        ),
    ];
    for (reply, words) in replies {
        drop_reply(&device, text(&reply)?)?;
        assert_refused(&mut device, words, 0)?;
    }
    // The right one is still accepted.
    drop_reply(&device, text(&desk.reply(&device)?)?)?;
    device.succeed(&["enroll"])?;
    Ok(())
}

#[test]
fn damaged_replies_never_reach_the_tpm() -> Result<()> {
    let desk = Desk::new()?;
    let mut device = desk.provisioned()?;
    device.run(&["enroll"])?;
    let reply = value(&desk.reply(&device)?)?;
    for field in [
        "credential_blob",
        "secret",
        "nonce",
        "ciphertext",
        "signature",
    ] {
        let mut damaged = reply.clone();
        flip(&mut damaged, field);
        // The sizes at the start of the first two are right, as the change is in the middle.
        drop_reply(&device, damaged.to_string())?;
        assert_refused(&mut device, "not signed by the key of its issuer", 0)?;
    }
    let mut later = reply.clone();
    later["version"] = json!(2);
    let whole = reply.to_string();
    for (damaged, words) in [
        (later.to_string(), "version 2"),
        (whole[..whole.len() / 2].to_owned(), "not a wrapped reply"),
        (String::new(), "not a wrapped reply"),
        (" ".repeat(65 * 1024), "larger than 65536 bytes"),
    ] {
        drop_reply(&device, damaged)?;
        assert_refused(&mut device, words, 0)?;
    }
    Ok(())
}

/// Replies that the operator signed, but that the TPM or the decrypted content shows to be useless.
#[test]
fn a_reply_that_cannot_be_opened_changes_nothing() -> Result<()> {
    let desk = Desk::new()?;
    let mut device = desk.provisioned()?;
    device.run(&["enroll"])?;
    // It was made for another TPM's EK, but says otherwise.
    let (other, _) = desk.device(KeyType::EccP256, Ek::P256)?;
    let other = other.tpm.endorsement_key(Ek::P256)?;
    let chain = desk.operator.sign(&device.request()?)?;
    let lying = desk.reply_for(&device, other, chain.as_bytes(), |_| {})?;
    drop_reply(&device, text(&lying)?)?;
    assert_refused(&mut device, "cannot open the certificate with the TPM", 1)?;

    let name = thing_name();
    for (chain, words) in [
        (
            desk.operator.certificate_of_another_key(&name)?,
            "another key",
        ),
        (desk.operator.certificate_pem()?, "only CA certificates"),
        ("nothing".to_owned(), "contains no certificate"),
        (
            desk.operator.sign_valid(
                &device.request()?,
                image_tests::doubles::pki::Validity::Expired,
            )?,
            "it expired",
        ),
    ] {
        let reply = desk.reply_with(&device, chain.as_bytes(), |_| {})?;
        drop_reply(&device, text(&reply)?)?;
        assert_refused(&mut device, words, 1)?;
    }
    Ok(())
}

/// The reply to a request from before the reset: that key is gone.
#[test]
fn an_older_reply_is_for_another_key() -> Result<()> {
    let desk = Desk::new()?;
    let mut device = desk.provisioned()?;
    let reply = text(&desk.reply(&device)?)?;
    device.succeed(&["reset"])?;
    device.succeed(&["provision"])?;
    device.run(&["enroll"])?;
    drop_reply(&device, reply)?;
    assert_refused(&mut device, "another key", 0)
}

#[test]
fn a_copied_reply_is_for_another_device() -> Result<()> {
    let desk = Desk::new()?;
    let (from, mut to) = (desk.provisioned()?, desk.provisioned()?);
    to.run(&["enroll"])?;
    drop_reply(&to, text(&desk.reply(&from)?)?)?;
    assert_refused(&mut to, "another key", 0)
}

/// Without named issuers, no reply is accepted.
#[test]
fn without_issuers_no_reply_is_accepted() -> Result<()> {
    let desk = Desk::new()?;
    let mut device = desk.provisioned()?;
    let reply = text(&desk.reply(&device)?)?;
    let mut settings = desk.settings(KeyType::EccP256)?;
    settings["enrollment"]["issuers"] = json!([]);
    device.settings(&settings)?;
    device.run(&["enroll"])?;
    drop_reply(&device, reply)?;
    assert_refused(&mut device, "enrollment.issuers", 0)
}

/// A device whose request has no evidence of its TPM.
#[test]
fn an_unattested_device_accepts_no_reply() -> Result<()> {
    let desk = Desk::new()?;
    let mut device = desk.provisioned()?;
    let reply = text(&desk.reply(&device)?)?;
    device.tpm.remove_ek_certificate(Ek::P256)?;
    device.succeed(&["reset"])?;
    device.succeed(&["provision"])?;
    assert!(record(&device)?["unattested"].is_string());
    device.run(&["enroll"])?;
    drop_reply(&device, reply)?;
    assert_refused(&mut device, "cannot open replies", 0)
}

/// Greengrass keeps what it has.
#[test]
fn a_refused_reply_does_not_stop_a_configured_device() -> Result<()> {
    let (desk, rogue) = (Desk::new()?, Desk::new()?);
    let device = desk.provisioned()?;
    drop_reply(&device, text(&desk.reply(&device)?)?)?;
    device.succeed(&["enroll"])?;
    let chain = desk.operator.certificate_of_another_key(&thing_name())?;
    let useless = desk.reply_with(&device, chain.as_bytes(), |_| {})?;
    for reply in [rogue.reply(&device)?, useless] {
        drop_reply(&device, text(&reply)?)?;
        let before = device.snapshot()?.without("/run").without("/boot");
        let outcome = device.run(&["enroll"])?;
        assert_ends(&outcome, 0, "a new certificate is refused");
        before.assert_same(&device.snapshot()?.without("/run").without("/boot"));
    }
    Ok(())
}

/// The certificate in the TPM is for another EK than the TPM's: its endorsement seed was changed, or somebody wrote the
/// index.
#[test]
fn an_ek_that_differs_from_its_certificate_is_noticed_before_the_credential_is_sent() -> Result<()>
{
    let desk = Desk::new()?;
    for ek in Ek::BOTH {
        let (other, certificate) = desk.device(KeyType::EccP256, ek)?;
        drop(other);
        let mut device = Device::unprovisioned()?;
        device.settings(&desk.settings(KeyType::EccP256)?)?;
        device.tpm.set_ek_certificate(ek, &certificate)?;
        device.succeed(&["provision"])?;
        device.run(&["enroll"])?;
        drop_reply(&device, text(&desk.reply(&device)?)?)?;
        let proxy = Proxy::start(device.tpm.upstream(), Options::default())?;
        device.tcti = Some(proxy.tcti());
        let outcome = device.run(&["enroll"])?;
        assert_ends(&outcome, WAITING, "not for the TPM's endorsement key");
        assert_eq!(proxy.take_commands().count("ActivateCredential"), 0);
        device.tcti = None;
        assert!(device.tpm.transient_handles()?.is_empty());
        assert_eq!(device.tpm.lockout_counter()?, 0);
    }
    Ok(())
}

/// Without its authorization, an endorsement hierarchy that somebody owns (such as Windows) does not create the EK.
#[test]
fn an_owned_endorsement_hierarchy_is_reported() -> Result<()> {
    let desk = Desk::new()?;
    let device = desk.provisioned()?;
    device
        .tpm
        .run(&["tpm2_changeauth", "-c", "endorsement", "owned"])?;
    drop_reply(&device, text(&desk.reply(&device)?)?)?;
    let outcome = device.run(&["enroll"])?;
    assert_ends(&outcome, WAITING, "somebody set an authorization value");
    assert!(device.tpm.transient_handles()?.is_empty());
    assert_eq!(device.tpm.lockout_counter()?, 0);
    Ok(())
}
