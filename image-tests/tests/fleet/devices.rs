//! Several devices that are powered on together: `make fleet` has a thousand (`src/bin/crowd.rs`).

use anyhow::Result;
use image_tests::aws::crowd;

#[test]
fn twenty_at_once() -> Result<()> {
    let figures = crowd(20, 2)?;
    eprintln!("{figures}");
    figures.check()
}
