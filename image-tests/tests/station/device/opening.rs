//! A reply is opened, and the certificate in it is treated like a plain one.

use anyhow::Result;
use image_tests::clients::{KeyType, pkcs11_tool};
use image_tests::device::{Device, STORE, assert_ends};
use image_tests::doubles::pki::Validity;
use image_tests::doubles::software_tpm::Ek;
use image_tests::doubles::tpm_proxy::{Firmware, Options, Proxy, Slb9670};
use image_tests::faults::network::Cloud;
use image_tests::ports::NOBODY;
use serde_json::{Value, json};

use super::{Desk, drop_reply, reply_path, text};

const SRK: u32 = 0x8100_0001;

/// Done, with one certificate accepted, and nothing left in the TPM.
#[track_caller]
fn assert_done(device: &Device, key: KeyType) -> Result<()> {
    assert_eq!(device.status()?["state"], "Done");
    pkcs11_tool::sign_and_verify(&device.identity(key)?)?;
    let accepted = device.read(format!("{STORE}/certificate.pem"))?;
    assert_eq!(accepted.matches("-----BEGIN").count(), 1, "{accepted}");
    assert_eq!(device.tpm.persistent_handles()?, [SRK]);
    assert_eq!(device.tpm.lockout_counter()?, 0);
    Ok(())
}

#[test]
fn each_key_is_enrolled_with_each_ek_on_each_firmware() -> Result<()> {
    let desk = Desk::new()?;
    for key in KeyType::BOTH {
        for (ek, firmware) in [(Ek::P256, Firmware::V7_63), (Ek::Rsa2048, Firmware::V7_85)] {
            let (mut device, _) = desk.device(key, ek)?;
            let chip = Some(Slb9670::new(firmware));
            let proxy = Proxy::start(
                device.tpm.upstream(),
                Options {
                    chip,
                    latency: None,
                },
            )?;
            let opened = proxy.open()?;
            device.tcti = Some(opened.tcti());
            device.succeed(&["provision"])?;
            drop_reply(&device, text(&desk.reply(&device)?)?)?;
            device.succeed(&["enroll"])?;
            assert_eq!(proxy.take_commands().count("ActivateCredential"), 1);
            drop(opened);
            assert_done(&device, key)?;
        }
    }
    Ok(())
}

/// The cost, and that nothing stays loaded in a TPM without a resource manager.
#[test]
fn opening_takes_fourteen_commands_and_leaves_nothing_loaded() -> Result<()> {
    let desk = Desk::new()?;
    let mut device = desk.provisioned()?;
    drop_reply(&device, text(&desk.reply(&device)?)?)?;
    let proxy = Proxy::start(device.tpm.upstream(), Options::default())?;
    device.tcti = Some(proxy.tcti());
    device.succeed(&["enroll"])?;
    let names = proxy.take_commands().names();
    let activation = [
        "ReadPublic",
        "StartAuthSession",
        "Load",
        "Unseal",
        "FlushContext",
        "Load",
        "CreatePrimary",
        "StartAuthSession",
        "PolicySecret",
        "ActivateCredential",
        "FlushContext",
        "FlushContext",
        "FlushContext",
        "FlushContext",
    ];
    assert!(names.windows(14).any(|w| w == activation), "{names:?}");
    assert!(device.tpm.transient_handles()?.is_empty());
    assert_done(&device, KeyType::EccP256)
}

/// Three slots, one of which another program occupies.
#[test]
fn two_free_slots_are_enough() -> Result<()> {
    let desk = Desk::new()?;
    for ek in Ek::BOTH {
        let (device, _) = desk.device(KeyType::EccP256, ek)?;
        device.succeed(&["provision"])?;
        drop_reply(&device, text(&desk.reply(&device)?)?)?;
        let occupy = ["tpm2_createprimary", "-C", "n", "-c", "other.ctx"];
        device.tpm.run(&occupy)?;
        assert_eq!(device.tpm.transient_handles()?.len(), 1);
        device.succeed(&["enroll"])?;
        assert_eq!(device.tpm.transient_handles()?.len(), 1, "only the other's");
        device.tpm.flush()?;
        assert_done(&device, KeyType::EccP256)?;
    }
    Ok(())
}

