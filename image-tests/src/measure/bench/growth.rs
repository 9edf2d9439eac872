//! Whether the hundredth time costs what the first did: provisioning again and again, and the status of a device with
//! much in its TPM and token.

use anyhow::{Result, ensure};

use super::first_boot::run_in_memory;
use super::meter::{Meter, Part};
use super::row::{Row, Unit, median};
use crate::clients::{KeyType, openssl, pkcs11_tool};
use crate::device::{Device, offline_settings};
use crate::doubles::pki::Authority;
use crate::process::succeed;

/// `reset` and `provision`, this many times: rows for the 1st, 10th, 100th … time.
pub fn provisioning(cycles: usize) -> Result<Vec<Row>> {
    let device = Device::unprovisioned()?;
    device.settings(&offline_settings("nucleus-lite", KeyType::EccP256))?;
    let _run = run_in_memory(&device)?;
    let mut rows = Vec::new();
    let mut recent = Vec::new();
    for cycle in 1..=cycles {
        let meter = Meter::new(&device.tpm, 1)?;
        let part = meter.measure(vec![Box::new(|tpm| {
            device.firstboot_at(&tpm.by_one, &["provision"])
        })])?;
        recent.push(part.usage.wall.as_secs_f64() * 1000.0);
        if is_power_of_ten(cycle) {
            let name = |what: &str| format!("provisioning no. {cycle}: {what}");
            let first = rows.is_empty();
            rows.push(Row::new(
                name("commands"),
                Unit::Commands,
                part.commands as f64,
            ));
            // The first one alone, as it also makes the storage root key; otherwise the median of the last ten.
            let last = recent.split_off(recent.len().saturating_sub(if first { 1 } else { 10 }));
            rows.push(Row::new(
                name("wall time"),
                Unit::Milliseconds,
                median(last),
            ));
            recent.clear();
        }
        if cycle < cycles {
            device.succeed(&["reset"])?;
        }
    }
    Ok(rows)
}

/// `status` of a new device, and of one with foreign persistent handles and many objects in its token.
pub fn status(objects: usize) -> Result<Vec<Row>> {
    let device = Device::unprovisioned()?;
    device.settings(&offline_settings("nucleus-lite", KeyType::EccP256))?;
    // firstboot keeps two of the identities that are set aside.
    for _ in 0..4 {
        device.succeed(&["provision"])?;
        device.succeed(&["reset"])?;
    }
    device.succeed(&["provision"])?;
    let meter = Meter::new(&device.tpm, 1)?;
    let look = || {
        meter.measure(vec![Box::new(|tpm| {
            device.firstboot_at(&tpm.by_one, &["status"])
        })])
    };
    let new = look()?;
    for handle in 0..5 {
        // TCG EK Credential Profile: the handles of endorsement keys.
        let handle = format!("0x8101000{handle}");
        device.tpm.occupy_handle(&handle, &["-G", "ecc256"])?;
    }
    let identity = device.identity(KeyType::EccP256)?;
    let authority = Authority::new()?;
    let server = authority.server()?;
    let der = tempfile::NamedTempFile::new()?;
    succeed(
        openssl::plain(&["x509", "-outform", "DER", "-in"])
            .arg(&server.certificate)
            .arg("-out")
            .arg(der.path()),
    )?;
    pkcs11_tool::add_certificates(&identity, der.path(), objects)?;
    let crowded = look()?;
    ensure!(new.commands > 0, "the proxy saw nothing");
    let row = |what: &str, new: f64, crowded: f64, unit| {
        [
            Row::new(format!("status, new device: {what}"), unit, new),
            Row::new(
                format!("status, 2 orphans, 5 foreign handles, {objects} objects: {what}"),
                unit,
                crowded,
            ),
        ]
    };
    let milliseconds = |part: &Part| part.usage.wall.as_secs_f64() * 1000.0;
    let mut rows = Vec::new();
    rows.extend(row(
        "commands",
        new.commands as f64,
        crowded.commands as f64,
        Unit::Commands,
    ));
    rows.extend(row(
        "wall time",
        milliseconds(&new),
        milliseconds(&crowded),
        Unit::Milliseconds,
    ));
    Ok(rows)
}

fn is_power_of_ten(mut n: usize) -> bool {
    while n > 0 && n.is_multiple_of(10) {
        n /= 10;
    }
    n == 1
}
