//! Whom the device meets over the network in a sweep: doubles of their own for each point, and what they know of the
//! device in the end.

use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::rig::Rig;
use super::scenario::{Network, SETTINGS};
use crate::clients::{KeyType, mosquitto, pkcs11_tool};
use crate::device::{Device, NEXT, PREVIOUS, SERIAL, STORE, offline_settings};
use crate::doubles::est;
use crate::doubles::iot_core::{self, IotCore, Renewing, Template, certificate_id};
use crate::doubles::pki::{Authority, Validity};
use crate::faults::network::{
    CLAIM, Cloud, EST_CLAIM, EstSite, Relay, est_settings, fleet_settings,
};
use crate::ports::NOBODY;

/// AWS IoT Core, and perhaps an EST server, behind relays of one network.
pub struct Servers {
    network: Network,
    cloud: Cloud,
    est: Option<EstSite>,
    /// The certificates that were issued before the scenario's start, PEM.
    before: Vec<String>,
}

/// The doubles' state.
#[derive(Clone)]
pub struct Memory {
    aws: iot_core::Memory,
    est: Option<est::Memory>,
}

/// What the servers of a scenario knew at each moment, from which those of a point continue.
pub struct History {
    network: Network,
    authority: Arc<Authority>,
    start: Memory,
    before: Vec<String>,
    /// Their state at each point of the recording.
    pub memories: Vec<Memory>,
    /// The number of packets in an undisturbed run, to and from them.
    pub packets: [usize; 2],
}

impl Servers {
    /// New ones. The authority certifies them, is the EST server's CA, and is registered with AWS IoT Core.
    pub fn new(network: Network, authority: &Arc<Authority>) -> Result<Self> {
        let cloud = Cloud::before(
            Arc::clone(authority),
            IotCore::start(authority, aws_options(authority)?)?,
        )?;
        let est = (network == Network::Est).then(|| {
            let memory = est::Memory::new(authority, est::Options::default())?;
            EstSite::resume(Arc::clone(authority), memory, &cloud.relay)
        });
        Ok(Self {
            network,
            est: est.transpose()?,
            cloud,
            before: Vec::new(),
        })
    }

    /// Prepares a device's card as an operator does.
    pub fn card(&self, device: &Device, edition: &str, key: KeyType) -> Result<()> {
        // Ports follow.
        let mut settings = match self.network {
            Network::Fleet => fleet_settings(edition, key, NOBODY),
            Network::Est => est_settings(edition, key, NOBODY, None),
            Network::Trials | Network::Unreachable => offline_settings(edition, key),
        };
        settings["greengrass"]["iot_data_endpoint"] = json!("localhost");
        settings["enrollment"]["trust_clock"] = json!(true);
        device.settings(&settings)?;
        self.direct(device)?;
        let root = self.cloud.root.certificate_pem()?;
        device.write("/boot/firstboot/root-ca.pem", root)?;
        if self.network == Network::Fleet {
            for (path, pem) in CLAIM.iter().zip(self.cloud.core.claim()) {
                device.write(path, pem)?;
            }
        }
        self.est.as_ref().map_or(Ok(()), |site| site.card(device))
    }

    /// Leads the device here: on its card, only ports change.
    pub fn direct(&self, device: &Device) -> Result<()> {
        let aws = match self.network {
            Network::Unreachable => NOBODY,
            _ => self.cloud.relay.port(),
        };
        self.lead(device, aws)
    }

    /// Leads it to where AWS IoT Core does not answer.
    pub fn mislead(&self, device: &Device) -> Result<()> {
        self.lead(device, NOBODY)
    }

    fn lead(&self, device: &Device, aws: u16) -> Result<()> {
        let mut settings: Value = serde_json::from_str(&device.read(SETTINGS)?)?;
        settings["enrollment"]["port"] = json!(aws);
        if let Some(site) = &self.est {
            let server = format!("localhost:{}", site.relay.port());
            settings["enrollment"]["est"]["server"] = json!(server);
        }
        device.settings(&settings)
    }

    /// Certificates are valid then from now on.
    pub fn set_validity(&self, validity: Validity) {
        match &self.est {
            Some(site) => site.server.set_validity(validity),
            None => self.cloud.core.set_validity(validity),
        }
    }

