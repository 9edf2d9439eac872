//! Each edition in its own way, with the certificate dropped onto the card while the device runs.

use anyhow::Result;
use image_tests::doubles::pki::Authority;

use super::{certify, flash, is_active, let_in};

/// No reboot: the certificate enrolls, Greengrass starts, and the broker knows it by its certificate.
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
