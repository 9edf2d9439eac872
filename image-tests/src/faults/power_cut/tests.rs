//! Negative controls of the judgement by what AWS IoT Core accepts.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Rig;
use super::scenario::{KEPT_KEY, SCENARIOS, SETTINGS};
use crate::clients::KeyType;
use crate::device::STORE;
use crate::doubles::pki::Authority;
use crate::doubles::tpm_proxy::Firmware;

const KEY: KeyType = KeyType::EccP256;

/// A nucleus in service, and AWS IoT Core, which knows its certificate.
fn in_service() -> Result<Rig> {
    let mut scenarios = SCENARIOS.into_iter();
    let scenario = scenarios.find(|scenario| scenario.name == KEPT_KEY);
    let (start, history) = scenario.context("no such scenario")?.start(KEY)?;
    let device = start.restore()?;
    let servers = history.context("no network")?.begin(&device)?;
    let mut rig = Rig::new(device, Firmware::V7_85)?;
    rig.servers = Some(servers);
    Ok(rig)
}

fn complaints(rig: &Rig) -> Result<String> {
    let mut wrong = Vec::new();
    rig.compare_certificates(0, KEY, &mut wrong)?;
    Ok(wrong.join("; "))
}

#[test]
fn a_certificate_that_aws_does_not_accept_is_noticed() -> Result<()> {
    let rig = in_service()?;
    assert_eq!(complaints(&rig)?, "");

    // The token, in which the nucleus reads its certificate, has another one than the file.
    let request = rig.device.path(format!("{STORE}/device.csr.pem"));
    let stranger = Authority::new()?.sign(&request)?;
    rig.device
        .write(format!("{STORE}/certificate.pem"), stranger)?;
    let said = complaints(&rig)?;
    assert!(
        said.contains("which is not the accepted certificate"),
        "{said}"
    );

    // nucleus lite reads the file.
    let mut settings: Value = serde_json::from_str(&rig.device.read(SETTINGS)?)?;
    settings["greengrass"]["edition"] = json!("nucleus-lite");
    rig.device.settings(&settings)?;
    let said = complaints(&rig)?;
    assert!(said.contains("Greengrass cannot connect"), "{said}");
    Ok(())
}
