//! The sweep: the power is cut at every point of everything that firstboot does, and the next undisturbed start has to
//! recover. `make sweep` tries every point, `make test` a seeded sample.
//!
//! - [`Scenario`]: what firstboot is doing when the power goes;
//! - [`Kind`]: how it is cut;
//! - [`Rig`]: a device with an SLB 9670 by the proxy's profile, and its inspection afterwards;
//! - [`Stage`]: a scenario that is ready to be cut, at one point or another;
//! - [`Row`]: a row of the table of results.

mod point;
mod rig;
mod scenario;
mod servers;
mod stage;
mod table;
#[cfg(test)]
mod tests;

pub use point::{Kind, Point};
pub use rig::Rig;
pub use scenario::{Destination, FLEET, SCENARIOS, Scenario};
pub use stage::{Aftermath, Stage, published_request};
pub use table::{Row, print};

use anyhow::{Context, Result};
use rayon::prelude::*;

use crate::clients::KeyType;

/// A point's programs wait for each other about as long as they compute.
const THREADS_PER_CORE: usize = 3;

/// Which points to try.
#[derive(Clone, Copy, Debug)]
pub enum Sample {
    /// All of them.
    All,
    /// This many of each row, drawn with this seed.
    Drawn { each: usize, seed: u64 },
}

/// Tries all scenarios with both keys, or `only` the one of this name ("reset, rsa-2048") or those with this in their
/// name ("rsa"), with every kind of cut. Returns the table's rows.
pub fn run(sample: Sample, only: &str, progress: impl Fn(&str) + Sync) -> Result<Vec<Row>> {
    let cores = std::thread::available_parallelism()?.get();
    let threads = rayon::ThreadPoolBuilder::new()
        .num_threads(THREADS_PER_CORE * cores)
        .build()?;
    threads.install(|| {
        // Prepares all of them first: what is missing on this host shows in a minute, not after an hour of cuts.
        let stages: Vec<Stage> = chosen_scenarios(only)
            .collect::<Vec<_>>()
            .into_par_iter()
            .map(|(scenario, key)| {
                Stage::prepare(scenario, key).with_context(|| scenario.name_with(key))
            })
            .collect::<Result<_>>()?;
        let mut rows = Vec::new();
        for stage in stages {
            for kind in Kind::ALL {
                let points = stage.points(kind);
                if points.is_empty() && kind == Kind::Packet {
                    continue;
                }
                let chosen = choose(&points, sample);
                let row = try_all(&stage, kind, points.len(), &chosen)?;
                progress(&row.to_string());
                rows.push(row);
            }
        }
        Ok(rows)
    })
}

fn chosen_scenarios(only: &str) -> impl Iterator<Item = (Scenario, KeyType)> {
    let with_both_keys = |scenario: Scenario| KeyType::BOTH.map(|key| (scenario, key));
    let is_wanted = move |(scenario, key): &(Scenario, KeyType)| {
        let name = scenario.name_with(*key);
        // "reset, ecc-p256" is a scenario's name, and the end of another's.
        if scenario_is_named(only) {
            name == only
        } else {
            name.contains(only)
        }
    };
    SCENARIOS
        .into_iter()
        .flat_map(with_both_keys)
        .filter(is_wanted)
}

/// Whether this is the whole name of a scenario.
fn scenario_is_named(name: &str) -> bool {
    let named = |scenario: &Scenario| KeyType::BOTH.map(|key| scenario.name_with(key) == name);
    SCENARIOS
        .iter()
        .any(|scenario| named(scenario).contains(&true))
}

fn choose(points: &[Point], sample: Sample) -> Vec<Point> {
    match sample {
        Sample::All => points.to_vec(),
        Sample::Drawn { each, seed } => {
            let mut drawn = points.to_vec();
            fastrand::Rng::with_seed(seed).shuffle(&mut drawn);
            drawn.truncate(each);
            drawn
        }
    }
}

/// Tries the points side by side. An error means that a point could not be tried.
fn try_all(stage: &Stage, kind: Kind, of: usize, points: &[Point]) -> Result<Row> {
    let objections: Vec<(Point, Vec<String>)> = points
        .par_iter()
        .map(|point| Ok((*point, stage.attempt(*point)?)))
        .collect::<Result<_>>()?;
    let stuck = objections.into_iter().filter(|(_, all)| !all.is_empty());
    Ok(Row {
        scenario: stage.scenario.name,
        key: stage.key,
        kind,
        of,
        tried: points.len(),
        stuck: stuck
            .map(|(point, all)| format!("{point}: {}", all.join("; ")))
            .collect(),
    })
}
