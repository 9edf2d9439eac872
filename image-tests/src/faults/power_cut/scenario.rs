//! What firstboot is doing when the power goes. Each scenario is prepared once, and copied for every point.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::servers::{History, Servers};
use crate::clients::KeyType;
use crate::device::station::Station;
use crate::device::{Checkpoint, Device, STORE, offline_settings};
use crate::doubles::pki::{Authority, Validity};
use crate::doubles::software_tpm::{Ek, SoftwareTpm};
use crate::process::{finish, succeed};

pub(super) const SETTINGS: &str = "/boot/firstboot/firstboot.json";

/// Where the next undisturbed start has to arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// An identity and its request; no certificate yet.
    Awaiting,
    /// Configured, with an accepted certificate.
    Done,
    /// Either: a reset has the old identity until its rename, and a new one after it.
    DoneOrAwaiting,
}

/// Whom a device meets over the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// AWS IoT Core, which issues by fleet provisioning.
    Fleet,
    /// An EST server, and AWS IoT Core.
    Est,
    /// AWS IoT Core, which tries what an operator has signed.
    Trials,
    /// The same, but the device cannot reach it.
    Unreachable,
}

/// How a renewal comes to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewed {
    /// With a new certificate for the same key.
    KeptKey,
    /// With another key, and its certificate.
    NewKey,
    /// With what was in service before: AWS IoT Core refuses the certificate that had taken its place untried.
    GivenUp,
}

/// One thing that firstboot does.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub name: &'static str,
    /// The edition of Greengrass: the nucleus has its certificate in the token, nucleus lite in a file.
    edition: &'static str,
    /// Brings a blank device to the scenario's start.
    prepare: fn(&Start) -> Result<()>,
    /// The command to cut.
    pub command: &'static str,
    pub destination: Destination,
    /// Whom the device meets over the network, if anybody.
    pub network: Option<Network>,
    /// The renewal that has come to its end at the destination, if one has.
    pub renewed: Option<Renewed>,
}

/// A device on its way to a scenario's start, and whom it meets there.
pub(super) struct Start {
    device: Device,
    authority: Arc<Authority>,
    servers: Option<Servers>,
}

/// What most scenarios are: nucleus lite, enrollment, no network.
const USUAL: Scenario = Scenario {
    name: "",
    edition: "nucleus-lite",
    prepare: |_| Ok(()),
    command: "enroll",
    destination: Destination::Done,
    network: None,
    renewed: None,
};

/// A renewal is requested, and one look later it has come to its end.
const RENEWAL: Scenario = Scenario {
    command: "renew",
    renewed: Some(Renewed::KeptKey),
    ..USUAL
};

