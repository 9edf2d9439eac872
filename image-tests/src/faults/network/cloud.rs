//! The fixture of most fleet tests: the double behind its relay, and a card for a device that enrolls there.

use std::sync::Arc;

use anyhow::Result;
use serde_json::{Value, json};

use super::relay::Relay;
use crate::clients::KeyType;
use crate::device::{Device, offline_settings};
use crate::doubles::iot_core::{IotCore, Memory, Options};
use crate::doubles::pki::Authority;

/// The claim pair on the card: certificate and key.
pub const CLAIM: [&str; 2] = [
    "/boot/firstboot/claim.cert.pem",
    "/boot/firstboot/claim.key.pem",
];

pub struct Cloud {
    /// "Amazon Root CA".
    pub root: Arc<Authority>,
    pub core: IotCore,
    pub relay: Relay,
}

impl Cloud {
    pub fn new() -> Result<Self> {
        Self::with(Options::default())
    }

    pub fn with(options: Options) -> Result<Self> {
        let root = Arc::new(Authority::new()?);
        let core = IotCore::start(&root, options)?;
        Self::before(root, core)
    }

    /// The operator's CA is registered.
    pub fn with_ca_of(operator: &Authority) -> Result<Self> {
        let ca = operator.certificate_pem()?;
        Self::with(Options {
            registered: vec![ca.clone()],
            trusted: vec![ca],
            ..Options::default()
        })
    }

    /// Continues from the state of another double.
    pub fn resume(root: Arc<Authority>, memory: Memory) -> Result<Self> {
        let core = IotCore::resume(&root, memory)?;
        Self::before(root, core)
    }

    /// With a given double.
    pub fn before(root: Arc<Authority>, core: IotCore) -> Result<Self> {
        let relay = Relay::start(core.port())?;
        Ok(Self { root, core, relay })
    }

    /// Settings for enrolling here: without the random wait that spreads a fleet, and trusting the clock, which may not
    /// be synchronized on this host.
    pub fn settings(&self, edition: &str, key: KeyType) -> Value {
        fleet_settings(edition, key, self.relay.port())
    }

    /// Settings for offline enrollment of a device that connects here, without the relay, and trusts the clock.
    pub fn offline_settings(&self, edition: &str, key: KeyType) -> Value {
        let mut settings = offline_settings(edition, key);
        settings["greengrass"]["iot_data_endpoint"] = json!("localhost");
        settings["enrollment"]["port"] = json!(self.core.port());
        settings["enrollment"]["trust_clock"] = json!(true);
        settings
    }

    /// Prepares a device's card as an operator does: settings, root certificate, claim pair.
    pub fn card(&self, device: &Device, edition: &str, key: KeyType) -> Result<()> {
        device.settings(&self.settings(edition, key))?;
        device.write("/boot/firstboot/root-ca.pem", self.root.certificate_pem()?)?;
        for (path, pem) in CLAIM.iter().zip(self.core.claim()) {
            device.write(path, pem)?;
        }
        Ok(())
    }
}

/// Complete settings for fleet provisioning at a loopback port.
pub fn fleet_settings(edition: &str, key: KeyType, port: u16) -> Value {
    let mut settings = offline_settings(edition, key);
    settings["greengrass"]["iot_data_endpoint"] = json!("localhost");
    settings["enrollment"] = json!({
        "method": "fleet-provisioning",
        "template_name": "gateways",
        "template_parameters": { "SerialNumber": "${serial}" },
        "port": port,
        "spread_seconds": 0,
        "trust_clock": true,
    });
    settings
}
