//! AWS IoT Core in a sweep: a double for each point, and how many certificates it may have issued.

use std::sync::Arc;

use anyhow::{Context, Result};

use super::rig::Rig;
use crate::clients::KeyType;
use crate::device::{Device, STORE};
use crate::doubles::iot_core::{IotCore, Memory, Options, Template};
use crate::doubles::pki::Authority;
use crate::faults::network::{CLAIM, Cloud};

/// Files that the conversation leaves. Any of them shows that the device has received a certificate.
const RECEIVED: [&str; 3] = ["ownership.json", "registration.json", "certificate.pem"];

/// Makes the doubles of all points.
pub struct Clouds {
    key: KeyType,
    root: Arc<Authority>,
    start: Memory,
    /// The double's state at each point of the recording.
    pub memories: Vec<Memory>,
    /// The number of packets in an undisturbed run, to and from AWS IoT Core.
    pub packets: [usize; 2],
}

impl Clouds {
    /// Doubles that refuse a used token, which is the harder of AWS's two possible answers, and whose template names
    /// the thing as the settings do.
    pub fn new(key: KeyType) -> Result<Self> {
        let root = Arc::new(Authority::new()?);
        let template = Template {
            thing_prefix: "gateway-".into(),
            ..Template::default()
        };
        let options = Options {
            templates: vec![template],
            ..Options::default()
        };
        Ok(Self {
            key,
            start: IotCore::start(&root, options)?.memory(),
            root,
            memories: Vec::new(),
            packets: [0; 2],
        })
    }

    /// A fresh double, and the device's card for it.
    pub fn begin(&self, device: &Device) -> Result<Cloud> {
        let cloud = Cloud::resume(Arc::clone(&self.root), self.start.clone())?;
        cloud.card(device, "nucleus-lite", self.key)?;
        Ok(cloud)
    }

    /// The double as it was at a point of the recording. On the device's card, only the port changes.
    pub fn resume(&self, point: usize, device: &Device) -> Result<Cloud> {
        let memory = self.memories.get(point).context("no such point")?;
        let cloud = Cloud::resume(Arc::clone(&self.root), memory.clone())?;
        device.settings(&cloud.settings("nucleus-lite", self.key))?;
        Ok(cloud)
    }
}

impl Rig {
    /// How many certificates there have to be in the end, now that the power is off and the broker has handled
    /// everything: those issued so far, and one more if the device has not durably received one. A second one is right
    /// only if the first one's answer was lost or not yet durable.
    pub fn certificates_expected(&self) -> Result<usize> {
        let Some(cloud) = &self.cloud else {
            return Ok(0);
        };
        cloud.relay.settle()?;
        cloud.relay.reset();
        let received = RECEIVED
            .iter()
            .any(|name| self.device.exists(format!("{STORE}/{name}")));
        Ok(cloud.core.counts().created + usize::from(!received))
    }

    /// The number of certificates issued.
    pub fn certificates(&self) -> usize {
        self.cloud
            .as_ref()
            .map_or(0, |cloud| cloud.core.counts().created)
    }

    /// Adds what is wrong with the certificates, once the device is done.
    pub fn compare_certificates(&self, expected: usize, wrong: &mut Vec<String>) -> Result<()> {
        let Some(cloud) = &self.cloud else {
            return Ok(());
        };
        let registry = cloud.core.registry();
        let counts = registry.counts();
        if (counts.created, counts.active, counts.things) != (expected, 1, 1) || expected > 2 {
            wrong.push(format!(
                "{expected} certificates and one active: {counts:?}"
            ));
        }
        let own = self.device.read(format!("{STORE}/certificate.pem"))?;
        let active = registry
            .certificates()
            .find(|certificate| certificate.pem.trim() == own.trim());
        if active.is_none_or(|active| active.thing.is_none()) {
            wrong.push("the device's certificate is not the registered one".to_owned());
        }
        for path in CLAIM {
            if self.device.exists(path) {
                wrong.push(format!("left on the card: {path}"));
            }
        }
        if self.device.exists(format!("{STORE}/ownership.json")) {
            wrong.push("the ownership token was left behind".to_owned());
        }
        Ok(())
    }
}