/// All scenarios.
pub const SCENARIOS: [Scenario; 30] = [
    Scenario {
        name: PROVISION,
        command: "provision",
        destination: Destination::Awaiting,
        ..USUAL
    },
    Scenario {
        name: AFTER_RESET,
        prepare: |start| {
            start.device.succeed(&["provision"])?;
            start.device.succeed(&["reset"]).map(drop)
        },
        command: "provision",
        destination: Destination::Awaiting,
        ..USUAL
    },
    Scenario {
        name: "enroll",
        prepare: prepare_enroll,
        ..USUAL
    },
    Scenario {
        name: "enroll, nucleus",
        edition: "nucleus",
        prepare: prepare_enroll,
        ..USUAL
    },
    Scenario {
        name: "replace certificate",
        prepare: prepare_replacement,
        ..USUAL
    },
    Scenario {
        name: "replace certificate, nucleus",
        edition: "nucleus",
        prepare: prepare_replacement,
        ..USUAL
    },
    Scenario {
        name: KEPT_KEY,
        edition: "nucleus",
        prepare: |start| prepare_due(start, "keep", Validity::ENDING),
        network: Some(Network::Unreachable),
        renewed: None,
        ..RENEWAL
    },
    Scenario {
        name: UNTRIED,
        edition: "nucleus",
        prepare: |start| prepare_signed(start, "keep", Validity::ENDING),
        network: Some(Network::Unreachable),
        ..RENEWAL
    },
    Scenario {
        name: NEW_KEY,
        edition: "nucleus",
        prepare: |start| prepare_due(start, "new", Validity::ENDING),
        network: Some(Network::Unreachable),
        renewed: None,
        ..RENEWAL
    },
    Scenario {
        name: TAKEN_UP,
        edition: "nucleus",
        prepare: |start| {
            prepare_signed(start, "new", Validity::ENDING)?;
            start.device.succeed(&["renew"]).map(drop)
        },
        command: "enroll",
        network: Some(Network::Unreachable),
        renewed: Some(Renewed::NewKey),
        ..RENEWAL
    },
    Scenario {
        name: KEPT_GIVEN_UP,
        edition: "nucleus",
        prepare: |start| prepare_refused(start, "keep"),
        network: Some(Network::Trials),
        renewed: Some(Renewed::GivenUp),
        ..RENEWAL
    },
    Scenario {
        name: NEW_GIVEN_UP,
        edition: "nucleus",
        prepare: |start| {
            prepare_refused(start, "new")?;
            // This tries, and notes the refusal. Greengrass has to stop for the way back.
            start.device.succeed(&["renew"]).map(drop)
        },
        command: "enroll",
        network: Some(Network::Trials),
        renewed: Some(Renewed::GivenUp),
        ..RENEWAL
    },
    Scenario {
        name: PREVIOUS_REMOVED,
        edition: "nucleus",
        prepare: |start| {
            prepare_signed(start, "new", Validity::DUE)?;
            start.device.renew()?;
            // It has been in service since 1970.
            start.device.write(format!("{STORE}/taken-up"), "0")
        },
        network: Some(Network::Trials),
        renewed: None,
        ..RENEWAL
    },
    Scenario {
        name: "renew, kept key, tried",
        prepare: |start| prepare_signed(start, "keep", Validity::DUE),
        network: Some(Network::Trials),
        ..RENEWAL
    },
    Scenario {
        name: TRIED_NEW_KEY,
        edition: "nucleus",
        prepare: |start| prepare_signed(start, "new", Validity::DUE),
        network: Some(Network::Trials),
        renewed: Some(Renewed::NewKey),
        ..RENEWAL
    },
    Scenario {
        name: "renew, kept key, fleet",
        edition: "nucleus",
        prepare: |start| prepare_due(start, "keep", Validity::DUE),
        network: Some(Network::Fleet),
        ..RENEWAL
    },
    Scenario {
        name: "renew, new key, fleet",
        prepare: |start| prepare_due(start, "new", Validity::DUE),
        network: Some(Network::Fleet),
        renewed: Some(Renewed::NewKey),
        ..RENEWAL
    },
    Scenario {
        name: "renew, kept key, est",
        prepare: |start| prepare_due(start, "keep", Validity::DUE),
        network: Some(Network::Est),
        ..RENEWAL
    },
    Scenario {
        name: "renew, new key, est",
        edition: "nucleus",
        prepare: |start| prepare_due(start, "new", Validity::DUE),
        network: Some(Network::Est),
        renewed: Some(Renewed::NewKey),
        ..RENEWAL
    },
    Scenario {
        name: ANOTHER_NETWORK,
        prepare: |start| {
            prepare_network(start)?;
            let wifi =
                json!({ "interface": "wlan0", "ssid": "plant", "domain": "radius.example.com" });
            start.want_networks(json!({ "country": "DE", "eap_tls": [wifi] }))
        },
        ..USUAL
    },
    Scenario {
        name: NO_NETWORK,
        prepare: |start| {
            prepare_network(start)?;
            start.want_networks(json!({}))
        },
        ..USUAL
    },
    Scenario {
        name: OWN_KEY,
        prepare: |start| {
            start.device.enroll_with(&start.authority)?;
            start.want_at_ethernet("own")
        },
        ..USUAL
    },
    Scenario {
        name: OWN_CERTIFICATE,
        prepare: prepare_own_certificate,
        command: "renew",
        ..USUAL
    },
    Scenario {
        name: OWN_CERTIFICATE_FIRST,
        prepare: |start| {
            start.want_at_ethernet("own")?;
            start.device.succeed(&["provision"])?;
            start.sign_for_networks()
        },
        destination: Destination::Awaiting,
        ..USUAL
    },
    Scenario {
        name: WRAPPED_REPLY,
        prepare: prepare_wrapped_reply,
        ..USUAL
    },
    Scenario {
        name: RESET,
        prepare: |start| {
            prepare_own_certificate(start)?;
            start.device.succeed(&["renew"]).map(drop)
        },
        command: "reset",
        destination: Destination::DoneOrAwaiting,
        ..USUAL
    },
    Scenario {
        name: "storage root key evicted",
        prepare: |start| {
            start.device.enroll_with(&start.authority)?;
            let evict = ["tpm2_evictcontrol", "-c", "0x81000001"];
            start.device.tpm.run(&evict).map(drop)
        },
        command: "provision",
        ..USUAL
    },
    Scenario {
        name: COMES_BACK,
        prepare: |start| {
            prepare_network(start)?;
            let device = &start.device;
            let other = SoftwareTpm::start()?;
            succeed(&mut device.firstboot_at(&other.tcti(), &["provision"])?)?;
            // There is no certificate for the other key: the network goes, too.
            finish(&mut device.firstboot_at(&other.tcti(), &["enroll"])?)?;
            ensure!(
                !device.exists(LIST_OF_NETWORKS),
                "the network is still there"
            );
            Ok(())
        },
        command: "provision",
        ..USUAL
    },
    Scenario {
        name: FLEET,
        prepare: |start| start.device.succeed(&["provision"]).map(drop),
        network: Some(Network::Fleet),
        ..USUAL
    },
    Scenario {
        name: "EST",
        prepare: |start| start.device.succeed(&["provision"]).map(drop),
        network: Some(Network::Est),
        ..USUAL
    },
];

