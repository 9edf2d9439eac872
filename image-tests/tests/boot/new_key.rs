//! A renewal with a new key on a running device: the timer asks, the certificate is tried beside Greengrass, the two
//! identities change places while Greengrass is stopped.

use anyhow::{Context, Result};
use image_tests::clients::KeyType;
use image_tests::device::machine::{Machine, Running};
use image_tests::device::{NEXT, PREVIOUS, STORE, offline_settings};
use image_tests::doubles::pki::{Authority, Validity};
use image_tests::faults::power_cut::{Destination, Rig};
use image_tests::faults::write_log::{CrashPoint, WriteLog};
use rayon::prelude::*;
use serde_json::json;

use super::write_log::{SEED, points};
use super::{certificate, let_in, request, thing};

const RENEW: &str = "firstboot-renew.service";
const ENROLL: &str = "firstboot-enroll.service";

fn next_request() -> String {
    format!("firstboot/requests/{}.next.csr.pem", thing())
}

fn next_certificate() -> String {
    format!("firstboot/certificates/{}.next.pem", thing())
}

/// With a certificate that has two days, one of which is over, and is due at this share of them. Greengrass is at its
/// broker, which firstboot can reach, too.
fn in_service(edition: &str, authority: &Authority, at: &str) -> Result<Running> {
    let machine = Machine::flash(edition)?;
    let mut settings = offline_settings(edition, KeyType::EccP256);
    settings["greengrass"]["iot_data_endpoint"] = json!("localhost");
    settings["enrollment"]["trust_clock"] = json!(true);
    settings["renew"] = json!({ "key": "new", "at": at });
    machine.card.prepare(&settings, authority)?;
    let mut running = machine.boot()?.until("multi-user.target")?;
    let pem = sign(&mut running, authority, &request(), 1)?;
    running.put(&format!("/boot/{}", certificate()), &pem)?;
    let_in(running)
}

/// A certificate for a request on the boot partition, with so many days left.
fn sign(running: &mut Running, authority: &Authority, request: &str, left: u32) -> Result<String> {
    let asked = running.succeed(&format!("cat /boot/{request}"))?;
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), asked)?;
    authority.sign_valid(file.path(), Validity::Days { over: 1, left })
}

/// A device that has asked for a certificate for a new key, and that certificate.
fn asked(edition: &str, authority: &Authority) -> Result<(Running, String)> {
    let running = in_service(edition, authority, "1/3")?;
    running.wait_for("the request", |record| {
        record.unit() == RENEW && record.message().contains("due for renewal")
    })?;
    let mut running = running;
    let pem = sign(&mut running, authority, &next_request(), 9)?;
    Ok((running, pem))
}

fn serial(running: &mut Running) -> Result<String> {
    let show = format!("openssl x509 -in {STORE}/certificate.pem -noout -serial");
    running.succeed(&show)
}

#[test]
fn the_timer_asks_and_the_new_key_is_taken_up() -> Result<()> {
    const DAEMON: &str = "greengrass.service";
    let authority = Authority::new()?;
    // Due nine minutes after it was signed, before the timer elapses.
    let mut running = in_service("nucleus", &authority, "503/1000")?;
    let before = serial(&mut running)?;
    running.succeed(&format!("test ! -e {NEXT}"))?;
    running.haste(60)?;
    running.wait_for("the timer", |record| {
        record.unit() == RENEW
            && record
                .message()
                .contains("asking for a certificate for the new key")
    })?;
    running.haste(1)?;
    running.wait_for("the request", |record| {
        record.unit() == RENEW && record.message().contains("due for renewal")
    })?;
    let pem = sign(&mut running, &authority, &next_request(), 9)?;
    running.put(&format!("/boot/{}", next_certificate()), &pem)?;
    let mut running = let_in(running)?;
    running.succeed(&format!("test -e {PREVIOUS} -a ! -e {NEXT}"))?;
    assert_ne!(serial(&mut running)?, before);
    let accepted = running.succeed(&format!("cat {STORE}/certificate.pem"))?;
    assert_eq!(accepted, pem);
    let card = running.succeed("ls /boot/firstboot/*")?;
    assert!(!card.contains(".next."), "{card}");

    let journal = running.journal();
    let latest = |unit: &str, words: &str| {
        let of_unit = journal.of(unit);
        let mut entries = of_unit.entries().iter().rev();
        let found = entries.find(|record| record.message().contains(words));
        found
            .map(|record| record.time())
            .with_context(|| format!("{unit}: {words}"))
    };
    let tried = latest(RENEW, "localhost accepts the certificate")?;
    let stops = latest(DAEMON, "Stopping")?;
    let stopped = latest(DAEMON, "Stopped")?;
    let changes = latest(ENROLL, "putting the next identity into service")?;
    let starts = latest(DAEMON, "greengrass has started")?;
    let back = latest(DAEMON, "is let in")?;
    assert!(tried < stops, "{}", journal.text());
    assert!(stopped < changes && changes < starts, "{}", journal.text());
    eprintln!(
        "without Greengrass: {:.2} s; of this, until it starts: {:.2} s",
        (back - stops).as_secs_f64(),
        (starts - stops).as_secs_f64()
    );
    let failed = running.succeed("systemctl list-units --failed --no-legend 'firstboot*'")?;
    assert_eq!(failed.trim(), "");
    running.power_off().map(drop)
}

