//! Renewals whose certificates come in wrapped replies, for the kept key and for a new one: the station answers what
//! the device has published, the TPM opens the reply, and AWS IoT Core decides.

use std::fs;

use anyhow::{Context, Result};
use firstboot_formats::digest::sha256;
use firstboot_formats::encoding::to_hex;
use image_tests::clients::{KeyType, openssl};
use image_tests::device::station::Station;
use image_tests::device::{Device, NEXT, STORE};
use image_tests::doubles::iot_core::{self, certificate_id};
use image_tests::doubles::pki::Validity;
use image_tests::doubles::software_tpm::Ek;
use image_tests::doubles::tls::{TlsServer, Version};
use image_tests::doubles::tpm_proxy::{Options, Proxy};
use image_tests::faults::network::Cloud;
use image_tests::process::succeed;
use serde_json::{Value, json};

use crate::device::{reply_path, thing_name};
use crate::end_to_end::device;

const REQUESTS: &str = "/boot/firstboot/requests";

/// A device in service, whose certificate came in a wrapped reply and is due for renewal.
struct Due {
    station: Station,
    device: Device,
    key: KeyType,
    cloud: Cloud,
    settings: Value,
}

impl Due {
    /// With renewals of this key. Whether AWS IoT Core accepts all certificates of the station's CA, or only the one in
    /// service.
    fn new(key: KeyType, renewed: &str, accepts_all: bool) -> Result<Self> {
        let station = Station::new()?;
        let ek = match key {
            KeyType::EccP256 => Ek::P256,
            KeyType::Rsa2048 => Ek::Rsa2048,
        };
        let device = device(&station, key, ek)?;
        let ca = station.operator.certificate_pem()?;
        let cloud = Cloud::with(iot_core::Options {
            registered: accepts_all.then(|| ca.clone()).into_iter().collect(),
            trusted: vec![ca],
            ..iot_core::Options::default()
        })?;
        let mut settings = cloud.offline_settings("nucleus-lite", key);
        settings["enrollment"]["issuers"] = json!([station.fingerprint()?]);
        settings["renew"] = json!({ "key": renewed });
        device.settings(&settings)?;
        device.write("/boot/firstboot/root-ca.pem", cloud.root.certificate_pem()?)?;
        device.succeed(&["provision"])?;
        let first = station
            .operator
            .sign_valid(&device.request()?, Validity::DUE)?;
        fs::write(station.path("first.pem"), &first)?;
        let mut wrap = station.answering("wrap", &device.path(REQUESTS))?;
        succeed(wrap.arg("--certificate").arg(station.path("first.pem")))?;
        station.put_replies(&device)?;
        device.succeed(&["enroll"])?;
        cloud.core.has_seen(&certificate_id(&first)?, &thing_name());
        // The request is published.
        device.succeed(&["renew"])?;
        Ok(Self {
            station,
            device,
            key,
            cloud,
            settings,
        })
    }

    /// The station answers the request on the card with a reply under this name: its content.
    fn answer(&self, name: &str) -> Result<String> {
        let path = format!("/boot/firstboot/certificates/{name}");
        let before = self.device.read(&path).ok();
        let mut issue = self.station.issuing(&self.device.path(REQUESTS))?;
        if before.is_some() {
            // The request is the same as the first time.
            issue.arg("--again");
        }
        succeed(&mut issue)?;
        self.station.put_replies(&self.device)?;
        let reply = self.device.read(&path)?;
        assert_ne!(Some(&reply), before.as_ref());
        Ok(reply)
    }

    /// From now on, AWS IoT Core accepts all certificates of the station's CA.
    fn register(&mut self) -> Result<()> {
        let memory = self.cloud.core.memory();
        let memory = memory.registering(&self.station.operator)?;
        self.cloud = Cloud::resume(self.cloud.root.clone(), memory)?;
        self.settings["enrollment"]["port"] = json!(self.cloud.core.port());
        self.device.settings(&self.settings)
    }

    fn accepted(&self) -> Result<String> {
        self.device.read(format!("{STORE}/certificate.pem"))
    }

    /// The identity in this directory has its certificate from this reply.
    fn came_in(&self, directory: &str, reply: &str) -> Result<bool> {
        let noted = self.device.read(format!("{directory}/opened.json"))?;
        let noted: Value = serde_json::from_str(&noted)?;
        Ok(noted["reply_sha256"] == to_hex(&sha256(reply.as_bytes())))
    }

