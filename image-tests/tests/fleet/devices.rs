//! Several devices that are powered on together: `make fleet` has a thousand (`src/bin/fleet_load.rs`).

use std::time::Duration;

use anyhow::Result;
use image_tests::measure::fleet_load::{self, Load, Timer, peak_a_second};

#[test]
fn twenty_devices_enroll_at_once_and_renew_within_seconds() -> Result<()> {
    let figures = fleet_load::run(Load {
        devices: 20,
        spread: 2,
        spread_later: Some(1),
        window: Duration::from_secs(2),
    })?;
    let [enrolled, renewed] = &figures;
    eprintln!("{enrolled}\n\n{renewed}");
    // Each has connected to renew, and to try what came.
    assert_eq!(renewed.arrivals_by_timer.len(), 40);
    fleet_load::check(&figures)
}

/// A thousand devices whose power has come back, and whose certificates are due, by what the timer alone does.
#[test]
fn a_thousand_devices_do_not_look_together() -> Result<()> {
    let timer = Timer::shipped()?;
    let mut looks = timer.looks(1000);
    looks.sort();
    assert!(peak_a_second(&looks) <= 5, "{}", peak_a_second(&looks));
    assert!(looks.last().is_some_and(|last| *last <= timer.window()));

    // A unit that spreads nothing is noticed.
    let at_once = Timer::parse("[Timer]\nOnBootSec=15min\nAccuracySec=1s\n")?;
    let mut looks = at_once.looks(1000);
    looks.sort();
    assert!(peak_a_second(&looks) > 500);
    Ok(())
}