/// Later boots do not open the same reply again, and it costs them nothing.
#[test]
fn a_reply_is_opened_once() -> Result<()> {
    let desk = Desk::new()?;
    let mut device = desk.provisioned()?;
    drop_reply(&device, text(&desk.reply(&device)?)?)?;
    device.succeed(&["enroll"])?;
    let proxy = Proxy::start(device.tpm.upstream(), Options::default())?;
    device.tcti = Some(proxy.tcti());
    let before = device.snapshot()?;
    for command in ["provision", "enroll"] {
        device.succeed(&[command])?;
        let names = proxy.take_commands().names();
        assert!(names.len() <= 3, "{command}: {names:?}");
    }
    before.assert_same(&device.snapshot()?);
    // The reply is no longer on the card: nothing is removed for that.
    device.remove(reply_path())?;
    let before = device.snapshot()?;
    device.succeed(&["enroll"])?;
    before.assert_same(&device.snapshot()?);
    Ok(())
}

/// After a power cut between the acceptance and the note, and after damage.
#[test]
fn opening_again_adds_no_second_certificate() -> Result<()> {
    let desk = Desk::new()?;
    let device = desk.provisioned()?;
    drop_reply(&device, text(&desk.reply(&device)?)?)?;
    device.succeed(&["enroll"])?;
    let note = format!("{STORE}/opened.json");
    let (done, noted) = (device.snapshot()?, device.read(&note)?);
    device.remove(&note)?;
    device.succeed(&["enroll"])?;
    assert_eq!(device.read(&note)?, noted);
    done.without(&note)
        .assert_same(&device.snapshot()?.without(&note));
    device.write(&note, "{}")?;
    device.remove(format!("{STORE}/certificate.pem"))?;
    device.succeed(&["enroll"])?;
    assert_done(&device, KeyType::EccP256)?;
    // The note is there, but the certificate is gone.
    device.remove(format!("{STORE}/certificate.pem"))?;
    device.succeed(&["enroll"])?;
    assert_done(&device, KeyType::EccP256)
}

#[test]
fn a_new_reply_replaces_the_certificate() -> Result<()> {
    let desk = Desk::new()?;
    let device = desk.provisioned()?;
    let mut certificates = Vec::new();
    for _ in 0..2 {
        drop_reply(&device, text(&desk.reply(&device)?)?)?;
        device.succeed(&["enroll"])?;
        assert_done(&device, KeyType::EccP256)?;
        certificates.push(device.read(format!("{STORE}/certificate.pem"))?);
    }
    assert_ne!(certificates[0], certificates[1]);
    Ok(())
}

/// The operator has put a plain certificate beside the reply by hand: it wins.
#[test]
fn a_plain_certificate_comes_first() -> Result<()> {
    let desk = Desk::new()?;
    let mut device = desk.provisioned()?;
    // With its issuer's, as it has to lead to one of the issuers that the settings name.
    let plain = desk.operator.sign(&device.request()?)? + &desk.operator.certificate_pem()?;
    device.drop_certificate(&plain)?;
    drop_reply(&device, text(&desk.reply(&device)?)?)?;
    let proxy = Proxy::start(device.tpm.upstream(), Options::default())?;
    device.tcti = Some(proxy.tcti());
    device.succeed(&["enroll"])?;
    assert_eq!(proxy.take_commands().count("ActivateCredential"), 0);
    assert_eq!(
        device.read(format!("{STORE}/certificate.pem"))?.trim(),
        plain.trim()
    );
    assert_eq!(device.status()?["state"], "Done");
    Ok(())
}

/// `firstboot provision` and `status` leave it to `enroll`.
#[test]
fn only_enroll_opens_it() -> Result<()> {
    let desk = Desk::new()?;
    let device = desk.provisioned()?;
    drop_reply(&device, text(&desk.reply(&device)?)?)?;
    device.succeed(&["provision"])?;
    let next = device.succeed(&["status"])?;
    assert!(next.contains("opening the wrapped certificate"), "{next}");
    assert!(!device.exists(format!("{STORE}/certificate.pem")));
    Ok(())
}

