//! TLS client authentication with the key in the TPM.

use std::fmt;
use std::sync::{Arc, Mutex};

use firstboot_formats::public_key::{KeyType, Scheme};
use rustls::sign::{Signer, SigningKey};
use rustls::{Error as TlsError, SignatureAlgorithm, SignatureScheme};

use crate::token::OpenKey;

/// The device's key as rustls wants it.
#[derive(Clone)]
pub struct TpmKey {
    key: Arc<Mutex<OpenKey>>,
    kind: KeyType,
}

impl TpmKey {
    /// From the open key, which has this type.
    pub fn new(key: OpenKey, kind: KeyType) -> Self {
        Self {
            key: Arc::new(Mutex::new(key)),
            kind,
        }
    }

    /// The signature schemes of the key. PKCS #1 v1.5 comes first, as it always works; TLS 1.3 does not have it, and
    /// takes PSS.
    fn schemes(&self) -> &'static [SignatureScheme] {
        match self.kind {
            KeyType::EccP256 => &[SignatureScheme::ECDSA_NISTP256_SHA256],
            KeyType::Rsa2048 => &[
                SignatureScheme::RSA_PKCS1_SHA256,
                SignatureScheme::RSA_PSS_SHA256,
            ],
        }
    }
}

impl fmt::Debug for TpmKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TpmKey({})", self.kind)
    }
}

impl SigningKey for TpmKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let scheme = self.schemes().iter().find(|s| offered.contains(s))?;
        Some(Box::new(TpmSigner {
            key: self.clone(),
            scheme: *scheme,
        }))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match self.kind {
            KeyType::EccP256 => SignatureAlgorithm::ECDSA,
            KeyType::Rsa2048 => SignatureAlgorithm::RSA,
        }
    }
}

#[derive(Debug)]
struct TpmSigner {
    key: TpmKey,
    scheme: SignatureScheme,
}

impl Signer for TpmSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, TlsError> {
        let scheme = match self.scheme {
            SignatureScheme::RSA_PSS_SHA256 => Scheme::Pss,
            _ => Scheme::X509,
        };
        let failed = |e: String| TlsError::General(e);
        let key = self.key.key.lock().map_err(|e| failed(e.to_string()))?;
        key.sign(scheme, message).map_err(|e| failed(e.to_string()))
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}