    /// nucleus lite's client: the certificate that it presents to a TLS server.
    fn shows(&self) -> Result<String> {
        let server = TlsServer::start(&self.station.operator, Version::Tls13)?;
        let device = &self.device;
        let identity = device.identity_of_greengrass(self.key)?;
        let certificate = device.lite_certificate()?;
        openssl::connect(&identity, &certificate, &device.openssl_conf()?, &server)?;
        let accepted = self.accepted()?;
        assert!(server.was_shown(&accepted)?, "{}", server.log());
        Ok(accepted)
    }

    /// What came of the latest request, by `status.json`.
    fn result(&self) -> Result<Value> {
        Ok(self.device.status()?["renewal"]["last_request"]["result"].clone())
    }
}

/// For each kind of renewal: the directory of the identity that the reply is for, and how the reply's name ends.
const RENEWALS: [(&str, &str, &str); 2] = [
    ("keep", STORE, ".reply.json"),
    ("new", NEXT, ".next.reply.json"),
];

/// Before and after, by what a server sees. Greengrass stops only for a new key, whose certificate is tried before that.
fn is_opened_tried_and_taken_up(key: KeyType) -> Result<()> {
    for (renewed, place, end) in RENEWALS {
        let mut due = Due::new(key, renewed, true)?;
        let is_new = renewed == "new";
        let key_in_service = due.device.key_sha256(STORE)?;
        let before = due.shows()?;
        assert_eq!(due.result()?, "waiting");
        let reply = due.answer(&(thing_name() + end))?;

        let proxy = Proxy::start(due.device.tpm.upstream(), Options::default())?;
        due.device.tcti = Some(proxy.tcti());
        due.cloud.core.take_events()?;
        due.device.succeed(&["renew"])?;
        assert_eq!(proxy.take_commands().count("ActivateCredential"), 1);
        assert!(due.came_in(place, &reply)?);
        assert!(due.device.tpm.transient_handles()?.is_empty());
        let new = due.device.read(format!("{place}/certificate.pem"))?;
        let let_in = due.cloud.core.events().let_in();
        assert!(let_in.contains(&certificate_id(&new)?), "{let_in:?}");
        assert_eq!(due.shows()? == before, is_new);
        assert_eq!(due.device.is_due()?, is_new);

        due.device.succeed(&["enroll"])?;
        assert_eq!(due.device.key_sha256(STORE)? != key_in_service, is_new);
        assert!(due.came_in(STORE, &reply)?);
        assert_eq!(due.shows()?, new);
        assert_ne!(new, before);
        assert_eq!(due.result()?, "renewed");
        assert_eq!(due.device.status()?["message"], "nothing left to do");
        let idle = due.device.snapshot()?;
        for command in ["provision", "enroll", "renew"] {
            due.device.succeed(&[command])?;
            idle.assert_same(&due.device.snapshot()?);
        }
        assert_eq!(proxy.take_commands().count("ActivateCredential"), 0);
        assert_eq!(due.device.tpm.lockout_counter()?, 0);
    }
    Ok(())
}

image_tests::for_both_keys! {
    is_opened_tried_and_taken_up: is_taken_up_with_ecc, is_taken_up_with_rsa;
}

/// Each look tries it again. Where a new key waits, its certificate has come out of the reply already.
#[test]
fn a_refused_certificate_stays_out() -> Result<()> {
    let files = [reply_path(), format!("{NEXT}/certificate.pem")];
    for ((renewed, _, end), file) in RENEWALS.into_iter().zip(files) {
        let mut due = Due::new(KeyType::EccP256, renewed, false)?;
        let (key_in_service, before) = (due.device.key_sha256(STORE)?, due.accepted()?);
        let reply = due.answer(&(thing_name() + end))?;
        for _ in 0..2 {
            assert!(!due.device.renew()?);
            let status = due.device.status()?;
            assert_eq!(status["in_service"], true, "{status}");
            let path = status["refused"][0]["path"].as_str();
            let path = path.with_context(|| format!("nothing is refused: {status}"))?;
            assert!(path.ends_with(&file), "{status}");
            assert_eq!(due.result()?, "refused");
            due.device.succeed(&["enroll"])?;
            assert_eq!(due.accepted()?, before);
            assert_eq!(due.device.key_sha256(STORE)?, key_in_service);
        }
        due.register()?;
        assert_eq!(due.device.renew()?, renewed == "new");
        assert!(due.came_in(STORE, &reply)?, "{renewed}");
        assert_ne!(due.accepted()?, before);
        assert_eq!(due.result()?, "renewed");
    }
    Ok(())
}
