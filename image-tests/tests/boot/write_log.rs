//! QEMU's log of what the card was told: the card as it may be after a power cut at any point of it, with what was
//! not flushed lost, and the TPM as it was then.

use anyhow::{Context, Result};
use image_tests::authority::Authority;
use image_tests::clients::KeyType;
use image_tests::machine::{CrashPoint, WriteLog};
use image_tests::proxy::Firmware;
use image_tests::sweep::{Board, Outcome, request};

use super::{certify, flash, let_in};

/// Points in `make test`; POINTS=… for another number (`make powercut`).
const POINTS: usize = 44;
/// Another seed each day would make a failure unrepeatable.
const SEED: u64 = 2026;

fn points() -> usize {
    let wanted = std::env::var("POINTS")
        .ok()
        .and_then(|number| number.parse().ok());
    wanted.unwrap_or(POINTS)
}

const SET_ASIDE: &str = "an identity was set aside";

/// What is wrong with a device that starts after a cut there: file systems, survey, repair. Nothing is known where
/// the cut has left a FAT partition that fsck.fat does not mend and mtools cannot read (README.md, "The guest").
fn wrong_after(log: &WriteLog, point: CrashPoint) -> Result<Option<Vec<String>>> {
    let machine = log.crash(point)?;
    if let Some(said) = machine.card.check()? {
        return Ok(Some(vec![said]));
    }
    if !machine.card.can_read_fat("firstboot")? {
        return Ok(None);
    }
    let device = machine.on_the_bench()?;
    let shown = request(device.root());
    let mut board = Board::new(device, Firmware::V7_85)?;
    let mut wrong = board.start(Outcome::DoneOrAwaiting, KeyType::EccP256)?;
    if board.orphans()? > 0 {
        wrong.push(SET_ASIDE.to_owned());
    }
    if shown.is_some() && request(board.device.root()) != shown {
        wrong.push("the operator was shown the request of a key that is gone".to_owned());
    }
    Ok(Some(wrong))
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
    // Evenly over the log, each time round with other losses.
    let count = points();
    let all = (0..count).map(|i| CrashPoint {
        n: 1 + (i * 7919) % entries,
        seed: SEED + i as u64,
    });
    let (mut lossy, mut unknown, mut stuck) = (0, 0, Vec::new());
    for point in all {
        lossy += usize::from(log.unflushed(point.n)? > 0);
        let Some(wrong) = wrong_after(&log, point).with_context(|| format!("{point:?}"))? else {
            unknown += 1;
            continue;
        };
        if !wrong.is_empty() {
            stuck.push(format!("{point:?}: {}", wrong.join("; ")));
        }
    }
    eprintln!(
        "{count} points of {entries}, {lossy} of them with unflushed writes, {} stuck, {unknown} with a FAT \
         partition that cannot be read",
        stuck.len()
    );
    assert!(stuck.is_empty(), "{}", stuck.join("\n"));
    assert!(unknown * 10 <= count, "{unknown} unreadable FAT partitions");
    assert!(
        lossy * 3 >= count,
        "only {lossy} of {count} points lost anything"
    );

    // Some of them are booted: at the TPM's changes, where it and the card could disagree.
    for &n in changes.iter().skip(1).take(2) {
        let machine = log.crash(CrashPoint {
            n: n.max(1),
            seed: SEED,
        })?;
        let mut running = machine.boot()?.until("multi-user.target")?;
        assert_eq!(
            running.journal().started("firstboot.service"),
            Some("done"),
            "booted at {n}"
        );
        let failed =
            running.succeed("systemctl list-units --failed --plain --no-legend | cut -d' ' -f1")?;
        assert_eq!(
            failed, "firstboot-enroll.service\n",
            "these units have failed"
        );
        running.power_off()?;
    }
    Ok(())
}

/// The negative control: of a firstboot that does not sync the PIN, an identity without it is found.
#[test]
fn a_missing_sync_is_noticed() -> Result<()> {
    let machine = flash("nucleus-lite", &Authority::new()?)?;
    machine.card.put(
        "gate/environment",
        "LD_PRELOAD=/usr/lib/stand-in/gate.so\nNOSYNC=/tpm2_pkcs11.new/pin.new\n",
    )?;
    let (running, log) = WriteLog::record(machine)?;
    running.until("firstboot.service")?.pull_the_plug()?;
    // From the end: the longer the sync is past, the more has come to rely on it.
    for n in (1..=log.len()?).rev() {
        let point = CrashPoint { n, seed: SEED };
        let wrong = wrong_after(&log, point)?.unwrap_or_default();
        if !wrong.is_empty() {
            eprintln!("after {n} entries: {}", wrong.join("; "));
        }
        if wrong.iter().any(|what| what == SET_ASIDE) {
            return Ok(());
        }
    }
    anyhow::bail!("no point of the log shows that the PIN was not synced");
}
