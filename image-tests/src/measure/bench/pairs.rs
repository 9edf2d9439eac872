//! firstboot and the tutorial in pairs, so that what slows the host slows both.

use std::time::Duration;

use anyhow::Result;

use super::first_boot::{FirstBoot, Firstboot, Side, Tutorial};
use super::meter::Part;
use super::row::{Aim, Row, Unit, median};
use crate::clients::KeyType;

/// The rows for one key type. `wall` is the aim for the wall time, as a fraction of the peer's.
pub fn rows(key: KeyType, pairs: usize, wall: f64) -> Result<Vec<Row>> {
    let mut ours = Vec::new();
    let mut peers = Vec::new();
    for seed in 0..pairs as u64 {
        ours.push(Firstboot::measured(key, seed)?);
        peers.push(Tutorial::measured(key, seed)?);
    }
    let name = |what: &str| format!("first boot, {}: {what}", key.name());
    let both = |what: &str, unit, of: fn(&FirstBoot<Part>) -> f64| {
        let median_of = |runs: &[FirstBoot<Part>]| median(runs.iter().map(of).collect());
        Row::new(name(what), unit, median_of(&ours)).beside(median_of(&peers))
    };
    let ecc = key == KeyType::EccP256;
    let when_ecc = |row: Row, aim| if ecc { row.aim(aim) } else { row };
    let mut rows = vec![
        both("wall time, software TPM", Unit::Milliseconds, |run| {
            milliseconds(run.all.usage.wall)
        })
        .aim(Aim::Share(wall)),
        both("of it outside the TPM", Unit::Milliseconds, |run| {
            milliseconds(run.all.outside())
        }),
        when_ecc(
            both("up to the request", Unit::Commands, |run| {
                run.request.commands as f64
            }),
            Aim::AtMost(48.0),
        ),
        when_ecc(
            both("certificate included", Unit::Commands, |run| {
                run.all.commands as f64
            }),
            Aim::AtMost(75.0),
        ),
        both("of these TestParms", Unit::Commands, |run| {
            run.all.probes as f64
        }),
        both("peak resident memory", Unit::Kibibytes, |run| {
            run.all.usage.peak as f64
        })
        .aim(Aim::AtMost(16.0 * 1024.0)),
        both(
            "on an SLB 9670, accounted for the chip alone",
            Unit::Milliseconds,
            |run| milliseconds(run.all.chip),
        ),
        both(
            "share outside that chip, measured here",
            Unit::Percent,
            |run| {
                let outside = milliseconds(run.all.outside());
                100.0 * outside / (outside + milliseconds(run.all.chip))
            },
        )
        .aim(Aim::AtMost(5.0)),
    ];
    let ours = Firstboot::counted(key)?.all;
    let peers = Tutorial::counted(key)?.all;
    let counted = |what: &str, unit, ours: u64, peer: u64| {
        Row::new(name(what), unit, ours as f64).beside(peer as f64)
    };
    rows.extend([
        counted(
            "programs started",
            Unit::Processes,
            ours.processes,
            peers.processes,
        ),
        counted("fsync and fdatasync", Unit::Calls, ours.syncs, peers.syncs),
        counted(
            "written to storage",
            Unit::Kibibytes,
            ours.written / 1024,
            peers.written / 1024,
        ),
        counted("system calls", Unit::Calls, ours.all, peers.all),
    ]);
    Ok(rows)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