/// The scenario in which a blank device makes its first identity.
pub const PROVISION: &str = "provision";

/// The scenario in which it makes the next one.
pub const AFTER_RESET: &str = "provision after reset";

/// The scenario in which an identity is discarded, and its networks with it.
pub const RESET: &str = "reset";

/// The scenario in which an enrolled identity, which was set aside for another TPM's, is restored, and the other one is
/// set aside.
pub const COMES_BACK: &str = "identity comes back";

/// The scenario in which a reply is opened.
pub const WRAPPED_REPLY: &str = "wrapped reply";

/// The scenario in which the first certificate comes by fleet provisioning.
pub const FLEET: &str = "fleet provisioning";

/// The scenario in which a certificate for the same key is due, and asked for.
pub const KEPT_KEY: &str = "renew, kept key";

/// The scenario in which a certificate for the same key goes into service untried: nobody answers.
pub const UNTRIED: &str = "certificate taken untried";

/// The scenario in which the next identity is made, for a certificate that is due.
pub const NEW_KEY: &str = "renew, new key";

/// The scenario in which the next identity has its certificate, and takes the place of the one in service.
pub const TAKEN_UP: &str = "new key taken up";

/// The scenario in which a certificate that went into service untried is tried, is refused, and makes way for the
/// former one.
pub const KEPT_GIVEN_UP: &str = "kept key given up";

/// The scenario in which an identity that went into service untried, and whose certificate was refused since, changes
/// places with the previous one.
pub const NEW_GIVEN_UP: &str = "new key given up";

/// The scenario in which the previous identity has been kept for long enough.
pub const PREVIOUS_REMOVED: &str = "previous key removed";

/// The scenario in which a certificate for the next identity is accepted, and tried.
pub const TRIED_NEW_KEY: &str = "renew, new key, tried";

/// The scenario in which a network is removed, and another one is configured.
pub const ANOTHER_NETWORK: &str = "another network";

/// The scenario in which the only network is removed.
pub const NO_NETWORK: &str = "no network any more";

/// The scenario in which the networks' own key is made.
pub const OWN_KEY: &str = "own key for networks";

/// The scenario in which the networks' own key gets its certificate.
pub const OWN_CERTIFICATE: &str = "certificate for networks";

/// The scenario in which it gets that before the device has its own.
pub const OWN_CERTIFICATE_FIRST: &str = "certificate for networks first";

/// Which networks are configured.
pub(super) const LIST_OF_NETWORKS: &str = "/etc/wpa_supplicant/firstboot/networks";

/// Puts the certificate for the request onto the card.
fn prepare_enroll(start: &Start) -> Result<()> {
    start.device.succeed(&["provision"])?;
    start.sign(Validity::Now)
}

/// Puts another certificate onto the card of a device that is done.
fn prepare_replacement(start: &Start) -> Result<()> {
    start.device.enroll_with(&start.authority)?;
    start.sign(Validity::Now)
}

/// A device in service with a certificate of this age, which is due for renewal, and a card from which the request has
/// been removed.
fn prepare_due(start: &Start, renewed: &str, age: Validity) -> Result<()> {
    let Start {
        device, servers, ..
    } = start;
    let servers = servers.as_ref().context("nobody accepts a certificate")?;
    device.succeed(&["provision"])?;
    if servers.issue() {
        servers.set_validity(age);
    } else {
        start.sign(age)?;
    }
    device.succeed(&["enroll"])?;
    servers.set_validity(Validity::YOUNG);
    servers.has_seen(&device.read(format!("{STORE}/certificate.pem"))?)?;
    let mut settings: Value = serde_json::from_str(&device.read(SETTINGS)?)?;
    settings["renew"] = json!({ "key": renewed });
    device.settings(&settings)?;
    Ok(std::fs::remove_file(device.request()?)?)
}

