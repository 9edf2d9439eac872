//! A device whose certificate is due for renewal, and whoever issues the next one.

use std::sync::Arc;

use anyhow::{Context, Result};
use image_tests::clients::{KeyType, mosquitto};
use image_tests::device::{Device, NEXT, Outcome, STORE};
use image_tests::doubles::est::{self, EstServer, PASSWORD};
use image_tests::doubles::iot_core::{self, Memory, Renewing, Subject, Template, certificate_id};
use image_tests::doubles::pki::aws::AwsCa;
use image_tests::doubles::pki::{Authority, Validity};
use image_tests::doubles::tls::Version;
use image_tests::faults::network::{Cloud, EST_CA, EST_CLAIM, est_settings, fleet_settings};
use serde_json::{Value, json};

use crate::thing;

/// The claim pair that is kept for renewals: certificate and key.
pub const KEPT_CLAIM: [&str; 2] = [
    "/var/lib/firstboot/claim.cert.pem",
    "/var/lib/firstboot/claim.key.pem",
];

/// A device in service, whose certificate is due for renewal.
pub struct Due {
    pub device: Device,
    pub key: KeyType,
    pub cloud: Cloud,
    /// With EST, who issues.
    pub est: Option<(Arc<Authority>, EstServer)>,
    /// Offline, who signs.
    operator: Option<Authority>,
    pub settings: Value,
}

impl Due {
    /// nucleus lite's, by fleet provisioning, from a template that names things with this prefix.
    pub fn by_fleet(key: KeyType, renewed: &str, renewing: Renewing, prefix: &str) -> Result<Self> {
        Self::fleet("nucleus-lite", key, renewed, renewing, prefix)
    }

    /// The same with another edition.
    pub fn fleet(
        edition: &str,
        key: KeyType,
        renewed: &str,
        renewing: Renewing,
        prefix: &str,
    ) -> Result<Self> {
        let cloud = Cloud::with(iot_core::Options {
            templates: vec![Template {
                thing_prefix: prefix.into(),
                ..Template::default()
            }],
            subject: Subject::Requested,
            renewing,
            ..iot_core::Options::default()
        })?;
        let device = Device::unprovisioned()?;
        cloud.card(&device, edition, key)?;
        let mut settings = fleet_settings(edition, key, cloud.core.port());
        settings["renew"] = json!({ "key": renewed });
        device.settings(&settings)?;
        cloud.core.set_validity(Validity::DUE);
        device.succeed(&["enroll"])?;
        cloud.core.set_validity(Validity::YOUNG);
        cloud.core.take_events()?;
        Ok(Self {
            device,
            key,
            cloud,
            est: None,
            operator: None,
            settings,
        })
    }

    /// nucleus lite's, by EST, from a CA that is registered with AWS IoT Core.
    pub fn by_est(key: KeyType, renewed: &str, options: est::Options) -> Result<Self> {
        Self::est("nucleus-lite", key, renewed, options)
    }

    /// The same with another edition.
    pub fn est(edition: &str, key: KeyType, renewed: &str, options: est::Options) -> Result<Self> {
        let authority = Arc::new(Authority::new()?);
        let cloud = Cloud::with_ca_of(&authority)?;
        let server = EstServer::start(&authority, Version::Tls13, options)?;
        let device = Device::unprovisioned()?;
        let mut settings = est_settings(edition, key, server.port(), None);
        settings["greengrass"]["iot_data_endpoint"] = json!("localhost");
        settings["enrollment"]["port"] = json!(cloud.core.port());
        settings["renew"] = json!({ "key": renewed });
        device.settings(&settings)?;
        device.write("/boot/firstboot/root-ca.pem", cloud.root.certificate_pem()?)?;
        device.write(EST_CA, authority.certificate_pem()?)?;
        device.write(EST_CLAIM[0], PASSWORD)?;
        server.set_validity(Validity::DUE);
        device.succeed(&["enroll"])?;
        server.set_validity(Validity::YOUNG);
        let due = Self {
            device,
            key,
            cloud,
            est: Some((authority, server)),
            operator: None,
            settings,
        };
        due.cloud.core.has_seen(&due.id()?, &thing());
        Ok(due)
    }

    /// Offline, by an operator whose CA is registered with AWS IoT Core.
    pub fn offline(edition: &str, key: KeyType, renewed: &str) -> Result<Self> {
        let operator = Authority::new()?;
        let cloud = Cloud::with_ca_of(&operator)?;
        let device = Device::unprovisioned()?;
        let mut settings = cloud.offline_settings(edition, key);
        settings["renew"] = json!({ "key": renewed });
        device.settings(&settings)?;
        device.write("/boot/firstboot/root-ca.pem", cloud.root.certificate_pem()?)?;
        device.succeed(&["provision"])?;
        let first = operator.sign_valid(&device.request()?, Validity::DUE)?;
        device.drop_certificate(&first)?;
        device.succeed(&["enroll"])?;
        cloud.core.has_seen(&certificate_id(&first)?, &thing());
        Ok(Self {
            device,
            key,
            cloud,
            est: None,
            operator: Some(operator),
            settings,
        })
    }

