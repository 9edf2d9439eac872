//! The setting `renew`: a new certificate for a device in service, perhaps for a new key.

mod beside;
mod cmp;
mod due;
mod new_key;
mod status;
mod trial;

use anyhow::{Context, Result};
use image_tests::clients::KeyType;
use image_tests::device::{Device, NEXT, PREVIOUS, STORE, Snapshot};
use image_tests::doubles::clock::{ClockDouble, DAY};
use image_tests::doubles::iot_core::{Options, certificate_id};
use image_tests::doubles::pki::{Authority, Validity};
use image_tests::faults::network::Cloud;
use serde_json::{Value, json};

use crate::thing_name;

/// A device in service, whose certificate is due for renewal, and AWS IoT Core.
pub struct Due {
    pub device: Device,
    /// Its certificates are registered.
    authority: Authority,
    /// AWS IoT Core knows it, and none of its certificates is registered.
    stranger: Authority,
    cloud: Cloud,
    pub settings: Value,
}

impl Due {
    /// With renewals of this key.
    fn new(edition: &str, key: KeyType, renewed: &str) -> Result<Self> {
        Self::of_age(edition, key, renewed, Validity::DUE)
    }

    /// With a certificate of this age.
    fn of_age(edition: &str, key: KeyType, renewed: &str, validity: Validity) -> Result<Self> {
        let device = Device::unprovisioned()?;
        let (authority, stranger) = (Authority::new()?, Authority::new()?);
        let cas = [authority.certificate_pem()?, stranger.certificate_pem()?];
        let cloud = Cloud::with(Options {
            registered: vec![cas[0].clone()],
            trusted: cas.to_vec(),
            ..Options::default()
        })?;
        let mut settings = cloud.offline_settings(edition, key);
        device.settings(&settings)?;
        let root = cloud.root.certificate_pem()?;
        device.write("/boot/firstboot/root-ca.pem", root)?;
        device.succeed(&["provision"])?;
        let pem = authority.sign_valid(&device.request()?, validity)?;
        device.drop_certificate(&pem)?;
        device.succeed(&["enroll"])?;
        cloud.core.has_seen(&certificate_id(&pem)?, &thing_name());
        settings["renew"] = json!({ "key": renewed });
        device.settings(&settings)?;
        Ok(Self {
            device,
            authority,
            stranger,
            cloud,
            settings,
        })
    }

    /// With a new key, for which a certificate has been asked.
    pub fn asked(edition: &str, key: KeyType) -> Result<Self> {
        let due = Self::new(edition, key, "new")?;
        due.device.succeed(&["renew"])?;
        Ok(due)
    }

    /// From now on, AWS IoT Core is at this port.
    fn at(&mut self, port: u16) -> Result<()> {
        self.settings["enrollment"]["port"] = json!(port);
        self.device.settings(&self.settings)
    }

    /// It answers again.
    fn back(&mut self) -> Result<()> {
        self.at(self.cloud.core.port())
    }

    /// From now on, the stranger's certificates are registered, too.
    fn register_stranger(&mut self) -> Result<()> {
        let cas = [
            self.authority.certificate_pem()?,
            self.stranger.certificate_pem()?,
        ];
        self.cloud = Cloud::with(Options {
            registered: cas.to_vec(),
            trusted: cas.to_vec(),
            ..Options::default()
        })?;
        let root = self.cloud.root.certificate_pem()?;
        self.device.write("/boot/firstboot/root-ca.pem", root)?;
        self.back()?;
        self.device.succeed(&["enroll"]).map(drop)
    }

    /// Puts a certificate onto the card that AWS IoT Core accepts.
    pub fn certify(&self) -> Result<String> {
        self.certify_by(&self.authority)
    }

    /// The same with one that is due itself: another key is made after it.
    pub fn certify_due(&self) -> Result<String> {
        self.certify_with(&self.authority, Validity::DUE)
    }

    fn certify_by(&self, authority: &Authority) -> Result<String> {
        self.certify_with(authority, Validity::YOUNG)
    }

    fn certify_with(&self, authority: &Authority, validity: Validity) -> Result<String> {
        let pem = authority.sign_valid(&self.device.request()?, validity)?;
        self.device.drop_certificate(&pem)?;
        Ok(pem)
    }

    /// What firstboot-renew.service does; returns whether Greengrass was stopped for it.
    pub fn renew(&self) -> Result<bool> {
        self.device.renew()
    }

    fn is_due(&self) -> Result<bool> {
        let before = self.device.snapshot()?;
        let is_due = self.device.is_due()?;
        before.assert_same(&self.device.snapshot()?);
        Ok(is_due)
    }

    /// What a running Greengrass uses.
    fn in_service(&self) -> Result<Snapshot> {
        let all = self.device.snapshot()?;
        let own = ["asked.json", "tried.json"].map(|name| format!("{STORE}/{name}"));
        Ok(["/boot", "/run", NEXT, PREVIOUS]
            .into_iter()
            .map(str::to_owned)
            .chain(own)
            .fold(all, |all, path| all.without(path)))
    }

    fn configuration(&self) -> Result<Snapshot> {
        let all = self.device.snapshot()?;
        Ok(["/boot", "/run", "/var"]
            .iter()
            .fold(all, |all, path| all.without(path)))
    }

    fn accepted(&self) -> Result<String> {
        self.device.read(format!("{STORE}/certificate.pem"))
    }

    fn key(&self, place: &str) -> Result<String> {
        self.device.key_sha256(place)
    }

    fn message(&self) -> Result<String> {
        let status = self.device.status()?;
        Ok(status["message"].as_str().context("no message")?.to_owned())
    }

    /// What came of the latest request, by `status.json`.
    fn result(&self) -> Result<Value> {
        Ok(self.device.status()?["renewal"]["last_request"]["result"].clone())
    }

    /// The names on the card, with a short one for the thing's.
    fn card(&self) -> Result<Vec<String>> {
        let names = self.device.names_on_card()?;
        let shorten = |name: String| name.replace(&thing_name(), "thing");
        Ok(names.into_iter().map(shorten).collect())
    }

    /// The device's clock is this many days ahead from now on.
    fn wait(&mut self, days: u32) -> Result<()> {
        self.device.clock = Some(ClockDouble::ahead(DAY * days)?);
        Ok(())
    }
}
