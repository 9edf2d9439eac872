//! Each edition, with the certificate put onto the card while the device runs.

use anyhow::Result;
use image_tests::doubles::pki::Authority;

use super::{certify, flash, is_active, let_in};

/// Without a reboot, the device enrolls with the certificate, Greengrass starts, and authenticates to the broker.
fn enrolls_while_running(edition: &str, greengrass: &str) -> Result<()> {
    let authority = Authority::new()?;
    let mut running = flash(edition, &authority)?
        .boot()?
        .until("multi-user.target")?;
    assert!(!is_active(&mut running, greengrass)?);
    certify(&mut running, &authority)?;
    running = let_in(running)?;
    assert!(is_active(&mut running, greengrass)?);
    running.power_off()?;
    Ok(())
}

#[test]
fn nucleus_lite_enrolls_while_running() -> Result<()> {
    enrolls_while_running("nucleus-lite", "ggl.core.iotcored.service")
}

#[test]
fn the_nucleus_enrolls_while_running() -> Result<()> {
    enrolls_while_running("nucleus", "greengrass.service")
}

#[test]
fn v1_enrolls_while_running() -> Result<()> {
    enrolls_while_running("v1", "greengrass.service")
}