    /// As if Greengrass had connected with this certificate, which is of the registered CA.
    pub fn has_seen(&self, pem: &str) -> Result<()> {
        self.cloud
            .core
            .has_seen(&certificate_id(pem)?, &thing_name());
        Ok(())
    }

    /// As if this certificate, which is of the registered CA, were another thing's: this one may not connect with it.
    pub fn refuse(&self, pem: &str) -> Result<()> {
        let another = "another-thing";
        self.cloud.core.has_seen(&certificate_id(pem)?, another);
        Ok(())
    }

    /// The relays count and cut together.
    pub fn relay(&self) -> &Relay {
        &self.cloud.relay
    }

    pub fn memory(&self) -> Memory {
        Memory {
            aws: self.cloud.core.memory(),
            est: self.est.as_ref().map(|site| site.server.memory()),
        }
    }

    /// All certificates that they have issued, PEM.
    fn all_issued(&self) -> Vec<String> {
        match &self.est {
            Some(site) => site.server.issued(),
            None => {
                let registry = self.cloud.core.registry();
                registry.certificates().map(|c| c.pem.clone()).collect()
            }
        }
    }

    /// Those issued since the scenario's start.
    fn issued(&self) -> Vec<String> {
        let mut issued = self.all_issued();
        issued.retain(|pem| !self.before.contains(pem));
        issued
    }

    /// Whether they issue certificates: otherwise these come on the boot partition.
    pub fn issue(&self) -> bool {
        matches!(self.network, Network::Fleet | Network::Est)
    }

    /// Whether what the conversation has left shows that the device has received one of these certificates.
    fn was_heard(device: &Device, issued: &[String]) -> bool {
        let kept = [
            "ownership.json",
            "registration.json",
            "est.json",
            "certificate.pem",
        ];
        [STORE, NEXT, PREVIOUS].iter().any(|place| {
            kept.iter().any(|name| {
                let text = device.read(format!("{place}/{name}")).unwrap_or_default();
                // In JSON, line breaks are escaped.
                let text = text.replace("\\n", "\n");
                issued.iter().any(|pem| text.contains(pem.trim()))
            })
        })
    }

    /// The files of the claim.
    fn claim(&self) -> &'static [&'static str] {
        match self.network {
            Network::Fleet => &CLAIM,
            Network::Est => &EST_CLAIM,
            Network::Trials | Network::Unreachable => &[],
        }
    }
}

impl History {
    /// It begins now.
    pub fn new(servers: &Servers) -> Self {
        Self {
            network: servers.network,
            authority: Arc::clone(&servers.cloud.root),
            start: servers.memory(),
            before: servers.all_issued(),
            memories: Vec::new(),
            packets: [0; 2],
        }
    }

    /// The servers as they were at the scenario's start, for a device that is there.
    pub fn begin(&self, device: &Device) -> Result<Servers> {
        self.servers(&self.start, device)
    }

    /// The servers as they were at a point of the recording.
    pub fn resume(&self, point: usize, device: &Device) -> Result<Servers> {
        self.servers(self.memories.get(point).context("no such point")?, device)
    }

    fn servers(&self, memory: &Memory, device: &Device) -> Result<Servers> {
        let cloud = Cloud::resume(Arc::clone(&self.authority), memory.aws.clone())?;
        let est = memory
            .est
            .clone()
            .map(|memory| EstSite::resume(Arc::clone(&self.authority), memory, &cloud.relay));
        let servers = Servers {
            network: self.network,
            est: est.transpose()?,
            cloud,
            before: self.before.clone(),
        };
        servers.direct(device)?;
        Ok(servers)
    }
}

/// AWS IoT Core that refuses a used token, which is the harder of its two possible answers, whose template names the
/// thing as the settings do, and which lets devices renew.
fn aws_options(authority: &Authority) -> Result<iot_core::Options> {
    let template = Template {
        thing_prefix: "gateway-".into(),
        ..Template::default()
    };
    let ca = authority.certificate_pem()?;
    Ok(iot_core::Options {
        templates: vec![template],
        registered: vec![ca.clone()],
        trusted: vec![ca],
        renewing: Renewing::Allowed,
        ..iot_core::Options::default()
    })
}

