//! Several devices that are powered on together: `make fleet` has a thousand (`src/bin/fleet_load.rs`).

use anyhow::Result;
use image_tests::measure::fleet_load;

#[test]
fn twenty_devices_enroll_at_once() -> Result<()> {
    let figures = fleet_load::run(20, 2)?;
    eprintln!("{figures}");
    figures.check()
}
