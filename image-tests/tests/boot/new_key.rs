//! A renewal with a new key on a running device: the timer asks, the certificate is tried beside Greengrass, the two
//! identities change places while Greengrass is stopped.

use anyhow::{Context, Result};
use image_tests::clients::KeyType;
use image_tests::device::machine::{Machine, Running};
use image_tests::device::{Device, NEXT, PREVIOUS, STORE, offline_settings};
use image_tests::doubles::pki::{Authority, Validity};
use image_tests::doubles::tpm_proxy::Firmware;
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
    let exchange = Exchange::record(None)?;
    let entries = exchange.end - exchange.from;
    let count = points();
    let tried: Vec<(CrashPoint, bool, Recovered)> = (0..count)
        .into_par_iter()
        .map(|i| {
            let n = exchange.from + (i * 7919) % entries + 1;
            let seed = SEED + i as u64;
            let point = CrashPoint { n, seed };
            let recovered = exchange.recover(point);
            let recovered = recovered.with_context(|| format!("{point:?}"))?;
            Ok((point, exchange.log.unflushed(n)? > 0, recovered))
        })
        .collect::<Result<_>>()?;
    let lossy = tried.iter().filter(|(_, lossy, _)| *lossy).count();
    let new = tried.iter().filter(|(.., after)| after.has_new_key).count();
    let stuck = tried.iter().filter(|(.., after)| !after.wrong.is_empty());
    let stuck: Vec<String> = stuck
        .map(|(point, _, after)| format!("{point:?}: {}", after.wrong.join("; ")))
        .collect();
    eprintln!(
        "{count} points of {entries} around the exchange, {lossy} of them with unflushed writes, {new} with the new key \
         afterwards, {} stuck",
        stuck.len()
    );
    assert!(stuck.is_empty(), "{}", stuck.join("\n"));
    assert!(
        lossy * 3 >= count,
        "only {lossy} of {count} points lost anything"
    );
    assert!(
        (1..count).contains(&new),
        "{new} of {count} points had the new key: they do not surround the exchange"
    );
    Ok(())
}

/// The negative control: with a firstboot that does not sync the old identity's generation, a cut after the exchange
/// leaves two identities of which none is the newer one.
#[test]
fn a_missing_sync_before_the_exchange_is_noticed() -> Result<()> {
    let exchange = Exchange::record(Some("/tpm2_pkcs11/generation.new"))?;
    // From where the exchange is done: the later the cut, the more depends on the sync.
    for n in (exchange.from + 1..=exchange.done).rev() {
        let Recovered { wrong, .. } = exchange.recover(CrashPoint { n, seed: SEED })?;
        if !wrong.is_empty() {
            eprintln!("after {n} entries: {}", wrong.join("; "));
        }
        if wrong.contains(&misplaced(PREVIOUS)) {
            return Ok(());
        }
    }
    anyhow::bail!("no point of the log shows that the generation was not synced")
}

/// A recorded exchange, from the arrival of the next key's certificate until Greengrass is back.
struct Exchange {
    log: WriteLog,
    /// The numbers of the log's entries at the arrival, when firstboot said that the exchange was done, and at the end.
    from: usize,
    done: usize,
    end: usize,
    old: Held,
    new: Held,
}

/// An identity, by its key (SHA-256) and its certificate.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    key: String,
    certificate: String,
}

impl Held {
    fn read(device: &Device, place: &str) -> Result<Self> {
        Ok(Self {
            key: device.key_sha256(place)?,
            certificate: device.read(format!("{place}/certificate.pem"))?,
        })
    }
}

/// A device after a cut, and an undisturbed start.
struct Recovered {
    has_new_key: bool,
    wrong: Vec<String>,
}

impl Exchange {
    /// Records one, if need be of a firstboot that leaves out the sync of the files with this in their path.
    fn record(without_sync: Option<&str>) -> Result<Self> {
        let authority = Authority::new()?;
        let (running, pem) = asked("nucleus-lite", &authority)?;
        let machine = running.power_off()?;
        let device = machine.offline()?;
        let old = Held::read(&device, STORE)?;
        let new = Held {
            key: device.key_sha256(NEXT)?,
            certificate: pem,
        };
        if let Some(path) = without_sync {
            let gate = format!("LD_PRELOAD=/usr/lib/stand-in/gate.so\nNOSYNC={path}\n");
            machine.card.put("gate/environment", gate)?;
        }
        let (running, log) = WriteLog::record(machine)?;
        let mut running = let_in(running.until("multi-user.target")?)?;
        if without_sync.is_some() {
            // Nor does the kernel write the file after a while.
            running.succeed("echo 0 >/proc/sys/vm/dirty_writeback_centisecs")?;
        }
        let from = log.len()?;
        running.put(&format!("/boot/{}", next_certificate()), &new.certificate)?;
        running.wait_for("the exchange", |record| {
            record.unit() == ENROLL && record.message().contains("is kept as")
        })?;
        let done = log.len()?;
        let_in(running)?.pull_the_plug()?;
        Ok(Self {
            from,
            done,
            end: log.len()?,
            log,
            old,
            new,
        })
    }

    /// Lets the device start after a cut at this point.
    fn recover(&self, point: CrashPoint) -> Result<Recovered> {
        let machine = self.log.crash(point)?;
        if let Some(said) = machine.card.check()? {
            return Ok(Recovered {
                has_new_key: false,
                wrong: vec![said],
            });
        }
        let mut rig = Rig::new(machine.offline()?, Firmware::V7_85)?;
        let has_new_key = |rig: &Rig| rig.key().as_ref() == Some(&self.new.key);
        let mut wrong = rig.start(Destination::Done, KeyType::EccP256)?;
        if !has_new_key(&rig) {
            // A partial copy of the lost certificate may be there; the next one replaces it.
            wrong.retain(|what| !what.ends_with("/certificate.pem.new"));
            rig.device.write(
                format!("/boot/{}", next_certificate()),
                &self.new.certificate,
            )?;
            wrong.extend(rig.start(Destination::Done, KeyType::EccP256)?);
        }
        if rig.orphans()? > 0 {
            wrong.push("an identity was set aside".to_owned());
        }
        let has_new_key = has_new_key(&rig);
        if point.n >= self.done && !has_new_key {
            wrong.push("an exchange that was done is lost".to_owned());
        }
        let (old, new) = (Some(&self.old), Some(&self.new));
        let [in_service, next, previous] = match has_new_key {
            true => [new, None, old],
            false => [old, new, None],
        };
        for (place, wanted) in [(STORE, in_service), (NEXT, next), (PREVIOUS, previous)] {
            let is_right = match wanted {
                Some(wanted) => Held::read(&rig.device, place).is_ok_and(|held| held == *wanted),
                None => !rig.device.exists(place),
            };
            if !is_right {
                wrong.push(misplaced(place));
            }
        }
        Ok(Recovered { has_new_key, wrong })
    }
}

fn misplaced(place: &str) -> String {
    format!("in {place} is not the identity that should be there")
}
