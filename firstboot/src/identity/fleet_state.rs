//! The state of fleet provisioning: the ownership of a certificate that is not registered yet, and the registration.
//!
//! `ownership.json` is durable before AWS IoT is asked to register the thing, `registration.json` before anything is
//! done with the answer: after a power cut, firstboot continues with the same certificate.

use std::path::PathBuf;

use firstboot_formats::files::{self, Access};
use firstboot_formats::public_key::PublicKey;
use firstboot_formats::thing_name::check_thing_name;
use firstboot_formats::x509::Chain;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::{Identity, MAX_FILE, OWNERSHIP, REGISTRATION};
use crate::error::{Error, ErrorKind, Result, ResultExt};

/// A certificate that AWS IoT has issued and not activated yet (AWS IoT Core developer guide, "Device
/// provisioning MQTT API", CreateCertificateFromCsr).
#[derive(Serialize, Deserialize)]
pub struct Ownership {
    /// AWS IoT's name for the certificate.
    pub certificate_id: String,
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// Proves for one hour that the certificate is ours: a secret.
    pub certificate_ownership_token: Zeroizing<String>,
}

/// A thing that AWS IoT has registered with our certificate. Only the name is indispensable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// The thing's name, as the template made it.
    pub thing_name: String,
    /// The answer with the name was lost: the name is that of the settings.
    #[serde(default)]
    pub thing_name_is_assumed: bool,
    /// AWS IoT's name for the certificate.
    #[serde(default)]
    pub certificate_id: String,
    /// The certificate, PEM, in case the accepted one gets damaged.
    #[serde(default)]
    pub certificate_pem: String,
    /// The template's configuration for the device, as received.
    #[serde(default)]
    pub device_configuration: Map<String, Value>,
}

impl Registration {
    /// The registered certificate, if it is for this key.
    pub fn certificate(&self, key: &PublicKey) -> Option<Chain> {
        Chain::parse(self.certificate_pem.as_bytes(), key, &[]).ok()
    }

    /// Whether this is the certificate that was registered.
    pub fn is_of(&self, chain: &Chain) -> bool {
        Chain::stored(self.certificate_pem.as_bytes())
            .is_some_and(|registered| registered.fingerprint() == chain.fingerprint())
    }
}

impl Identity {
    /// Whether a certificate is waiting for its registration.
    pub fn has_ownership(&self) -> bool {
        self.directory.join(OWNERSHIP).symlink_metadata().is_ok()
    }

    /// The certificate that is waiting for its registration; `None` also if it is damaged.
    pub fn ownership(&self) -> Result<Option<Ownership>> {
        let text = files::read(&self.directory.join(OWNERSHIP), MAX_FILE)?.map(Zeroizing::new);
        Ok(text.and_then(|text| serde_json::from_slice(&text).ok()))
    }

    /// Whether the certificate that waits for its registration has been registered meanwhile.
    pub fn owns_what_is_registered(&self) -> bool {
        let chain = |pem: &str| Chain::stored(pem.as_bytes());
        let owned = self.ownership().ok().flatten();
        let owned = owned.and_then(|owned| chain(&owned.certificate_pem));
        let registration = self.registration().ok().flatten();
        owned
            .zip(registration)
            .is_some_and(|(owned, registration)| registration.is_of(&owned))
    }

    /// Keeps a certificate and the proof that it is ours, for root alone.
    pub fn keep_ownership(&self, ownership: &Ownership) -> Result<()> {
        let text = serde_json::to_vec(ownership).map(Zeroizing::new);
        let text = text.context(ErrorKind::Other, || format!("cannot encode {OWNERSHIP}"))?;
        let path = self.directory.join(OWNERSHIP);
        Ok(files::write(&path, &text, Some(Access::PRIVATE))?)
    }

    /// Removes it: it has been used, or is worthless.
    pub fn forget_ownership(&self) -> Result<()> {
        Ok(files::remove(&self.directory.join(OWNERSHIP))?)
    }

    /// The registration, if there is one.
    pub fn registration(&self) -> Result<Option<Registration>> {
        let path = self.directory.join(REGISTRATION);
        let Some(text) = files::read(&path, MAX_FILE)? else {
            return Ok(None);
        };
        let registration: Option<Registration> = serde_json::from_slice(&text).ok();
        registration
            .filter(|r| check_thing_name(&r.thing_name).is_ok())
            .map(Some)
            .ok_or_else(|| {
                Error::other(format!(
                    "{} is damaged, so the registered thing's name is unknown: write {{\"thing_name\": \"…\"}} there, \
                     or start over with `firstboot reset`",
                    path.display()
                ))
            })
    }

    /// Where it is kept.
    pub fn registration_path(&self) -> PathBuf {
        self.directory.join(REGISTRATION)
    }

    /// Keeps the registration.
    pub fn keep_registration(&self, registration: &Registration) -> Result<()> {
        let text = serde_json::to_vec_pretty(registration)
            .context(ErrorKind::Other, || format!("cannot encode {REGISTRATION}"))?;
        self.write(REGISTRATION, &text)
    }
}
