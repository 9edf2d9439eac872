//! What firstboot is doing when the power goes. Each scenario is prepared once, and copied for every point.

use anyhow::Result;
use serde_json::json;

use crate::clients::KeyType;
use crate::device::station::Station;
use crate::device::{Checkpoint, Device, offline_settings};
use crate::doubles::pki::{Authority, Validity};
use crate::doubles::software_tpm::{Ek, SoftwareTpm};
use crate::faults::network::{est_settings, fleet_settings};
use crate::process::succeed;

pub(super) const SETTINGS: &str = "/boot/firstboot/firstboot.json";

/// Where the next undisturbed start has to arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// An identity and its request; no certificate yet.
    Awaiting,
    /// Configured, with the key that was there before.
    Done,
    /// Either: a reset has the old identity until its rename, and a new one after it.
    DoneOrAwaiting,
}

/// A double at which a device enrolls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// AWS IoT Core, by fleet provisioning.
    Fleet,
    /// An EST server.
    Est,
}

/// One thing that firstboot does.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub name: &'static str,
    /// The edition of Greengrass: the nucleus has its certificate in the token, nucleus lite in a file.
    edition: &'static str,
    /// Brings a blank device to the scenario's start.
    prepare: fn(&Device, &Authority) -> Result<()>,
    /// The command to cut.
    pub command: &'static str,
    pub destination: Destination,
    /// Where the device enrolls, if over the network.
    pub network: Option<Network>,
}

/// All scenarios.
pub const SCENARIOS: [Scenario; 16] = [
    Scenario {
        name: "provision",
        edition: "nucleus-lite",
        prepare: |_, _| Ok(()),
        command: "provision",
        destination: Destination::Awaiting,
        network: None,
    },
    Scenario {
        name: "provision after reset",
        edition: "nucleus-lite",
        prepare: |device, _| {
            device.succeed(&["provision"])?;
            device.succeed(&["reset"])?;
            Ok(())
        },
        command: "provision",
        destination: Destination::Awaiting,
        network: None,
    },
    Scenario {
        name: "enroll",
        edition: "nucleus-lite",
        prepare: prepare_enroll,
        command: "enroll",
        destination: Destination::Done,
        network: None,
    },
    Scenario {
        name: "enroll, nucleus",
        edition: "nucleus",
        prepare: prepare_enroll,
        command: "enroll",
        destination: Destination::Done,
        network: None,
    },
    Scenario {
        name: "replace certificate",
        edition: "nucleus-lite",
        prepare: prepare_replacement,
        command: "enroll",
        destination: Destination::Done,
        network: None,
    },
    Scenario {
        name: "replace certificate, nucleus",
        edition: "nucleus",
        prepare: prepare_replacement,
        command: "enroll",
        destination: Destination::Done,
        network: None,
    },
    Scenario {
        name: KEPT_KEY,
        edition: "nucleus",
        prepare: |device, authority| prepare_due(device, authority, json!({})),
        command: "renew",
        destination: Destination::Done,
        network: None,
    },
    Scenario {
        name: UNTRIED,
        edition: "nucleus",
        prepare: |device, authority| {
            prepare_due(device, authority, json!({}))?;
            device.succeed(&["renew"])?;
            drop_young(device, authority)
        },
        command: "renew",
        destination: Destination::Done,
        network: None,
    },
    Scenario {
        name: NEW_KEY,
        edition: "nucleus",
        prepare: |device, authority| prepare_due(device, authority, json!({ "key": "new" })),
        command: "renew",
        destination: Destination::Done,
        network: None,
    },
    Scenario {
        name: TAKEN_UP,
        edition: "nucleus",
        prepare: |device, authority| {
            prepare_due(device, authority, json!({ "key": "new" }))?;
            device.succeed(&["renew"])?;
            drop_young(device, authority)?;
            device.succeed(&["renew"]).map(drop)
        },
        command: "enroll",
        destination: Destination::Done,
        network: None,
    },
    Scenario {
        name: WRAPPED_REPLY,
        edition: "nucleus-lite",
        prepare: prepare_wrapped_reply,
        command: "enroll",
        destination: Destination::Done,
        network: None,
    },
    Scenario {
        name: "reset",
        edition: "nucleus-lite",
        prepare: |device, authority| device.enroll_with(authority),
        command: "reset",
        destination: Destination::DoneOrAwaiting,
        network: None,
    },
    Scenario {
        name: "storage root key evicted",
        edition: "nucleus-lite",
        prepare: |device, authority| {
            device.enroll_with(authority)?;
            device
                .tpm
                .run(&["tpm2_evictcontrol", "-c", "0x81000001"])
                .map(drop)
        },
        command: "provision",
        destination: Destination::Done,
        network: None,
    },
    Scenario {
        name: COMES_BACK,
        edition: "nucleus-lite",
        prepare: |device, authority| {
            device.enroll_with(authority)?;
            let other = SoftwareTpm::start()?;
            succeed(&mut device.firstboot_at(&other.tcti(), &["provision"])?)?;
            Ok(())
        },
        command: "provision",
        destination: Destination::Done,
        network: None,
    },
    Scenario {
        name: "fleet provisioning",
        edition: "nucleus-lite",
        prepare: provisioned,
        command: "enroll",
        destination: Destination::Done,
        network: Some(Network::Fleet),
    },
    Scenario {
        name: "EST",
        edition: "nucleus-lite",
        prepare: provisioned,
        command: "enroll",
        destination: Destination::Done,
        network: Some(Network::Est),
    },
];

