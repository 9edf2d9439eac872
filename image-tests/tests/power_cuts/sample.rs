//! A sample of every row of the sweep, and the negative controls.

use anyhow::Result;
use image_tests::clients::KeyType;
use image_tests::faults::power_cut::{self, Kind, SCENARIOS, Sample, Stage};

/// Points of each row: in all, a few minutes on two cores.
const EACH: usize = 3;

/// Fixed, so that failures can be repeated; `make sweep` tries all points anyway.
const SEED: u64 = 2026;

#[test]
fn nothing_is_stuck_in_a_sample_of_every_row() -> Result<()> {
    let sample = Sample::Drawn {
        each: EACH,
        seed: SEED,
    };
    let rows = power_cut::run(sample, "", |row| eprintln!("{row}"))?;
    let table = power_cut::print(&rows);
    assert!(rows.iter().all(|row| row.stuck.is_empty()), "\n{table}");
    let tried: usize = rows.iter().map(|row| row.tried).sum();
    assert!(tried >= 100, "only {tried} points:\n{table}");
    Ok(())
}

/// Whether any point after a sync is stuck if firstboot leaves the sync out.
fn is_noticed_without(path_end: &str, name: &str) -> Result<bool> {
    let mut stage = Stage::prepare(SCENARIOS[0], KeyType::EccP256)?;
    let calls = stage.recording().calls();
    let sync = calls
        .iter()
        .rposition(|call| call.name == name && call.path.ends_with(path_end));
    let Some(sync) = sync else {
        anyhow::bail!("no {name} of {path_end} among: {calls:?}");
    };
    stage.recording().forget_sync(sync)?;
    // From the end: the later the cut, the more depends on the sync.
    for point in stage.points(Kind::Lost).into_iter().rev() {
        if point.after() > sync && !stage.attempt(point)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

#[test]
fn a_missing_sync_of_the_pin_is_noticed() -> Result<()> {
    assert!(is_noticed_without("tpm2_pkcs11.new/pin.new", "fsync")?);
    Ok(())
}

/// Without it, the operator may be shown the request of a key that the next start does not have.
#[test]
fn a_missing_sync_of_the_commit_is_noticed() -> Result<()> {
    assert!(is_noticed_without("var/lib", "fsync")?);
    Ok(())
}
