//! A network that asks who connects to it, on one end of a virtual cable: a real hostapd as the switch's port, with its
//! own EAP server or in front of a real FreeRADIUS.

mod freeradius;
mod hostapd;

use std::path::Path;

use anyhow::Result;

use super::pki::Pair;
use super::tls::Version;
use crate::namespaces::ip;

pub use freeradius::FreeRadius;
pub use hostapd::Hostapd;

/// Who decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// hostapd's own EAP server.
    Hostapd,
    FreeRadius,
}

/// What the EAP server shows, and what it accepts.
#[derive(Debug, Clone, Copy)]
pub struct Policy<'a> {
    /// Its certificate and key.
    pub pair: &'a Pair,
    /// The CA of the devices that it lets in.
    pub devices: &'a Path,
    /// The only version that it speaks.
    pub version: Version,
}

/// A port of a switch: what is at the other end of the cable gets in as soon as it has authenticated.
pub struct Port {
    pub hostapd: Hostapd,
    /// Ends after its client.
    _radius: Option<FreeRadius>,
}

impl Port {
    /// Starts it at this interface, in a network namespace of its own.
    pub fn open(interface: &str, server: Server, policy: Policy<'_>) -> Result<Self> {
        let radius = match server {
            Server::Hostapd => None,
            Server::FreeRadius => Some(FreeRadius::start(policy)?),
        };
        let hostapd = match &radius {
            None => Hostapd::with_own_server(interface, policy)?,
            Some(radius) => Hostapd::with_radius(interface, radius)?,
        };
        Ok(Self {
            hostapd,
            _radius: radius,
        })
    }
}

/// Lays a cable between two new interfaces.
pub fn lay_cable(here: &str, there: &str) -> Result<()> {
    ip(&["link", "add", here, "type", "veth", "peer", "name", there])?;
    ip(&["link", "set", here, "up"])?;
    ip(&["link", "set", there, "up"])
}
