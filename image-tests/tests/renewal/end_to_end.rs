//! A device that is due renews over the network, with its key or a new one, by what firstboot-renew.service does.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use image_tests::clients::{KeyType, mosquitto};
use image_tests::device::{Checkpoint, Device, NEXT, Outcome, PREVIOUS, STORE};
use image_tests::doubles::est::{self, EstServer, Misbehaviour, PASSWORD};
use image_tests::doubles::iot_core::{self, Call, Event, Renewing, Status, Subject, Template, Who};
use image_tests::doubles::pki::{Authority, Validity};
use image_tests::doubles::tls::Version;
use image_tests::faults::network::{CLAIM, Cloud, EST_CA, EST_CLAIM, est_settings, fleet_settings};
use image_tests::ports::NOBODY;
use openssl::hash::MessageDigest;
use openssl::x509::X509;
use serde_json::{Value, json};

use crate::thing;

const KEPT_CLAIM: [&str; 2] = [
    "/var/lib/firstboot/claim.cert.pem",
    "/var/lib/firstboot/claim.key.pem",
];
const NO_CHANGE: i32 = 75;

/// A device in service, whose certificate is due for renewal.
pub struct Due {
    pub device: Device,
    key: KeyType,
    pub cloud: Cloud,
    /// With EST, who issues.
    pub est: Option<(Arc<Authority>, EstServer)>,
    settings: Value,
}

