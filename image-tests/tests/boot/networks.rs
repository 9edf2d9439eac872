//! A port of a switch that asks who connects (IEEE 802.1X): by systemd's units, the device authenticates at each boot,
//! and only then does Greengrass reach AWS IoT Core.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result};
use image_tests::clients::KeyType;
use image_tests::device::SERIAL;
use image_tests::device::machine::{Entry, Machine, Running};
use image_tests::doubles::network_access::{Policy, Port, Server};
use image_tests::doubles::pki::Authority;
use image_tests::doubles::pki::aws::AwsCa;
use image_tests::doubles::tls::Version;
use image_tests::faults::network::{CLAIM, Cloud, Relay, fleet_settings};
use image_tests::namespaces::{in_a_private_network, ip};
use serde_json::{Value, json};

use super::{is_active, let_in_as, sign};

/// The switch's end of the cable.
const PORT: &str = "port7";
/// Where the guest looks for AWS IoT Core (`guest/files/etc/hosts`). The host has it only while the port is open:
/// nobody answers otherwise.
const BEYOND: &str = "10.0.2.100/24";
const SUPPLICANT: &str = "wpa_supplicant-wired@eth0.service";
const DAEMON: &str = "ggl.core.iotcored.service";

fn opens() -> Result<()> {
    ip(&["address", "add", BEYOND, "dev", PORT])
}

fn closes() -> Result<()> {
    ip(&["address", "flush", "dev", PORT])
}

/// The port of a network that lets in the devices of this CA.
fn port(cloud: &Cloud, devices: &Path) -> Result<Port> {
    let policy = Policy {
        pair: &cloud.root.server()?,
        devices,
        version: Version::Tls13,
    };
    Port::open(PORT, Server::Hostapd, policy)
}

/// A blank device with a claim, which has its network at the port and shows this key there.
fn flash(cloud: &Cloud, key: &str) -> Result<Machine> {
    let mut machine = Machine::flash("nucleus-lite")?;
    machine.hardware.tap = Some(PORT);
    let mut settings = fleet_settings("nucleus-lite", KeyType::EccP256, 8883);
    settings["greengrass"]["iot_data_endpoint"] = json!("broker.test");
    let network = json!({ "interface": "eth0", "domain": "localhost", "key": key });
    settings["network"] = json!({ "eap_tls": [network] });
    let card = &machine.card;
    card.put("firstboot/firstboot.json", settings.to_string())?;
    for ca in ["root-ca.pem", "eap-ca.pem"] {
        card.put(&format!("firstboot/{ca}"), cloud.root.certificate_pem()?)?;
    }
    for (path, pem) in CLAIM.iter().zip(cloud.core.claim()) {
        card.put(path.trim_start_matches("/boot/"), pem)?;
    }
    Ok(machine)
}

/// Waits until wpa_supplicant reports this.
fn until_supplicant(running: Running, event: &str) -> Result<Running> {
    let says = |entry: &Entry| entry.unit() == SUPPLICANT && entry.message().contains(event);
    Ok(running.until_entry(event, says)?.0)
}

fn assert_nothing_failed(running: &mut Running) -> Result<()> {
    let units = "'firstboot*' 'wpa_supplicant*'";
    let failed = running.succeed(&format!(
        "systemctl list-units --failed --no-legend {units}"
    ))?;
    assert_eq!(failed.trim(), "");
    Ok(())
}

/// Does this with a closed port, and with AWS IoT Core beyond it.
fn behind_a_port(test: impl FnOnce(&Cloud) -> Result<()> + Send) -> Result<()> {
    in_a_private_network(|| {
        ip(&["tuntap", "add", PORT, "mode", "tap"])?;
        ip(&["link", "set", PORT, "up"])?;
        let cloud = Cloud::new()?;
        let _beyond = Relay::at((Ipv4Addr::UNSPECIFIED, 8883), cloud.core.port())?;
        test(&cloud)
    })
}

fn status(running: &mut Running) -> Result<Value> {
    let status = running.succeed("firstboot status --json")?;
    Ok(serde_json::from_str(&status)?)
}

