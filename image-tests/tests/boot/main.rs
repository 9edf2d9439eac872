//! A guest boots, with the release's TPM stack, an unprovisioned TPM and systemd.

mod boot_partition;
mod claim;
mod deployments;
mod editions;
mod first_boot;
mod networks;
mod new_key;
mod no_tpm;
mod pulled_plugs;
mod renewal;
mod schedule;
mod write_log;

use anyhow::{Result, bail};
use image_tests::clients::KeyType;
use image_tests::device::machine::{Machine, Running};
use image_tests::device::{SERIAL, offline_settings};
use image_tests::doubles::pki::Authority;

fn thing() -> String {
    format!("gateway-{SERIAL}")
}

fn request() -> String {
    format!("firstboot/requests/{}.csr.pem", thing())
}

fn certificate() -> String {
    format!("firstboot/certificates/{}.pem", thing())
}

/// A machine with an unused TPM and a card with an edition's image and an operator's settings.
fn flash(edition: &str, authority: &Authority) -> Result<Machine> {
    let machine = Machine::flash(edition)?;
    let settings = offline_settings(edition, KeyType::EccP256);
    machine.card.prepare(&settings, authority)?;
    Ok(machine)
}

/// The operator's certificate for a request.
fn sign(authority: &Authority, request: &[u8]) -> Result<String> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), request)?;
    authority.sign(file.path())
}

/// Signs the running machine's request, and puts the certificate onto its boot partition.
fn certify(running: &mut Running, authority: &Authority) -> Result<()> {
    let request = running.succeed(&format!("cat /boot/{}", request()))?;
    let certificate = sign(authority, request.as_bytes())?;
    running.put(&format!("/boot/{}", self::certificate()), &certificate)
}

/// Waits until the guest's broker has accepted Greengrass.
fn let_in(running: Running) -> Result<Running> {
    let running = let_in_as(running, &thing())?;
    // The broker's log says so, and by which certificate.
    let user = format!("u'{}'", thing());
    running.wait_for("the broker", |entry| {
        entry.unit() == "broker.service"
            && entry.message().contains("New client connected")
            && entry.message().contains(&user)
    })?;
    Ok(running)
}

/// Waits until some broker has accepted Greengrass under this name.
fn let_in_as(running: Running, thing: &str) -> Result<Running> {
    let (running, said) = running.until_entry("Greengrass at its broker", |entry| {
        [" is let in", " is not let in"]
            .iter()
            .any(|words| entry.message().contains(words))
    })?;
    if said.message() != format!("{thing} is let in") {
        let kept = running.machine().keep();
        bail!("{}: {}; {kept}", said.unit(), said.message());
    }
    Ok(running)
}

/// Whether a unit is active.
fn is_active(running: &mut Running, unit: &str) -> Result<bool> {
    Ok(running
        .run(&format!("systemctl is-active --quiet {unit}"))?
        .code
        == 0)
}
