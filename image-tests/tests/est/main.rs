//! EST (RFC 7030), end to end: a real swtpm, a double of an EST server on OpenSSL's TLS, and the editions' own clients.

mod cuts;
mod end_to_end;
mod later;
mod network;
mod refusals;
mod secrets;
mod settings;

use std::fs;
use std::sync::Arc;

use anyhow::{Context, Result};
use image_tests::clients::KeyType;
use image_tests::device::{Device, Outcome, SERIAL, STORE, assert_ends};
use image_tests::doubles::est::{EstServer, Options, PASSWORD};
use image_tests::doubles::pki::Authority;
use image_tests::doubles::tls::Version;
use image_tests::faults::network::{EST_CA, EST_CLAIM as CLAIM, est_settings};
use serde_json::Value;

/// The exit statuses that docs/status.md documents.
mod exit {
    pub const DONE: i32 = 0;
    pub const CANNOT_WRITE: i32 = 73;
    pub const WAITING: i32 = 75;
    pub const SETTINGS: i32 = 78;
}

const CERTIFICATE: &str = "/var/lib/tpm2_pkcs11/certificate.pem";
const EST: &str = "/var/lib/tpm2_pkcs11/est.json";
const CLAIM_PASSWORD: &str = CLAIM[0];
const CLAIM_CERTIFICATE: &str = CLAIM[1];
const CLAIM_KEY: &str = CLAIM[2];

/// What the device shows the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shows {
    Password,
    Pair,
}

/// A provisioned device, and the server that it enrolls with.
struct Enrolling {
    authority: Arc<Authority>,
    server: EstServer,
    device: Device,
}

impl Enrolling {
    /// nucleus lite, ECC, TLS 1.3, a password.
    fn new() -> Result<Self> {
        Self::with(Options::default())
    }

    fn with(options: Options) -> Result<Self> {
        Self::at(
            KeyType::EccP256,
            Version::Tls13,
            Shows::Password,
            options,
            "nucleus-lite",
        )
    }

    fn at(
        key: KeyType,
        version: Version,
        shows: Shows,
        options: Options,
        edition: &str,
    ) -> Result<Self> {
        let authority = Arc::new(Authority::new()?);
        let server = EstServer::start(&authority, version, options)?;
        let device = Device::unprovisioned()?;
        device.settings(&est_settings(edition, key, server.port(), options.label))?;
        let enrolling = Self {
            authority,
            server,
            device,
        };
        enrolling.put_claim(shows)?;
        let device = &enrolling.device;
        device.write(EST_CA, enrolling.authority.certificate_pem()?)?;
        device.succeed(&["provision"])?;
        Ok(enrolling)
    }

    /// Puts what the device shows onto its card.
    fn put_claim(&self, shows: Shows) -> Result<()> {
        match shows {
            Shows::Password => self.device.write(CLAIM_PASSWORD, format!("{PASSWORD}\r\n")),
            Shows::Pair => {
                let pair = self.authority.claim()?;
                let files = [(CLAIM_CERTIFICATE, pair.certificate), (CLAIM_KEY, pair.key)];
                for (path, from) in files {
                    self.device.write(path, fs::read(from)?)?;
                }
                Ok(())
            }
        }
    }

    /// Changes the enrollment settings.
    fn change(&self, change: impl FnOnce(&mut Value)) -> Result<()> {
        let file = "/boot/firstboot/firstboot.json";
        let mut settings: Value = serde_json::from_str(&self.device.read(file)?)?;
        change(&mut settings["enrollment"]);
        self.device.settings(&settings)
    }

    fn enroll(&self) -> Result<Outcome> {
        self.device.enroll()
    }

    /// Enrolls: expects this exit status, and a reason with these words. Nothing is accepted.
    #[track_caller]
    fn fails(&self, code: i32, words: &str) -> Result<()> {
        let outcome = self.enroll()?;
        assert_ends(&outcome, code, words);
        let state = match code {
            exit::WAITING => "AwaitingCertificate",
            _ => "Error",
        };
        assert_eq!(self.device.status()?["state"], state, "{}", outcome.stderr);
        assert!(!self.device.exists(CERTIFICATE));
        assert!(!self.device.exists("/etc/greengrass/config.yaml"));
        Ok(())
    }

    /// Writes the settings again, as an operator does who wants another try now.
    fn touch_the_card(&self) -> Result<()> {
        self.change(|_| ())
    }

    /// Whether the device has durably received a certificate.
    fn has_answer(&self) -> bool {
        let note = self.device.read(EST).unwrap_or_default();
        note.contains("-----BEGIN") || self.device.exists(CERTIFICATE)
    }

    /// Enrolls successfully: the device has the certificate that was issued last, its chain, and nothing left of what it
    /// has shown; the server has no complaint.
    #[track_caller]
    fn ends_done(&self) -> Result<()> {
        let outcome = self.enroll()?;
        assert_ends(&outcome, exit::DONE, "");
        assert_eq!(self.device.status()?["state"], "Done", "{}", outcome.stderr);
        let certificate = self.device.read(CERTIFICATE)?;
        let issued = self.server.issued();
        let last = issued.last().context("nothing was issued")?;
        assert!(certificate.starts_with(last), "{certificate}");
        assert!(certificate.ends_with(&self.authority.certificate_pem()?));
        for path in CLAIM {
            assert!(!self.device.exists(path), "{path} is still there");
        }
        assert_eq!(self.server.complaints(), Vec::<String>::new());
        Ok(())
    }

    /// SHA-256 of the identity's key.
    fn key_sha256(&self) -> Result<String> {
        self.device.key_sha256(STORE)
    }

    #[track_caller]
    fn assert_issued(&self, certificates: usize) {
        let counts = self.server.counts();
        assert_eq!(counts.issued, certificates, "{counts:?}");
    }
}

/// The device's thing.
fn thing() -> String {
    format!("gateway-{SERIAL}")
}