impl Due {
    /// By fleet provisioning, from a template that names things with this prefix.
    pub fn by_fleet(key: KeyType, renewed: &str, renewing: Renewing, prefix: &str) -> Result<Self> {
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
        cloud.card(&device, "nucleus-lite", key)?;
        let mut settings = fleet_settings("nucleus-lite", key, cloud.core.port());
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
            settings,
        })
    }

    /// By EST, from a CA that is registered with AWS IoT Core.
    pub fn by_est(key: KeyType, renewed: &str, options: est::Options) -> Result<Self> {
        let authority = Arc::new(Authority::new()?);
        let cloud = Cloud::with_ca_of(&authority)?;
        let server = EstServer::start(&authority, Version::Tls13, options)?;
        let device = Device::unprovisioned()?;
        let mut settings = est_settings("nucleus-lite", key, server.port(), None);
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
            settings,
        };
        due.cloud.core.has_seen(&due.id()?, &thing());
        Ok(due)
    }

    /// From the state of device and doubles at one moment, another one.
    pub fn resume(
        &self,
        start: &Checkpoint,
        aws: &iot_core::Memory,
        est: Option<&est::Memory>,
    ) -> Result<Self> {
        let root = Arc::clone(&self.cloud.root);
        let server = |(authority, _): &(Arc<Authority>, EstServer)| {
            let memory = est.context("no EST")?.clone();
            let server = EstServer::resume(authority, Version::Tls13, memory)?;
            anyhow::Ok((Arc::clone(authority), server))
        };
        let mut due = Self {
            device: start.restore()?,
            key: self.key,
            cloud: Cloud::resume(root, aws.clone())?,
            est: self.est.as_ref().map(server).transpose()?,
            settings: self.settings.clone(),
        };
        due.settings["enrollment"]["port"] = json!(due.cloud.core.port());
        due.at(due.port())?;
        Ok(due)
    }

    pub fn accepted(&self) -> Result<String> {
        self.device.read(format!("{STORE}/certificate.pem"))
    }

    /// The ID that AWS IoT Core gives the accepted certificate.
    fn id(&self) -> Result<String> {
        let certificate = X509::from_pem(self.accepted()?.as_bytes())?;
        let digest = certificate.digest(MessageDigest::sha256())?;
        Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    fn serial(&self) -> Result<Value> {
        Ok(self.device.status()?["certificate"]["serial"].clone())
    }

    fn key_sha256(&self) -> Result<Value> {
        let record = self.device.read(format!("{STORE}/request.json"))?;
        let record: Value = serde_json::from_str(&record)?;
        Ok(record["key_sha256"].clone())
    }

    /// What firstboot-renew.service does; returns whether Greengrass was stopped for it.
    pub fn renew(&self) -> Result<bool> {
        self.device.succeed(&["renew"])?;
        let due = self.device.run(&["renew", "--due"])?;
        if due.code == NO_CHANGE {
            return Ok(false);
        }
        ensure!(due.code == 0, "{}", due.stderr);
        self.device.succeed(&["enroll"])?;
        Ok(true)
    }

    /// Greengrass connects under this name with the certificate that is in service.
    fn greengrass_connects(&self, name: &str) -> Result<()> {
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
        let log = self.cloud.core.events().0;
        let shown = log.iter().find_map(|entry| match &entry.who {
            Who::Device { certificate, .. } => Some(certificate.clone()),
            _ => None,
        });
        assert_eq!(shown, Some(self.id()?));
        Ok(())
    }

    /// The certificates that were issued.
    pub fn issued(&self) -> usize {
        match &self.est {
            Some((_, server)) => server.counts().issued,
            None => self.cloud.core.counts().created,
        }
    }

    /// The certificate that was issued last, PEM.
    pub fn last_issued(&self) -> Result<String> {
        match &self.est {
            Some((_, server)) => server
                .issued()
                .last()
                .cloned()
                .context("nothing was issued"),
            None => {
                let registry = self.cloud.core.registry();
                let accepted = self.accepted()?;
                let mut others = registry
                    .certificates()
                    .filter(|c| c.pem.trim() != accepted.trim());
                Ok(others
                    .next()
                    .map_or(accepted.clone(), |other| other.pem.clone()))
            }
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

    pub fn port(&self) -> u16 {
        self.est
            .as_ref()
            .map_or(self.cloud.core.port(), |(_, server)| server.port())
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
    fn keeps_what_it_has(&self, words: &str) -> Result<Outcome> {
        let before = self.accepted()?;
        let outcome = self.device.run(&["renew"])?;
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        let said = &outcome.stderr;
        assert!(said.contains(words), "no {words:?} in {said}");
        assert_eq!(self.device.run(&["renew", "--due"])?.code, NO_CHANGE);
        assert_eq!(self.accepted()?, before);
        assert_eq!(self.device.status()?["in_service"], true);
        Ok(outcome)
    }
}

/// Before and after, by what the server sees; with one certificate more, and with the name under which the thing is
/// registered, whichever that is.
fn goes_its_way(due: &Due, new_key: bool, name: &str) -> Result<()> {
    let (serial, key) = (due.serial()?, due.key_sha256()?);
    due.greengrass_connects(name)?;
    assert_eq!(due.renew()?, new_key);
    assert_ne!(due.serial()?, serial);
    assert_eq!(due.key_sha256()? != key, new_key);
    assert_eq!(due.device.exists(PREVIOUS), new_key);
    assert_eq!(due.issued(), 2);
    assert_eq!(due.device.status()?["thing_name"], name);
    due.greengrass_connects(name)?;
    due.assert_idle()
}

fn fleet(key: KeyType) -> Result<()> {
    for (renewed, prefix) in [("keep", "gateway-"), ("new", "core-")] {
        let due = Due::by_fleet(key, renewed, Renewing::Allowed, prefix)?;
        let name = thing().replace("gateway-", prefix);
        goes_its_way(&due, renewed == "new", &name)?;
        let registry = due.cloud.core.registry();
        assert_eq!(registry.active_of(&name).len(), 2);
    }
    Ok(())
}

fn est(key: KeyType) -> Result<()> {
    for renewed in ["keep", "new"] {
        // The CA has added to the names of the first certificate: the request for the second has them, too.
        for renames in [false, true] {
            let options = est::Options {
                renames,
                ..est::Options::default()
            };
            let due = Due::by_est(key, renewed, options)?;
            let (_, server) = due.est.as_ref().context("no EST")?;
            let serial = due.serial()?;
            goes_its_way(&due, renewed == "new", &thing())?;
            assert_eq!(server.shown(), [serial.as_str().unwrap_or_default()]);
            assert_eq!(server.counts().reenrolls, 1);
        }
    }
    Ok(())
}

image_tests::for_both_keys! {
    fleet: by_fleet_provisioning_with_ecc, by_fleet_provisioning_with_rsa;
    est: by_est_with_ecc, by_est_with_rsa;
}

/// A network that is away costs nothing, for as long as it takes.
#[test]
fn nobody_answers() -> Result<()> {
    for renewed in ["keep", "new"] {
        for mut due in [
            Due::by_fleet(KeyType::EccP256, renewed, Renewing::Allowed, "gateway-")?,
            Due::by_est(KeyType::EccP256, renewed, est::Options::default())?,
        ] {
            let port = due.port();
            due.at(NOBODY)?;
            due.keeps_what_it_has("cannot reach localhost")?;
            let before = due.device.snapshot()?;
            due.keeps_what_it_has("cannot reach localhost")?;
            before.assert_same(&due.device.snapshot()?);
            assert_eq!(due.issued(), 1);
            due.at(port)?;
            assert_eq!(due.renew()?, renewed == "new");
            assert_eq!(due.issued(), 2);
            due.assert_idle()?;
        }
    }
    Ok(())
}

/// AWS says no to the device's certificate: the claim pair that was kept, for root alone, is presented instead.
#[test]
fn the_kept_claim_pair_where_aws_says_no() -> Result<()> {
    for (renewed, renewing) in [
        ("keep", Renewing::Never),
        ("keep", Renewing::Rejected(Call::RegisterThing)),
        ("new", Renewing::Closed(Call::CreateCertificate)),
    ] {
        let due = Due::by_fleet(KeyType::EccP256, renewed, renewing, "gateway-")?;
        for (on_card, kept) in CLAIM.iter().zip(KEPT_CLAIM) {
            assert!(!due.device.exists(on_card));
            let mode = std::fs::metadata(due.device.path(kept))?
                .permissions()
                .mode();
            assert_eq!(mode & 0o077, 0, "{kept}");
        }
        assert_eq!(due.renew()?, renewed == "new", "{renewing:?}");
        assert_eq!(due.issued(), 2);
        let log = due.cloud.core.events().0;
        assert!(log.iter().any(|entry| entry.who == Who::Claim));
        due.assert_idle()?;
    }
    Ok(())
}

/// Without a claim pair, an operator signs the request that lies on the card, and nothing is lost.
#[test]
fn offline_where_aws_says_no_and_there_is_no_claim_pair() -> Result<()> {
    let authority = Authority::new()?;
    for renewed in ["keep", "new"] {
        let mut due = Due::by_fleet(KeyType::EccP256, renewed, Renewing::Never, "gateway-")?;
        for path in KEPT_CLAIM {
            due.device.remove(path)?;
        }
        due.keeps_what_it_has("The device keeps its certificate")?;
        assert_eq!(due.issued(), 1);
        let certificate = authority.sign_valid(&due.device.request()?, Validity::YOUNG)?;
        due.device.drop_certificate(&certificate)?;
        // AWS IoT Core knows the operator's CA from now on.
        let memory = due.cloud.core.memory();
        let root = Arc::clone(&due.cloud.root);
        due.cloud = Cloud::resume(root, memory.registering(&authority)?)?;
        due.at(due.cloud.core.port())?;
        due.renew()?;
        assert_eq!(due.accepted()?, certificate, "{renewed}");
        assert_eq!(due.device.status()?["thing_name"], thing());
        due.assert_idle()?;
    }
    Ok(())
}

/// The registration's answer is lost, and AWS does not repeat it: the certificate is active, as the device can see. No
/// other one is requested.
#[test]
fn a_lost_answer_of_aws() -> Result<()> {
    for renewed in ["keep", "new"] {
        let due = Due::by_fleet(KeyType::EccP256, renewed, Renewing::Allowed, "gateway-")?;
        for path in KEPT_CLAIM {
            due.device.remove(path)?;
        }
        let lost = iot_core::Misbehaviour::HangsUp;
        due.cloud.core.misbehave(Call::RegisterThing, 1, lost);
        due.keeps_what_it_has("closed")?;
        assert_eq!(due.renew()?, renewed == "new");
        assert_eq!(due.issued(), 2);
        due.assert_idle()?;
    }
    Ok(())
}

/// A token that has expired: the certificate is worthless, and another one is requested in the same run.
#[test]
fn a_kept_certificate_that_has_expired() -> Result<()> {
    let due = Due::by_fleet(KeyType::EccP256, "keep", Renewing::Allowed, "gateway-")?;
    for path in KEPT_CLAIM {
        due.device.remove(path)?;
    }
    let core = &due.cloud.core;
    core.misbehave(Call::RegisterThing, 1, iot_core::Misbehaviour::Lost);
    core.set_renewing(Renewing::Closed(Call::RegisterThing));
    due.keeps_what_it_has("closed")?;
    core.behave();
    core.set_renewing(Renewing::Allowed);
    core.advance(std::time::Duration::from_secs(2 * 60 * 60));
    due.renew()?;
    assert_eq!(due.issued(), 3);
    due.assert_idle()
}

/// What cannot be used costs one certificate, and not one at each try.
#[test]
fn an_est_answer_that_cannot_be_used() -> Result<()> {
    let due = Due::by_est(KeyType::EccP256, "keep", est::Options::default())?;
    let (_, server) = due.est.as_ref().context("no EST")?;
    for _ in 0..9 {
        server.misbehave(Misbehaviour::AnotherKey);
    }
    due.keeps_what_it_has("asks again after")?;
    due.keeps_what_it_has("asks again after")?;
    assert_eq!(due.issued(), 2);
    Ok(())
}

/// A server that recognises a request and sends what it has issued before: that is no renewal, and not the end of it.
#[test]
fn the_same_certificate_again() -> Result<()> {
    for renewed in ["keep", "new"] {
        let due = Due::by_est(KeyType::EccP256, renewed, est::Options::default())?;
        let (_, server) = due.est.as_ref().context("no EST")?;
        server.misbehave(Misbehaviour::Again);
        due.keeps_what_it_has("asks again after")?;
        due.device.settings(&due.settings)?;
        assert_eq!(due.renew()?, renewed == "new");
        assert_eq!(due.issued(), 2);
        // Another request than before, where that was for the same key.
        let sent = server.requests();
        assert_ne!(sent[1], sent[2]);
        due.assert_idle()?;
    }
    Ok(())
}

/// A kept pair that cannot be used any more hides nothing of what AWS has said.
#[test]
fn a_damaged_claim_pair() -> Result<()> {
    let due = Due::by_fleet(KeyType::EccP256, "keep", Renewing::Never, "gateway-")?;
    due.device.write(KEPT_CLAIM[0], "hello")?;
    due.keeps_what_it_has("AWS IoT Core refused the subscription")?;
    Ok(())
}

/// The pair is kept for as long as renewals may need it.
#[test]
fn the_kept_claim_pair_goes() -> Result<()> {
    let mut due = Due::by_fleet(KeyType::EccP256, "keep", Renewing::Allowed, "gateway-")?;
    // A new one replaces it; one that cannot be used does not.
    let good = due.device.read(KEPT_CLAIM[1])?;
    for (path, pem) in CLAIM.iter().zip(["hello", "hello"]) {
        due.device.write(path, pem)?;
    }
    due.device.succeed(&["enroll"])?;
    assert_eq!(due.device.read(KEPT_CLAIM[1])?, good);
    assert!(!due.device.exists(CLAIM[1]));

    due.settings["renew"] = Value::Null;
    due.device.settings(&due.settings)?;
    due.device.succeed(&["enroll"])?;
    for path in KEPT_CLAIM {
        assert!(!due.device.exists(path));
    }
    let due = Due::by_fleet(KeyType::EccP256, "keep", Renewing::Allowed, "gateway-")?;
    due.device.succeed(&["reset"])?;
    for path in KEPT_CLAIM {
        assert!(!due.device.exists(path));
    }
    Ok(())
}

/// The old certificate is deactivated after the new one was seen, and nobody misses it.
#[test]
fn the_old_one_is_deactivated() -> Result<()> {
    let due = Due::by_fleet(KeyType::EccP256, "new", Renewing::Allowed, "gateway-")?;
    let old = due.id()?;
    due.renew()?;
    due.cloud.core.set_status(&old, Status::Inactive);
    due.greengrass_connects(&thing())?;
    let connected = |entry: &iot_core::Entry| entry.event == Event::Connected;
    assert!(due.cloud.core.events().0.iter().any(connected));
    due.assert_idle()
}
