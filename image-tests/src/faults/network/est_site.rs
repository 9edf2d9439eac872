//! A double of an EST server behind its relay, and a card for a device that enrolls there.

use std::sync::Arc;

use anyhow::Result;
use serde_json::{Value, json};

use super::relay::Relay;
use crate::clients::KeyType;
use crate::device::{Device, offline_settings};
use crate::doubles::est::{EstServer, Memory, PASSWORD, USERNAME};
use crate::doubles::pki::Authority;
use crate::doubles::tls::Version;

/// The files on the card that a device shows: password, certificate and key.
pub const EST_CLAIM: [&str; 3] = [
    "/boot/firstboot/claim.password",
    "/boot/firstboot/claim.cert.pem",
    "/boot/firstboot/claim.key.pem",
];

/// Whom the device trusts.
pub const EST_CA: &str = "/boot/firstboot/est-ca.pem";

pub struct EstSite {
    pub authority: Arc<Authority>,
    pub server: EstServer,
    pub relay: Relay,
}

impl EstSite {
    /// Continues from the state of another double, behind a relay beside this one.
    pub fn resume(authority: Arc<Authority>, memory: Memory, beside: &Relay) -> Result<Self> {
        let server = EstServer::resume(&authority, Version::Tls13, memory)?;
        let relay = beside.beside(server.port())?;
        server.is_behind(relay.port());
        Ok(Self {
            authority,
            server,
            relay,
        })
    }

    /// Prepares a device's card, but for the settings, as an operator does: whom to trust, password.
    pub fn card(&self, device: &Device) -> Result<()> {
        device.write(EST_CA, self.authority.certificate_pem()?)?;
        device.write(EST_CLAIM[0], PASSWORD)
    }
}

/// Complete settings for EST at a loopback port: without the random wait that spreads a fleet, and trusting the clock,
/// which may not be synchronized on this host.
pub fn est_settings(edition: &str, key: KeyType, port: u16, label: Option<&str>) -> Value {
    let mut settings = offline_settings(edition, key);
    settings["enrollment"] = json!({
        "method": "est",
        "est": {
            "server": format!("localhost:{port}"),
            "label": label.unwrap_or_default(),
            "username": USERNAME,
        },
        "spread_seconds": 0,
        "trust_clock": true,
    });
    settings
}
