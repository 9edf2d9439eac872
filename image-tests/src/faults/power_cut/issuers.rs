//! Who issues certificates in a sweep, AWS IoT Core or an EST server: a double for each point, and how many certificates
//! it may have issued.

use std::sync::Arc;

use anyhow::{Context, Result};

use super::rig::Rig;
use super::scenario::Network;
use crate::clients::KeyType;
use crate::device::{Device, STORE};
use crate::doubles::iot_core::{self, IotCore, Template};
use crate::doubles::pki::Authority;
use crate::doubles::{est, tls};
use crate::faults::network::{CLAIM, Cloud, EST_CLAIM, EstSite, Relay};

/// The edition of Greengrass on all devices that enroll over the network.
const EDITION: &str = "nucleus-lite";

/// A double at which a device enrolls, behind its relay.
pub enum Issuer {
    Aws(Cloud),
    Est(EstSite),
}

/// A double's state.
#[derive(Clone)]
pub enum Memory {
    Aws(iot_core::Memory),
    Est(est::Memory),
}

/// Makes the doubles of all points.
pub struct Issuers {
    key: KeyType,
    authority: Arc<Authority>,
    start: Memory,
    /// The double's state at each point of the recording.
    pub memories: Vec<Memory>,
    /// The number of packets in an undisturbed run, to and from the double.
    pub packets: [usize; 2],
}

impl Issuers {
    pub fn new(network: Network, key: KeyType) -> Result<Self> {
        let authority = Arc::new(Authority::new()?);
        let start = match network {
            Network::Fleet => Memory::Aws(IotCore::start(&authority, aws_options())?.memory()),
            Network::Est => Memory::Est(est::Memory::new(&authority, est::Options::default())?),
        };
        Ok(Self {
            key,
            authority,
            start,
            memories: Vec::new(),
            packets: [0; 2],
        })
    }

    /// A fresh double, and the device's card for it.
    pub fn begin(&self, device: &Device) -> Result<Issuer> {
        let issuer = self.from(&self.start)?;
        match &issuer {
            Issuer::Aws(cloud) => cloud.card(device, EDITION, self.key)?,
            Issuer::Est(site) => site.card(device, EDITION, self.key)?,
        }
        Ok(issuer)
    }

    /// The double as it was at a point of the recording. On the device's card, only the port changes.
    pub fn resume(&self, point: usize, device: &Device) -> Result<Issuer> {
        let issuer = self.from(self.memories.get(point).context("no such point")?)?;
        device.settings(&match &issuer {
            Issuer::Aws(cloud) => cloud.settings(EDITION, self.key),
            Issuer::Est(site) => site.settings(EDITION, self.key),
        })?;
        Ok(issuer)
    }

    fn from(&self, memory: &Memory) -> Result<Issuer> {
        let authority = Arc::clone(&self.authority);
        Ok(match memory {
            Memory::Aws(memory) => Issuer::Aws(Cloud::resume(authority, memory.clone())?),
            Memory::Est(memory) => Issuer::Est(EstSite::resume(
                authority,
                tls::Version::Tls13,
                memory.clone(),
            )?),
        })
    }
}

/// Doubles that refuse a used token, which is the harder of AWS's two possible answers, and whose template names the thing
/// as the settings do.
fn aws_options() -> iot_core::Options {
    let template = Template {
        thing_prefix: "gateway-".into(),
        ..Template::default()
    };
    iot_core::Options {
        templates: vec![template],
        ..iot_core::Options::default()
    }
}

impl Issuer {
    pub fn relay(&self) -> &Relay {
        match self {
            Self::Aws(cloud) => &cloud.relay,
            Self::Est(site) => &site.relay,
        }
    }

    pub fn memory(&self) -> Memory {
        match self {
            Self::Aws(cloud) => Memory::Aws(cloud.core.memory()),
            Self::Est(site) => Memory::Est(site.server.memory()),
        }
    }

    /// The number of certificates issued.
    fn issued(&self) -> usize {
        match self {
            Self::Aws(cloud) => cloud.core.counts().created,
            Self::Est(site) => site.server.counts().issued,
        }
    }

    /// Whether what the conversation has left shows that the device has received a certificate.
    fn was_heard(&self, device: &Device) -> bool {
        let at = |name: &str| format!("{STORE}/{name}");
        match self {
            Self::Aws(_) => ["ownership.json", "registration.json", "certificate.pem"]
                .iter()
                .any(|name| device.exists(at(name))),
            Self::Est(_) => {
                let note = device.read(at("est.json")).unwrap_or_default();
                note.contains("-----BEGIN") || device.exists(at("certificate.pem"))
            }
        }
    }

    /// The files of the claim.
    fn claim(&self) -> &'static [&'static str] {
        match self {
            Self::Aws(_) => &CLAIM,
            Self::Est(_) => &EST_CLAIM,
        }
    }
}

impl Rig {
    /// How many certificates there have to be in the end, now that the power is off and the double has handled
    /// everything: those issued so far, and one more if the device has not durably received one. A second one is right
    /// only if the first one's answer was lost or not yet durable.
    pub fn certificates_expected(&self) -> Result<usize> {
        let Some(issuer) = &self.issuer else {
            return Ok(0);
        };
        issuer.relay().settle()?;
        issuer.relay().reset();
        Ok(issuer.issued() + usize::from(!issuer.was_heard(&self.device)))
    }

    /// The number of certificates issued.
    pub fn certificates(&self) -> usize {
        self.issuer.as_ref().map_or(0, Issuer::issued)
    }

    /// Adds what is wrong with the certificates, once the device is done.
    pub fn compare_certificates(&self, expected: usize, wrong: &mut Vec<String>) -> Result<()> {
        let Some(issuer) = &self.issuer else {
            return Ok(());
        };
        if issuer.issued() != expected || expected > 2 {
            wrong.push(format!(
                "{} certificates instead of {expected}",
                issuer.issued()
            ));
        }
        let own = self.device.read(format!("{STORE}/certificate.pem"))?;
        match issuer {
            Issuer::Aws(cloud) => self.compare_registry(cloud, &own, wrong),
            Issuer::Est(site) => {
                let issued = site.server.issued();
                if !issued.last().is_some_and(|last| own.starts_with(last)) {
                    wrong.push("the device's certificate is not the last one".to_owned());
                }
                wrong.extend(site.server.complaints());
            }
        }
        for path in issuer.claim() {
            if self.device.exists(path) {
                wrong.push(format!("left on the card: {path}"));
            }
        }
        Ok(())
    }

    fn compare_registry(&self, cloud: &Cloud, own: &str, wrong: &mut Vec<String>) {
        let registry = cloud.core.registry();
        let counts = registry.counts();
        if (counts.active, counts.things) != (1, 1) {
            wrong.push(format!(
                "not one active certificate of one thing: {counts:?}"
            ));
        }
        let active = registry
            .certificates()
            .find(|certificate| certificate.pem.trim() == own.trim());
        if active.is_none_or(|active| active.thing.is_none()) {
            wrong.push("the device's certificate is not the registered one".to_owned());
        }
        if self.device.exists(format!("{STORE}/ownership.json")) {
            wrong.push("the ownership token was left behind".to_owned());
        }
    }
}