/// Just before the exchange, and just after it.
#[test]
fn a_cut_at_the_exchange_is_survived() -> Result<()> {
    let authority = Authority::new()?;
    let (running, pem) = asked("nucleus-lite", &authority)?;
    let machine = running.power_off()?;
    for when in ["before", "after"] {
        let machine = machine.copy()?;
        let gate =
            format!("LD_PRELOAD=/usr/lib/stand-in/gate.so\nGATE=\"{when} exchange {STORE}\"\n");
        machine.card.put("gate/environment", gate)?;
        let mut running = let_in(machine.boot()?.until("multi-user.target")?)?;
        running.put(&format!("/boot/{}", next_certificate()), &pem)?;
        let running = running.until_said(&format!("gate: {when} exchange"))?;
        let machine = running.pull_the_plug()?;
        machine.card.remove("gate/environment")?;

        let mut running = let_in(machine.boot()?.until("multi-user.target")?)?;
        let accepted = running.succeed(&format!("cat {STORE}/certificate.pem"))?;
        assert_eq!(accepted, pem, "{when}");
        running.succeed(&format!("test -e {PREVIOUS} -a ! -e {NEXT}"))?;
        let machine = running.power_off()?;
        assert_eq!(machine.tpm()?.persistent_handles()?, [0x8100_0001]);
        assert_eq!(machine.tpm()?.lockout_counter()?, 0);
    }
    Ok(())
}

/// Each point of the writes from the certificate's arrival until Greengrass is back: the device is in service with one of
/// the two keys, and its certificate.
#[test]
fn every_point_of_the_exchange_recovers() -> Result<()> {
    let authority = Authority::new()?;
    let (running, pem) = asked("nucleus-lite", &authority)?;
    let machine = running.power_off()?;
    let old = machine
        .offline()?
        .read(format!("{STORE}/certificate.pem"))?;
    let (running, log) = WriteLog::record(machine)?;
    let mut running = let_in(running.until("multi-user.target")?)?;
    let from = log.len()?;
    running.put(&format!("/boot/{}", next_certificate()), &pem)?;
    running.wait_for("the exchange", |record| {
        record.unit() == ENROLL && record.message().contains("is kept as")
    })?;
    let_in(running)?.pull_the_plug()?;

    let entries = log.len()?;
    let count = points();
    let stuck: Vec<String> = (0..count)
        .into_par_iter()
        .map(|i| {
            let n = from + (i * 7919) % (entries - from) + 1;
            let seed = SEED + i as u64;
            let point = CrashPoint { n, seed };
            let wrong = wrong_after(&log, point, [&old, &pem]);
            let wrong = wrong.with_context(|| format!("{point:?}"))?;
            Ok((!wrong.is_empty()).then(|| format!("{point:?}: {}", wrong.join("; "))))
        })
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .flatten()
        .collect();
    eprintln!(
        "{count} points of {} around the exchange, {} stuck",
        entries - from,
        stuck.len()
    );
    assert!(stuck.is_empty(), "{}", stuck.join("\n"));
    Ok(())
}

/// What is wrong with a device that starts after a cut at this point.
fn wrong_after(log: &WriteLog, point: CrashPoint, accepted: [&str; 2]) -> Result<Vec<String>> {
    let machine = log.crash(point)?;
    if let Some(said) = machine.card.check()? {
        return Ok(vec![said]);
    }
    let mut rig = Rig::new(
        machine.offline()?,
        image_tests::doubles::tpm_proxy::Firmware::V7_85,
    )?;
    let mut wrong = rig.start(Destination::Done, KeyType::EccP256)?;
    if rig.orphans()? > 0 {
        wrong.push("an identity was set aside".to_owned());
    }
    let [old, new] = accepted;
    if rig.device.read(format!("{STORE}/certificate.pem"))? == old {
        // A partial copy of the lost certificate may be there; the next one replaces it.
        wrong.retain(|what| !what.ends_with("/certificate.pem.new"));
        rig.device
            .write(format!("/boot/{}", next_certificate()), new)?;
        wrong.extend(rig.start(Destination::Done, KeyType::EccP256)?);
    }
    let certificate = rig.device.read(format!("{STORE}/certificate.pem"))?;
    if !accepted.contains(&certificate.as_str()) {
        wrong.push("the certificate is another one".to_owned());
    }
    Ok(wrong)
}
