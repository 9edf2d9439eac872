//! The double with the relay before it, and a device's card made for it: what most tests start from.

use std::sync::Arc;

use anyhow::Result;
use serde_json::{Value, json};

use super::relay::Relay;
use crate::clients::KeyType;
use crate::device::{Device, offline_settings};
use crate::doubles::iot_core::{IotCore, Memory, Options};
use crate::doubles::pki::Authority;

/// Where the operator puts the claim pair.
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

    /// Goes on from what another one's double knew.
    pub fn resume(root: Arc<Authority>, memory: Memory) -> Result<Self> {
        let core = IotCore::resume(&root, memory)?;
        Self::before(root, core)
    }

    /// With a double of the test's making.
    pub fn before(root: Arc<Authority>, core: IotCore) -> Result<Self> {
        let relay = Relay::start(core.port())?;
        Ok(Self { root, core, relay })
    }

    /// Settings for enrolling here, without the waiting that many devices need, and with a clock that this
    /// machine may not have synchronised.
    pub fn settings(&self, edition: &str, key: KeyType) -> Value {
        fleet_settings(edition, key, self.relay.port())
    }

    /// A card as the operator hands it out: settings, root certificate, claim pair.
    pub fn card(&self, device: &Device, edition: &str, key: KeyType) -> Result<()> {
        device.settings(&self.settings(edition, key))?;
        device.write("/boot/firstboot/root-ca.pem", self.root.certificate_pem()?)?;
        for (path, pem) in CLAIM.iter().zip(self.core.claim()) {
            device.write(path, pem)?;
        }
        Ok(())
    }
}

/// Complete settings for fleet provisioning at a port of the loopback.
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
