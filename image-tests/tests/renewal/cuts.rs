//! The power fails at any storage call of the run that requests a certificate for the kept key: nothing is lost, and
//! another certificate is requested only where the answer with the first one was lost. `make sweep` has all kinds of
//! cuts, both keys, and new ones.

use anyhow::{Context, Result};
use image_tests::clients::KeyType;
use image_tests::doubles::tpm_proxy::When;
use image_tests::faults::power_cut::{Kind, SCENARIOS, Stage};

fn at_any_storage_call(name: &str) -> Result<()> {
    let mut scenarios = SCENARIOS.into_iter();
    let scenario = scenarios.find(|scenario| scenario.name == name);
    let stage = Stage::prepare(scenario.context("no such scenario")?, KeyType::EccP256)?;
    let mut points = stage.points(Kind::Call);
    points.retain(|point| point.when == When::Before);
    assert!(points.len() > 10, "these are not all: {points:?}");
    let mut doubled = 0;
    for point in points {
        let aftermath = stage.aftermath(point)?;
        assert!(aftermath.wrong.is_empty(), "{point}: {:?}", aftermath.wrong);
        assert!((1..=2).contains(&aftermath.certificates), "{point}");
        doubled += usize::from(aftermath.certificates == 2);
    }
    assert!(doubled > 0, "no answer was ever lost");
    Ok(())
}

#[test]
fn of_a_kept_key_by_fleet_provisioning() -> Result<()> {
    at_any_storage_call("renew, kept key, fleet")
}

#[test]
fn of_a_kept_key_by_est() -> Result<()> {
    at_any_storage_call("renew, kept key, est")
}
