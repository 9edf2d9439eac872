//! firstboot as its users see it, with a software TPM, the real PKCS#11 library and the real clients. One file per
//! subject; each test has its own device, and so its own TPM.

mod bad_input;
mod board;
mod certificate;
mod clients;
mod command_line;
mod configuration;
mod deployments;
mod encodings;
mod generator;
mod in_service;
mod networks;
mod nothing_to_do;
mod output;
mod own_key;
mod renamed;
mod renew;
mod renewal;
mod reset;
mod root_key;
mod secrets;
mod settings;
mod states;
mod store;
mod successors;
mod text_files;
mod units;
mod users;

use anyhow::Result;
use image_tests::clients::KeyType;
use image_tests::device::{Device, assert_ends, offline_settings};

/// The exit statuses that docs/status.md documents.
mod exit {
    pub const DONE: i32 = 0;
    pub const USAGE: i32 = 64;
    pub const NO_TPM: i32 = 69;
    pub const OTHER: i32 = 70;
    pub const CANNOT_WRITE: i32 = 73;
    pub const WAITING: i32 = 75;
    pub const SETTINGS: i32 = 78;
}

/// A device with its operator's settings, never booted.
fn device(edition: &str, key: KeyType) -> Result<Device> {
    let device = Device::unprovisioned()?;
    device.settings(&offline_settings(edition, key))?;
    Ok(device)
}

/// The usual one: nucleus lite with an ECC key.
fn usual() -> Result<Device> {
    device("nucleus-lite", KeyType::EccP256)
}

/// The thing's name on [`usual`] devices.
fn thing_name() -> String {
    format!("gateway-{}", image_tests::device::SERIAL)
}
