//! Fleet provisioning by claim, end to end: a real swtpm, a real mosquitto in the double of AWS IoT Core, and the
//! editions' own clients. `make fleet` runs it alone, with many more devices than `make test`.

mod claim;
mod cuts;
mod devices;
mod end_to_end;
mod evidence;
mod just_in_time;
mod misbehaviour;
mod network;
mod records;
mod repeated;
mod secrets;
mod settings;

use anyhow::Result;
use image_tests::clients::KeyType;
use image_tests::device::{Device, Outcome, SERIAL, STORE, assert_ends};
use image_tests::doubles::iot_core::{Options, Status};
use image_tests::faults::network::{CLAIM, Cloud};

/// The exit statuses that docs/status.md documents.
mod exit {
    pub const DONE: i32 = 0;
    pub const OTHER: i32 = 70;
    pub const WAITING: i32 = 75;
    pub const SETTINGS: i32 = 78;
}

/// A provisioned device, and the cloud that it enrolls with.
struct Enrolling {
    cloud: Cloud,
    device: Device,
    /// The thing's name by the template.
    thing: String,
}

impl Enrolling {
    fn new() -> Result<Self> {
        Self::with(Options::default())
    }

    fn with(options: Options) -> Result<Self> {
        Self::at(Cloud::with(options)?, "nucleus-lite", KeyType::EccP256)
    }

    /// With the settings' thing name also made by the template.
    fn with_the_settings_name(mut options: Options) -> Result<Self> {
        for template in &mut options.templates {
            template.thing_prefix = "gateway-".into();
        }
        let mut enrolling = Self::with(options)?;
        enrolling.thing = format!("gateway-{SERIAL}");
        Ok(enrolling)
    }

    fn at(cloud: Cloud, edition: &str, key: KeyType) -> Result<Self> {
        let device = Device::unprovisioned()?;
        cloud.card(&device, edition, key)?;
        device.succeed(&["provision"])?;
        let thing = thing();
        Ok(Self {
            cloud,
            device,
            thing,
        })
    }

    fn enroll(&self) -> Result<Outcome> {
        self.device.enroll()
    }

    /// Enrolls: expects this exit status, and a reason with these words.
    #[track_caller]
    fn ends(&self, code: i32, words: &str) -> Result<()> {
        let outcome = self.enroll()?;
        assert_ends(&outcome, code, words);
        Ok(())
    }

    /// Enrolls successfully: one certificate is active, which is the device's, and its claim pair is gone.
    #[track_caller]
    fn ends_done(&self) -> Result<()> {
        let outcome = self.enroll()?;
        assert_ends(&outcome, exit::DONE, "");
        assert_eq!(self.device.status()?["state"], "Done", "{}", outcome.stderr);
        assert_eq!(self.configured_thing()?, self.thing);
        let registry = self.cloud.core.registry();
        let own = self.certificate()?;
        let active = registry.active_of(&self.thing);
        let is_active = active.iter().any(|active| active.pem.trim() == own.trim());
        assert!(is_active, "{:?}", registry.counts());
        for path in CLAIM {
            assert!(!self.device.exists(path), "{path} is still there");
        }
        assert!(!self.device.exists("/var/lib/tpm2_pkcs11/ownership.json"));
        Ok(())
    }

    /// The thing's name in nucleus lite's configuration.
    fn configured_thing(&self) -> Result<String> {
        let text = self.device.read("/etc/greengrass/config.yaml")?;
        let config: serde_json::Value = serde_json::from_str(&text)?;
        Ok(config["system"]["thingName"]
            .as_str()
            .unwrap_or_default()
            .to_owned())
    }

    fn certificate(&self) -> Result<String> {
        self.device.read("/var/lib/tpm2_pkcs11/certificate.pem")
    }

    /// SHA-256 of the identity's key.
    fn key(&self) -> Result<String> {
        self.device.key_sha256(STORE)
    }

    /// The numbers of certificates that were created and that are active.
    #[track_caller]
    fn assert_certificates(&self, created: usize, active: usize) {
        let counts = self.cloud.core.counts();
        assert_eq!(
            (counts.created, counts.active),
            (created, active),
            "{counts:?}"
        );
    }

    /// All certificates that were ever issued are for the device's key.
    fn assert_own_key(&self) -> Result<()> {
        let key = self.key()?;
        for certificate in self.cloud.core.registry().certificates() {
            assert_eq!(certificate.key_sha256, key);
            assert_ne!(certificate.status, Status::Deleted);
        }
        Ok(())
    }
}

/// The device's thing name by the double's template, which differs from its settings.
fn thing() -> String {
    format!("core-{SERIAL}")
}
