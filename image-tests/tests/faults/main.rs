//! Faults other than power cuts: several programs at once, and disks that are full, read-only or broken.

mod clients;
mod disk;
mod filesystem;
mod mounts;
mod provisioners;
mod readers;
mod volatile;

use anyhow::{Context, Result};
use image_tests::clients::KeyType;
use image_tests::device::{Device, offline_settings};
use image_tests::doubles::tpm_proxy::{Firmware, Options, Proxy, Slb9670};
use image_tests::faults::power_cut::{Rig, SCENARIOS, Scenario};

/// The usual device, never booted: nucleus lite with an ECC key.
fn usual() -> Result<Device> {
    let device = Device::unprovisioned()?;
    device.settings(&offline_settings("nucleus-lite", KeyType::EccP256))?;
    Ok(device)
}

/// The kernel's resource manager with an SLB 9670. Each program has to open it, as it opens /dev/tpmrm0.
fn resource_manager(device: &Device) -> Result<Proxy> {
    let options = Options {
        chip: Some(Slb9670::new(Firmware::V7_85)),
        latency: None,
    };
    Proxy::start(device.tpm.upstream(), options)
}

fn scenario(name: &str) -> Result<&'static Scenario> {
    let named = SCENARIOS.iter().find(|scenario| scenario.name == name);
    named.with_context(|| format!("there is no scenario {name:?}"))
}

/// Lets the device start undisturbed. Returns what is wrong afterwards: it should have one identity, one handle, a key
/// that signs, no failed try, and nothing left behind.
fn wrong_after_start(mut device: Device, scenario: &Scenario) -> Result<Vec<String>> {
    device.tcti = None;
    let mut rig = Rig::new(device, Firmware::V7_85)?;
    rig.start(scenario.destination, KeyType::EccP256)
}