/// The name of the device's thing.
pub(super) fn thing_name() -> String {
    format!("gateway-{SERIAL}")
}

impl Rig {
    /// How many certificates there have to be in the end, now that the power is off and the doubles have handled
    /// everything: those issued so far, and one more if the device has not durably received one. A second one is right
    /// only if the first one's answer was lost or not yet durable.
    pub fn certificates_expected(&self) -> Result<usize> {
        let Some(servers) = &self.servers else {
            return Ok(0);
        };
        servers.relay().settle()?;
        servers.relay().reset();
        if !servers.issue() {
            return Ok(0);
        }
        let issued = servers.issued();
        Ok(issued.len() + usize::from(!Servers::was_heard(&self.device, &issued)))
    }

    /// The number of certificates issued since the scenario's start.
    pub fn certificates(&self) -> usize {
        self.servers
            .as_ref()
            .map_or(0, |servers| servers.issued().len())
    }

    /// Adds what is wrong with the certificates, once the device is done, by what the servers say.
    pub fn compare_certificates(
        &self,
        expected: usize,
        key: KeyType,
        wrong: &mut Vec<String>,
    ) -> Result<()> {
        let Some(servers) = &self.servers else {
            return Ok(());
        };
        let issued = servers.issued();
        if issued.len() != expected || expected > 2 {
            wrong.push(format!(
                "{} certificates instead of {expected}",
                issued.len()
            ));
        }
        let own = self.device.read(format!("{STORE}/certificate.pem"))?;
        match (&servers.est, servers.network) {
            (Some(site), _) => {
                if !issued.last().is_some_and(|last| own.starts_with(last)) {
                    wrong.push("the device's certificate is not the last one".to_owned());
                }
                wrong.extend(site.server.complaints());
            }
            (None, Network::Fleet) => self.compare_registry(servers, &own, wrong),
            (None, _) => {}
        }
        for path in servers.claim() {
            if self.device.exists(path) {
                wrong.push(format!("left on the card: {path}"));
            }
        }
        self.connect(&servers.cloud, key, &own, wrong)
    }

    fn compare_registry(&self, servers: &Servers, own: &str, wrong: &mut Vec<String>) {
        let registry = servers.cloud.core.registry();
        let counts = registry.counts();
        // A renewal deactivates nothing.
        if (counts.active, counts.things) != (servers.before.len() + 1, 1) {
            wrong.push(format!(
                "not one more active certificate of one thing: {counts:?}"
            ));
        }
        let active = registry
            .certificates()
            .find(|certificate| certificate.pem.trim() == own.trim());
        if active.is_none_or(|active| active.thing.is_none()) {
            wrong.push("the device's certificate is not the registered one".to_owned());
        }
        for place in [STORE, NEXT, PREVIOUS] {
            if self.device.exists(format!("{place}/ownership.json")) {
                wrong.push(format!("the ownership token was left behind in {place}"));
            }
        }
    }

    /// Greengrass connects with the key and the certificate that it reads, which has to be the accepted one.
    fn connect(
        &self,
        cloud: &Cloud,
        key: KeyType,
        accepted: &str,
        wrong: &mut Vec<String>,
    ) -> Result<()> {
        let files = tempfile::tempdir()?;
        let read = files.path().join("certificate.pem");
        cloud.core.take_events()?;
        let connected = self.with_identity(key, |identity| {
            if self.reads_token()? {
                pkcs11_tool::read_certificate(identity, &read)?;
            } else {
                std::fs::copy(self.device.path(format!("{STORE}/certificate.pem")), &read)?;
            }
            let root = cloud.root.certificate_path();
            let publish = || {
                let (uri, port) = (identity.uri("private"), cloud.core.port());
                mosquitto::publish(identity, &uri, &read, &root, port, &thing_name())
            };
            // AWS IoT Core closes the first connection with a registered CA's certificate, to register that.
            publish().or_else(|_| publish())
        });
        let let_in = cloud.core.take_events()?.let_in();
        if let Err(e) = connected {
            wrong.push(format!("Greengrass cannot connect: {e:#}"));
        } else if let_in != [certificate_id(accepted)?] {
            wrong.push(format!(
                "Greengrass was let in with {let_in:?}, which is not the accepted certificate"
            ));
        }
        Ok(())
    }
}