/// The same, later: the new certificate has been asked for, and is on the card.
fn prepare_signed(start: &Start, renewed: &str, age: Validity) -> Result<()> {
    prepare_due(start, renewed, age)?;
    start.device.succeed(&["renew"])?;
    start.sign(Validity::YOUNG)
}

/// The same, later: nobody answered, and the new certificate went into service untried. Now AWS IoT Core answers, and
/// refuses it.
fn prepare_refused(start: &Start, renewed: &str) -> Result<()> {
    let Start {
        device, servers, ..
    } = start;
    let servers = servers.as_ref().context("nobody refuses a certificate")?;
    servers.mislead(device)?;
    prepare_signed(start, renewed, Validity::ENDING)?;
    device.renew()?;
    servers.refuse(&device.read(format!("{STORE}/certificate.pem"))?)?;
    servers.direct(device)
}

/// A device that is done, with a network at its Ethernet.
fn prepare_network(start: &Start) -> Result<()> {
    start.want_at_ethernet("same")?;
    start.device.enroll_with(&start.authority)
}

/// A device that is done, with the certificate for its networks' own key on its card.
fn prepare_own_certificate(start: &Start) -> Result<()> {
    start.want_at_ethernet("own")?;
    start.device.enroll_with(&start.authority)?;
    start.sign_for_networks()
}

/// Puts a reply of a provisioning station onto the card. It is for an RSA EK if the device's key is an RSA key, too.
fn prepare_wrapped_reply(start: &Start) -> Result<()> {
    let device = &start.device;
    let station = Station::new()?;
    let mut settings: Value = serde_json::from_str(&device.read(SETTINGS)?)?;
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

impl Start {
    /// Puts the operator's certificate for the request onto the card.
    fn sign(&self, validity: Validity) -> Result<()> {
        let pem = self
            .authority
            .sign_valid(&self.device.request()?, validity)?;
        self.device.drop_certificate(&pem).map(drop)
    }

    /// Puts the certificate for the networks' own key onto the card.
    fn sign_for_networks(&self) -> Result<()> {
        let pem = self.authority.sign(&self.device.network_request()?)?;
        self.device.drop_network_certificate(&pem).map(drop)
    }

    /// Has the settings want a network at its Ethernet, with that of the two keys.
    fn want_at_ethernet(&self, key: &str) -> Result<()> {
        let ca = self.device.boot_file("eap-ca.pem");
        std::fs::write(ca, self.authority.certificate_pem()?)?;
        let wired = json!({ "interface": "eth0", "domain": "radius.example.com", "key": key });
        self.want_networks(json!({ "eap_tls": [wired] }))
    }

    /// Has the settings want these networks.
    fn want_networks(&self, networks: Value) -> Result<()> {
        let mut settings: Value = serde_json::from_str(&self.device.read(SETTINGS)?)?;
        settings["network"] = networks;
        self.device.settings(&settings)
    }
}

impl Scenario {
    /// Its name in the table.
    pub fn name_with(&self, key: KeyType) -> String {
        format!("{}, {}", self.name, key.name())
    }

    /// firstboot's exit status if nothing disturbs it: EX_TEMPFAIL, where enrollment goes on waiting.
    pub(super) fn code(&self) -> i32 {
        match (self.command, self.destination) {
            ("enroll", Destination::Awaiting) => 75,
            _ => 0,
        }
    }

    /// Prepares it: a device at the scenario's start.
    pub fn checkpoint(&self, key: KeyType) -> Result<Checkpoint> {
        self.start(key).map(|(device, _)| device)
    }

    /// The same, and what the servers know by then.
    pub(super) fn start(&self, key: KeyType) -> Result<(Checkpoint, Option<History>)> {
        let authority = Arc::new(Authority::new()?);
        let servers = self
            .network
            .map(|network| Servers::new(network, &authority));
        let start = Start {
            device: Device::unprovisioned()?,
            servers: servers.transpose()?,
            authority,
        };
        match &start.servers {
            Some(servers) => servers.card(&start.device, self.edition, key)?,
            None => start
                .device
                .settings(&offline_settings(self.edition, key))?,
        }
        (self.prepare)(&start)?;
        let history = start.servers.as_ref().map(History::new);
        Ok((Checkpoint::take(start.device)?, history))
    }
}