/// A copy of an older reply does not bring its certificate back, whatever the form of the newer one.
#[test]
fn a_superseded_reply_does_not_come_back() -> Result<()> {
    let desk = Desk::new()?;
    let mut device = desk.provisioned()?;
    let request = device.request()?;
    let old = text(&desk.reply(&device)?)?;
    drop_reply(&device, &old)?;
    device.succeed(&["enroll"])?;
    let recent = desk.operator.sign_valid(&request, Validity::Recent)?;
    let newer = text(&desk.reply_with(&device, recent.as_bytes(), |_| {})?)?;
    let units = newer.encode_utf16().flat_map(u16::to_be_bytes);
    drop_reply(
        &device,
        [0xFE, 0xFF].into_iter().chain(units).collect::<Vec<u8>>(),
    )?;
    device.succeed(&["enroll"])?;
    let kept = |device: &Device| device.read(format!("{STORE}/certificate.pem"));
    assert_eq!(kept(&device)?, recent);

    drop_reply(&device, &old)?;
    let outcome = device.run(&["enroll"])?;
    assert_ends(&outcome, 0, "it is older");
    assert_eq!(kept(&device)?, recent);
    // The TPM has opened it once: later starts refuse it without opening it again.
    let proxy = Proxy::start(device.tpm.upstream(), Options::default())?;
    let tcti = device.tcti.replace(proxy.tcti());
    let before = device.snapshot()?;
    for command in ["provision", "enroll"] {
        assert_ends(&device.run(&[command])?, 0, "it is older");
        let names = proxy.take_commands().names();
        assert!(names.len() <= 3, "{command}: {names:?}");
    }
    before.assert_same(&device.snapshot()?);
    device.tcti = tcti;
    // With the newer reply back, nothing changes.
    drop_reply(&device, &newer)?;
    device.succeed(&["enroll"])?;
    assert_eq!(kept(&device)?, recent);
    Ok(())
}

/// Nobody answers at AWS IoT Core, or the disk is full: neither makes the reply a bad one.
#[test]
fn a_reply_whose_certificate_cannot_be_tried_waits() -> Result<()> {
    let desk = Desk::new()?;
    let device = desk.provisioned()?;
    let answer = |validity| -> Result<String> {
        let chain = desk.operator.sign_valid(&device.request()?, validity)?;
        let reply = desk.reply_with(&device, chain.as_bytes(), |_| {})?;
        drop_reply(&device, text(&reply)?)?;
        Ok(chain)
    };
    answer(Validity::DUE)?;
    device.succeed(&["enroll"])?;
    let accepted = device.read(format!("{STORE}/certificate.pem"))?;

    let mut settings = desk.settings(KeyType::EccP256)?;
    settings["greengrass"]["iot_data_endpoint"] = json!("localhost");
    settings["enrollment"]["port"] = json!(NOBODY);
    settings["enrollment"]["trust_clock"] = json!(true);
    settings["renew"] = json!({ "key": "keep" });
    device.settings(&settings)?;
    device.succeed(&["enroll"])?;
    device.succeed(&["renew"])?;
    let next = answer(Validity::YOUNG)?;
    let waits = |words: &str| -> Result<()> {
        device.succeed(&["renew"])?;
        let status = device.status()?;
        let message = status["message"].as_str().unwrap_or_default();
        assert!(message.contains(words), "{message}");
        assert_eq!(status["refused"], Value::Null, "{status}");
        // The walk goes on to its end.
        assert_eq!(status["state"], "Done", "{status}");
        assert_eq!(status["in_service"], true);
        let result = &status["renewal"]["last_request"]["result"];
        assert_eq!(result, "waiting", "{status}");
        assert_eq!(device.read(format!("{STORE}/certificate.pem"))?, accepted);
        Ok(())
    };
    let obstacle = format!("{STORE}/tried.json.new");
    device.write(format!("{obstacle}/file"), "")?;
    waits("cannot write")?;
    std::fs::remove_dir_all(device.path(obstacle))?;
    waits("the new certificate waits until AWS IoT Core accepts")?;

    let cloud = Cloud::with_ca_of(&desk.operator)?;
    device.write("/boot/firstboot/root-ca.pem", cloud.root.certificate_pem()?)?;
    settings["enrollment"]["port"] = json!(cloud.core.port());
    device.settings(&settings)?;
    device.succeed(&["enroll"])?;
    device.succeed(&["renew"])?;
    assert_eq!(device.read(format!("{STORE}/certificate.pem"))?, next);
    let result = &device.status()?["renewal"]["last_request"]["result"];
    assert_eq!(result, "renewed");
    Ok(())
}
