//! A device authenticates to a network with the TPM's key (IEEE 802.1X, EAP-TLS): a real wpa_supplicant reads what
//! firstboot has written, and a real hostapd or FreeRADIUS decides. Each test has a network namespace of its own, in
//! which the paths of a device lead to its files. They need root.

mod accepted;
mod lockout;
mod refused;
mod renewed;
mod secrets;
mod start;
mod wifi;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use image_tests::clients::wpa_supplicant::Supplicant;
use image_tests::clients::{KeyType, basic_environment};
use image_tests::device::{Device, NETWORK, STORE, offline_settings};
use image_tests::doubles::network_access::{Policy, Port, Server, lay_cable};
use image_tests::doubles::pki::{Authority, Pair};
use image_tests::doubles::tls::Version;
use image_tests::namespaces::{in_a_private_network, mount};
use serde_json::json;

/// The device's end of the cable, and the switch's.
const INTERFACE: &str = "eth0";
const PORT: &str = "port7";
/// A name that the authority's server certificates have.
const SERVER: &str = "localhost";

/// A device with this key that wants to authenticate at its Ethernet, and the authority of both network and device.
fn device(key: KeyType) -> Result<(Device, Authority)> {
    let device = Device::unprovisioned()?;
    want(&device, key, "same")?;
    let authority = Authority::new()?;
    device.write("/boot/firstboot/eap-ca.pem", authority.certificate_pem()?)?;
    Ok((device, authority))
}

/// Wants to authenticate with that key of the two: the device's, or the networks' own.
fn want(device: &Device, key: KeyType, which: &str) -> Result<()> {
    let mut settings = offline_settings("nucleus-lite", key);
    settings["network"] = json!({
        "eap_tls": [{ "interface": INTERFACE, "domain": SERVER, "key": which }]
    });
    device.settings(&settings)
}

/// The same, enrolled.
fn enrolled(key: KeyType) -> Result<(Device, Authority)> {
    let (device, authority) = device(key)?;
    device.enroll_with(&authority)?;
    Ok((device, authority))
}

/// A device that has a key for its networks alone, whose certificate is another authority's.
fn enrolled_with_own_key(key: KeyType) -> Result<(Device, Authority, Authority)> {
    let (device, authority) = device(key)?;
    let networks = Authority::new()?;
    want(&device, key, "own")?;
    device.enroll_with(&authority)?;
    device.drop_network_certificate(&networks.sign(&device.network_request()?)?)?;
    device.succeed(&["renew"])?;
    Ok((device, authority, networks))
}

/// Does the work where a cable leads from the device's interface to the port, and where its paths are the device's.
fn at_a_port(work: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    in_a_private_network(|| {
        lay_cable(INTERFACE, PORT)?;
        for memory in ["/run", "/var/lib"] {
            mount(&["-t", "tmpfs", "none", memory])?;
        }
        for directory in [STORE, NETWORK] {
            fs::create_dir(directory)?;
        }
        work()
    })
}

/// The port, open for those whose certificates this authority has signed.
fn port(server: Server, pair: &Pair, devices: &Authority, version: Version) -> Result<Port> {
    let policy = Policy {
        pair,
        devices: &devices.certificate_path(),
        version,
    };
    Port::open(PORT, server, policy)
}

/// hostapd's port, in TLS 1.3, with one CA for its own certificate and the devices'.
fn usual_port(authority: &Authority) -> Result<Port> {
    port(
        Server::Hostapd,
        &authority.server()?,
        authority,
        Version::Tls13,
    )
}

/// Starts wpa_supplicant on the device, with the command line of Debian's unit and the environment of firstboot's
/// drop-in, except for what only a real device has.
fn supplicant(device: &Device) -> Result<Supplicant> {
    supplicant_with(device, |command| {
        command.arg("-d");
    })
}

/// The same with a changed command.
fn supplicant_with(device: &Device, change: impl FnOnce(&mut Command)) -> Result<Supplicant> {
    move_in(device)?;
    let unit = Path::new("/lib/systemd/system/wpa_supplicant-wired@.service");
    let unit = fs::read_to_string(unit).context("wpasupplicant is not installed")?;
    let line = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="));
    let line = line.context("no ExecStart=")?.replace("%I", INTERFACE);
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().context("no program")?);
    command.args(words);
    command.env_clear().envs(basic_environment());
    command.envs(environment()?);
    let tcti = device.tcti.clone();
    command.env(
        "TPM2_PKCS11_TCTI",
        tcti.unwrap_or_else(|| device.tpm.tcti()),
    );
    // tpm2-pkcs11 1.9.0, Debian 12's, uses only the first character.
    command.env("PKCS11_SQL_LOCK", ".").current_dir("/run");
    change(&mut command);
    Supplicant::start(&mut command, INTERFACE)
}

/// Puts the device's files where they are on a device.
fn move_in(device: &Device) -> Result<()> {
    for path in [STORE, NETWORK, "/etc/wpa_supplicant"] {
        let of_device = device.path(path);
        if !of_device.exists() {
            continue;
        }
        mount(&["--bind", of_device.to_str().context("no text")?, path])?;
    }
    Ok(())
}

/// The environment that systemd would give the unit.
fn environment() -> Result<Vec<(String, String)>> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../firstboot/systemd/wpa_supplicant.conf"
    );
    let drop_in = fs::read_to_string(path)?;
    let mut lines = drop_in.lines();
    let file = lines.find_map(|line| line.strip_prefix("EnvironmentFile=-"));
    let file = file.context("no EnvironmentFile=")?;
    let file = file.replace("%p", "wpa_supplicant-wired");
    let file = file.replace("%i", INTERFACE);
    let lines = fs::read_to_string(&file).with_context(|| format!("no {file}"))?;
    let variables = lines.lines().filter_map(|line| line.split_once('='));
    Ok(variables
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}