#[test]
fn greengrass_gets_through_once_the_device_has_authenticated() -> Result<()> {
    behind_a_port(|cloud| {
        let thing = format!("core-{SERIAL}");

        // At the bench, the port lets everybody in.
        opens()?;
        let running = let_in_as(flash(cloud, "same")?.boot()?, &thing)?;
        running.wait_for("the start of networks", |entry| {
            entry.unit() == SUPPLICANT && entry.started() == Some("done")
        })?;
        let mut running = running;
        assert_nothing_failed(&mut running)?;
        let machine = running.power_off()?;
        assert_eq!(cloud.core.counts().created, 1);
        closes()?;
        cloud.core.take_events()?;

        // A network for other devices stays closed.
        let others = Authority::new()?;
        let others = port(cloud, &others.certificate_path())?;
        let running = until_supplicant(machine.boot()?, "CTRL-EVENT-EAP-FAILURE")?;
        let mut running = running;
        running.succeed(&format!("systemctl restart {DAEMON}"))?;
        let running = running.until_said("is not let in")?;
        let machine = running.power_off()?;
        assert!(cloud.core.take_events()?.let_in().is_empty());
        drop(others);

        let devices = tempfile::NamedTempFile::new()?;
        std::fs::write(devices.path(), AwsCa::shared()?.certificate_pem()?)?;
        let port = port(cloud, devices.path())?;
        let events = port.hostapd.events()?;
        let running = machine.boot()?;
        events.until("AP-STA-CONNECTED")?;
        assert!(cloud.core.take_events()?.let_in().is_empty());
        opens()?;
        let mut running = until_supplicant(running, "CTRL-EVENT-EAP-SUCCESS")?;
        // The stand-in tries once, and may have come too early.
        running.succeed(&format!("systemctl restart {DAEMON}"))?;
        running.wait_for("Greengrass at AWS IoT Core", |entry| {
            entry.message() == format!("{thing} is let in")
        })?;
        assert!(cloud.core.take_events()?.authenticated(&thing));

        assert!(is_active(&mut running, SUPPLICANT)?);
        let enrolled = running.moment("firstboot-enroll.service", "ActiveEnter")?;
        let began = running.moment(SUPPLICANT, "InactiveExit")?;
        assert!(enrolled < began, "{enrolled:?}, {began:?}");
        eprintln!(
            "firstboot-network.service takes {:?}",
            running.start_of("firstboot-network.service")?
        );
        let status = status(&mut running)?;
        assert_eq!(status["networks"][0]["state"], "configured", "{status}");
        assert_nothing_failed(&mut running)?;
        running.power_off().map(drop)
    })
}

/// With a key of its own, the network needs no certificate of the device's: it is the way to that.
#[test]
fn a_device_fleet_provisions_through_the_port_that_the_networks_own_key_opens() -> Result<()> {
    behind_a_port(|cloud| {
        let thing = format!("core-{SERIAL}");
        let mut running = flash(cloud, "own")?.boot()?;
        running.wait_for("both requests", |entry| {
            entry.unit() == "firstboot.service" && entry.started() == Some("done")
        })?;
        // AWS IoT Core gives the thing its name. The device does not know it yet.
        let requests = running.succeed("ls /boot/firstboot/requests")?;
        let own = requests
            .lines()
            .find_map(|name| name.strip_suffix(".eap.csr.pem"))
            .context("there is no request for the networks' own key")?;
        let machine = running.power_off()?;
        let card = &machine.card;
        let request = card.read_text(&format!("firstboot/requests/{own}.eap.csr.pem"))?;
        let networks = Authority::new()?;
        let certificate = sign(&networks, request.as_bytes())?;
        card.put(
            &format!("firstboot/certificates/{own}.eap.pem"),
            certificate,
        )?;

        let port = port(cloud, &networks.certificate_path())?;
        let events = port.hostapd.events()?;
        let running = machine.boot()?;
        events.until("AP-STA-CONNECTED")?;
        assert_eq!(cloud.core.counts().created, 0);
        opens()?;
        let mut running = let_in_as(running, &thing)?;
        assert_eq!(cloud.core.counts().created, 1);

        let began = running.moment(SUPPLICANT, "InactiveExit")?;
        let enrolled = running.moment("firstboot-enroll.service", "ActiveEnter")?;
        assert!(began < enrolled, "{began:?}, {enrolled:?}");
        let status = status(&mut running)?;
        let network = &status["networks"][0];
        assert_eq!(network["state"], "configured", "{status}");
        assert_eq!(network["key"], "own", "{status}");
        running.power_off().map(drop)
    })
}