fn provisioned(device: &Device, _: &Authority) -> Result<()> {
    device.succeed(&["provision"]).map(drop)
}

/// The scenario in which an enrolled identity, which was set aside for another TPM's, is restored, and the other one is
/// set aside.
pub const COMES_BACK: &str = "identity comes back";

/// The scenario in which a reply is opened.
pub const WRAPPED_REPLY: &str = "wrapped reply";

/// The scenario in which a certificate for the same key is due, and asked for.
pub const KEPT_KEY: &str = "renew, kept key";

/// The scenario in which a certificate for the same key goes into service untried: nobody answers.
pub const UNTRIED: &str = "certificate taken untried";

/// The scenario in which the next identity is made, for a certificate that is due.
pub const NEW_KEY: &str = "renew, new key";

/// The scenario in which the next identity has its certificate, and takes the place of the one in service.
pub const TAKEN_UP: &str = "new key taken up";

/// Puts the certificate for the request onto the card.
fn prepare_enroll(device: &Device, authority: &Authority) -> Result<()> {
    device.succeed(&["provision"])?;
    device.drop_certificate(&authority.sign(&device.request()?)?)?;
    Ok(())
}

/// Puts another certificate onto the card of a device that is done.
fn prepare_replacement(device: &Device, authority: &Authority) -> Result<()> {
    device.enroll_with(authority)?;
    device.drop_certificate(&authority.sign(&device.request()?)?)?;
    Ok(())
}

/// Puts a new certificate onto the card.
fn drop_young(device: &Device, authority: &Authority) -> Result<()> {
    let young = Validity::Days { over: 1, left: 99 };
    let pem = authority.sign_valid(&device.request()?, young)?;
    device.drop_certificate(&pem).map(drop)
}

/// A certificate in its last days, and a card from which the request has been removed.
fn prepare_due(device: &Device, authority: &Authority, renew: serde_json::Value) -> Result<()> {
    device.enroll_with(authority)?;
    let mut settings: serde_json::Value = serde_json::from_str(&device.read(SETTINGS)?)?;
    settings["enrollment"]["trust_clock"] = json!(true);
    // Nobody listens there.
    settings["greengrass"]["iot_data_endpoint"] = json!("localhost");
    settings["enrollment"]["port"] = json!(1);
    device.settings(&settings)?;
    let old = Validity::Days { over: 90, left: 10 };
    let request = device.request()?;
    device.drop_certificate(&authority.sign_valid(&request, old)?)?;
    device.succeed(&["enroll"])?;
    settings["renew"] = renew;
    device.settings(&settings)?;
    Ok(std::fs::remove_file(request)?)
}

/// Puts a reply of a provisioning station onto the card. It is for an RSA EK if the device's key is an RSA key, too.
fn prepare_wrapped_reply(device: &Device, _: &Authority) -> Result<()> {
    let station = Station::new()?;
    let mut settings: serde_json::Value = serde_json::from_str(&device.read(SETTINGS)?)?;
    let ek = match settings["key"].as_str() {
        Some("rsa-2048") => Ek::Rsa2048,
        _ => Ek::P256,
    };
    station.manufacturer.equip(&device.tpm, ek)?;
    settings["enrollment"]["issuers"] = json!([station.fingerprint()?]);
    device.settings(&settings)?;
    device.succeed(&["provision"])?;
    station.answer(device)
}

impl Scenario {
    /// Its name in the table.
    pub fn name_with(&self, key: KeyType) -> String {
        format!("{}, {}", self.name, key.name())
    }

    /// Prepares it: a device at the scenario's start.
    pub fn checkpoint(&self, key: KeyType) -> Result<Checkpoint> {
        let device = Device::unprovisioned()?;
        device.settings(&match self.network {
            // The port is the double's, once there is one.
            Some(Network::Fleet) => fleet_settings(self.edition, key, 1),
            Some(Network::Est) => est_settings(self.edition, key, 1, None),
            None => offline_settings(self.edition, key),
        })?;
        (self.prepare)(&device, &Authority::new()?)?;
        Checkpoint::take(device)
    }
}
