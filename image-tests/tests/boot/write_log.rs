//! QEMU's log of the writes to the card: the card as it may be after a power cut at any point, with unflushed writes
//! lost, and the TPM as it was at that point.

use anyhow::{Context, Result};
use image_tests::clients::KeyType;
use image_tests::doubles::pki::Authority;
use image_tests::doubles::tpm_proxy::Firmware;
use image_tests::faults::power_cut::{Destination, Rig, published_request};
use image_tests::faults::write_log::{CrashPoint, WriteLog};
use rayon::prelude::*;

use super::{certificate, certify, flash, let_in, sign};

/// The number of points in `make test`; POINTS changes it (`make powercut`).
const POINTS: usize = 44;
/// Fixed, so that failures can be repeated.
pub const SEED: u64 = 2026;

pub fn points() -> usize {
    let wanted = std::env::var("POINTS")
        .ok()
        .and_then(|number| number.parse().ok());
    wanted.unwrap_or(POINTS)
}

/// nucleus lite's configuration, which exists once a device is done.
const CONFIGURATION: &str = "/etc/greengrass/config.yaml";
const SET_ASIDE: &str = "an identity was set aside";

/// What is wrong with a device that starts after a cut at this point: its file systems, its survey, its recovery; and
/// whether it is done once it has a certificate (again).
fn wrong_after(log: &WriteLog, point: CrashPoint, authority: &Authority) -> Result<Vec<String>> {
    let machine = log.crash(point)?;
    if let Some(said) = machine.card.check()? {
        return Ok(vec![said]);
    }
    let device = machine.offline()?;
    let shown = published_request(device.root());
    let mut rig = Rig::new(device, Firmware::V7_85)?;
    let mut wrong = rig.start(Destination::DoneOrAwaiting, KeyType::EccP256)?;
    if rig.orphans()? > 0 {
        wrong.push(SET_ASIDE.to_owned());
    }
    let request = published_request(rig.device.root());
    if shown.is_some() && request != shown {
        wrong.push("the operator was shown the request of a key that is gone".to_owned());
    }
    if let (false, Some(request)) = (rig.device.exists(CONFIGURATION), request) {
        // A partial copy of the lost certificate may be there; the next one replaces it.
        wrong.retain(|what| !what.ends_with("/certificate.pem.new"));
        let path = rig.device.path(format!("/boot/{}", certificate()));
        std::fs::create_dir_all(path.parent().context("no folder")?)?;
        std::fs::write(path, sign(authority, &request)?)?;
        wrong.extend(rig.start(Destination::Done, KeyType::EccP256)?);
    }
    Ok(wrong)
}

/// A cut that leaves the FAT partition with a file or directory without its clusters.
fn torn_fat(log: &WriteLog) -> Result<CrashPoint> {
    for n in log.fat_writes()? {
        for seed in SEED..SEED + 4 {
            let point = CrashPoint { n, seed };
            if log.crash(point)?.card.is_fat_torn()? {
                return Ok(point);
            }
        }
    }
    anyhow::bail!("no point of the log has a torn FAT partition")
}

/// Boots after a cut at this point: the identity is there, its request is readable and the boot partition writable.
fn boots_at(log: &WriteLog, point: CrashPoint) -> Result<()> {
    let mut running = log.crash(point)?.boot()?.until("multi-user.target")?;
    assert_eq!(
        running.journal().started("firstboot.service"),
        Some("done"),
        "booted at {point:?}"
    );
    let failed =
        running.succeed("systemctl list-units --failed --plain --no-legend | cut -d' ' -f1")?;
    let awaiting = "firstboot-enroll.service\n";
    assert_eq!(failed, awaiting, "these units have failed at {point:?}");
    running.succeed(&format!("grep -q REQUEST /boot/{}", super::request()))?;
    running.succeed("touch /boot/writable")?;
    running.power_off().map(drop)
}

#[test]
fn every_point_of_the_log_recovers() -> Result<()> {
    let authority = Authority::new()?;
    let (running, log) = WriteLog::record(flash("nucleus-lite", &authority)?)?;
    let mut running = running.until_said("requests")?.until("firstboot.service")?;
    certify(&mut running, &authority)?;
    let_in(running)?.pull_the_plug()?;

    let entries = log.len()?;
    let changes = log.changes()?;
    assert!(
        changes.len() >= 3,
        "the TPM has hardly changed: {changes:?}"
    );
    // Evenly over the log, with different losses in each round.
    let count = points();
    let all: Vec<_> = (0..count)
        .map(|i| CrashPoint {
            n: 1 + (i * 7919) % entries,
            seed: SEED + i as u64,
        })
        .collect();
    let tried: Vec<(bool, CrashPoint, Vec<String>)> = all
        .into_par_iter()
        .map(|point| {
            let wrong = wrong_after(&log, point, &authority);
            let wrong = wrong.with_context(|| format!("{point:?}"))?;
            Ok((log.unflushed(point.n)? > 0, point, wrong))
        })
        .collect::<Result<_>>()?;
    let lossy = tried.iter().filter(|(lossy, ..)| *lossy).count();
    let stuck = tried.iter().filter(|(.., wrong)| !wrong.is_empty());
    let stuck: Vec<String> = stuck
        .map(|(_, point, wrong)| format!("{point:?}: {}", wrong.join("; ")))
        .collect();
    eprintln!(
        "{count} points of {entries}, {lossy} of them with unflushed writes, {} stuck",
        stuck.len()
    );
    assert!(stuck.is_empty(), "{}", stuck.join("\n"));
    assert!(
        lossy * 3 >= count,
        "only {lossy} of {count} points lost anything"
    );

    // Some of them are booted: where the TPM's state changed, so that it and the card could disagree, and where the
    // boot partition has to be repaired before it is mounted.
    let at_changes = changes.iter().skip(1).take(2);
    let mut booted: Vec<_> = at_changes.map(|&n| CrashPoint { n, seed: SEED }).collect();
    booted.push(torn_fat(&log)?);
    booted
        .into_par_iter()
        .try_for_each(|point| boots_at(&log, point))
}

/// The negative control: with a firstboot that does not sync the PIN, there is an identity without it.
#[test]
fn a_missing_sync_is_noticed() -> Result<()> {
    let authority = Authority::new()?;
    let machine = flash("nucleus-lite", &authority)?;
    machine.card.put(
        "gate/environment",
        "LD_PRELOAD=/usr/lib/stand-in/gate.so\nNOSYNC=/tpm2_pkcs11.new/pin.new\n",
    )?;
    let (running, log) = WriteLog::record(machine)?;
    running.until("firstboot.service")?.pull_the_plug()?;
    // From the end: the later the cut, the more depends on the sync.
    for n in (1..=log.len()?).rev() {
        let point = CrashPoint { n, seed: SEED };
        let wrong = wrong_after(&log, point, &authority)?;
        if !wrong.is_empty() {
            eprintln!("after {n} entries: {}", wrong.join("; "));
        }
        if wrong.iter().any(|what| what == SET_ASIDE) {
            return Ok(());
        }
    }
    anyhow::bail!("no point of the log shows that the PIN was not synced");
}
