//! What an EST server is presented with (RFC 7030 §3.3 and §3.2.3): the fleet's claim, or the device's own certificate.

use std::sync::Arc;

use firstboot_formats::public_key::KeyType;
use firstboot_formats::x509::Chain;
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use crate::boot_partition::BootPartition;
use crate::enrollment::claim;
use crate::enrollment::network::{TpmKey, certified};
use crate::error::Result;
use crate::settings::Settings;
use crate::token::OpenKey;

/// What the device presents.
pub struct Credentials {
    /// The certificate of TLS client authentication, if the server asks for one, and its key.
    pub(super) certificate: Option<CertifiedKey>,
    /// What HTTP basic authentication takes.
    pub(super) password: Option<Password>,
}

/// A user's name and password.
pub struct Password {
    /// The name.
    pub username: String,
    /// The password.
    pub password: Zeroizing<String>,
}

impl Credentials {
    /// What lies on the boot partition for a device that has no certificate: a pair, a password, or both.
    pub fn of_claim(settings: &Settings, boot: &BootPartition) -> Result<Self> {
        let password = claim::password(boot)?.map(|password| Password {
            username: settings.enrollment.est.username.clone(),
            password,
        });
        let certificate = match (boot.has_claim(), &password) {
            (false, Some(_)) => None,
            _ => Some(claim::read(boot)?),
        };
        Ok(Self {
            certificate,
            password,
        })
    }

    /// The device's own certificate, and its key in the TPM, which is of this kind.
    pub fn of_device(chain: &Chain, key: OpenKey, kind: KeyType) -> Self {
        Self {
            certificate: Some(certified(chain, Arc::new(TpmKey::new(key, kind)))),
            password: None,
        }
    }
}