    /// The CA of the device's certificates, PEM.
    pub fn issuer(&self) -> Result<Vec<u8>> {
        let of_est = self.est.as_ref().map(|(authority, _)| authority.as_ref());
        match of_est.or(self.operator.as_ref()) {
            Some(authority) => Ok(authority.certificate_pem()?.into_bytes()),
            None => AwsCa::shared()?.certificate_pem(),
        }
    }

    /// With EST, the server.
    pub fn server(&self) -> Result<&EstServer> {
        let (_, server) = self.est.as_ref().context("no EST")?;
        Ok(server)
    }

    pub fn accepted(&self) -> Result<String> {
        self.device.read(format!("{STORE}/certificate.pem"))
    }

    /// The ID that AWS IoT Core gives the accepted certificate.
    pub fn id(&self) -> Result<String> {
        certificate_id(&self.accepted()?)
    }

    pub fn serial(&self) -> Result<Value> {
        Ok(self.device.status()?["certificate"]["serial"].clone())
    }

    pub fn key_sha256(&self) -> Result<String> {
        self.device.key_sha256(STORE)
    }

    /// What firstboot-renew.service does, and offline the operator; returns whether Greengrass was stopped for it.
    pub fn renew(&self) -> Result<bool> {
        if let Some(operator) = &self.operator {
            self.device.succeed(&["renew"])?;
            let next = operator.sign_valid(&self.device.request()?, Validity::YOUNG)?;
            self.device.drop_certificate(&next)?;
        }
        self.device.renew()
    }

    /// Greengrass connects under this name with the certificate that is in service.
    pub fn greengrass_connects(&self, name: &str) -> Result<()> {
        self.cloud.core.take_events()?;
        let identity = self.device.identity(self.key)?;
        mosquitto::publish(
            &identity,
            &identity.uri("private"),
            &self.device.path(format!("{STORE}/certificate.pem")),
            &self.cloud.root.certificate_path(),
            self.cloud.core.port(),
            name,
        )?;
        assert_eq!(self.cloud.core.take_events()?.let_in(), [self.id()?]);
        Ok(())
    }

    /// The certificates that were issued over the network.
    pub fn issued(&self) -> usize {
        match &self.est {
            Some((_, server)) => server.counts().issued,
            None => self.cloud.core.counts().created,
        }
    }

    /// From now on, whoever issues is at this port.
    pub fn at(&mut self, port: u16) -> Result<()> {
        match &self.est {
            Some(_) => {
                self.settings["enrollment"]["est"]["server"] = json!(format!("localhost:{port}"))
            }
            None => self.settings["enrollment"]["port"] = json!(port),
        }
        self.device.settings(&self.settings)
    }

    /// AWS IoT Core goes on as this double.
    pub fn resume(&mut self, memory: Memory) -> Result<()> {
        self.cloud = Cloud::resume(Arc::clone(&self.cloud.root), memory)?;
        self.settings["enrollment"]["port"] = json!(self.cloud.core.port());
        self.device.settings(&self.settings)
    }

    pub fn port(&self) -> u16 {
        self.est
            .as_ref()
            .map_or(self.cloud.core.port(), |(_, server)| server.port())
    }
    /// Removes the claim pair that was kept.
    pub fn remove_kept_claim(&self) -> Result<()> {
        KEPT_CLAIM
            .iter()
            .try_for_each(|path| self.device.remove(path))
    }

    /// An operator saves a certificate by this CA, which AWS IoT Core knows, for the request on the card: the device
    /// takes it, and is at rest.
    pub fn takes_certificate_of(&self, authority: &Authority) -> Result<()> {
        let certificate = authority.sign_valid(&self.device.request()?, Validity::YOUNG)?;
        self.device.drop_certificate(&certificate)?;
        self.renew()?;
        assert_eq!(self.accepted()?, certificate);
        self.assert_idle()
    }

    /// Nothing is left to do, nobody is asked, and nothing is written.
    pub fn assert_idle(&self) -> Result<()> {
        let status = self.device.status()?;
        assert_eq!(status["message"], "nothing left to do", "{status}");
        assert_eq!(status["renewal"]["last_request"]["result"], "renewed");
        assert!(!self.device.exists(format!("{STORE}/ownership.json")));
        assert!(!self.device.exists(NEXT));
        let idle = self.device.snapshot()?;
        self.cloud.core.take_events()?;
        let issued = self.issued();
        for command in ["provision", "enroll", "renew"] {
            self.device.succeed(&[command])?;
            idle.assert_same(&self.device.snapshot()?);
        }
        assert_eq!(self.issued(), issued);
        assert!(self.cloud.core.events().0.is_empty());
        if let Some((_, server)) = &self.est {
            assert_eq!(server.complaints(), Vec::<String>::new());
        }
        Ok(())
    }

    /// Nothing comes of it: the device ends well, with these words and what it had.
    #[track_caller]
    pub fn keeps_what_it_has(&self, words: &str) -> Result<Outcome> {
        let before = self.accepted()?;
        let outcome = self.device.run(&["renew"])?;
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        let said = &outcome.stderr;
        assert!(said.contains(words), "no {words:?} in {said}");
        assert!(!self.device.is_due()?);
        assert_eq!(self.accepted()?, before);
        assert_eq!(self.device.status()?["in_service"], true);
        Ok(outcome)
    }
}
