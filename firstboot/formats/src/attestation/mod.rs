//! Proof that a device's key is in a TPM, in one trip of the card.
//!
//! The request carries [`Evidence`]: the endorsement key's (EK) certificate, by which the TPM's manufacturer certifies
//! that the EK is in one of its TPMs, and the public area of the device's key ([`PublicArea`]). The issuer of the
//! certificate encrypts it ([`Reply`]) under a credential that only the TPM with that EK releases, and only while a key
//! with that very Name is loaded in it: TPM2_MakeCredential and TPM2_ActivateCredential (TPM 2.0 Library, Part 1 §24,
//! "Credential Protection"), which need no attestation key for this.
//!
//! | module | what |
//! |---|---|
//! | `public_area` | TPMT_PUBLIC of the device's key: read strictly, its Name, its key |
//! | `reply` | the wrapped reply: its JSON, who made it, for whom, what is in it |
//! | `canonical` | the bytes that a reply's signature and its AEAD cover |
//! | `make_credential`, `seal` | the station's side |

mod canonical;
mod make_credential;
mod public_area;
mod reply;
mod seal;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod vectors;

use serde::{Deserialize, Serialize};

use crate::digest::{Fingerprint, sha256};
use crate::encoding;

pub use make_credential::{EkPublic, make_credential};
pub use public_area::{KEY_ATTRIBUTES, NAME_SIZE, PublicArea};
pub use reply::{CREDENTIAL_SIZE, MAX_REPLY, Reply};
pub use seal::Contents;

/// What a request says about the TPM that its key is in; a part of the request's record, `<thing>.json`.
///
/// Has either an EK certificate or the reason why there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// TPMT_PUBLIC of the device's key (TPM 2.0 Library, Part 2 §12.2.4); base64 in JSON.
    #[serde(with = "encoding::base64")]
    pub key_public: Vec<u8>,
    /// DER of the EK certificate; base64 in JSON.
    #[serde(
        default,
        with = "encoding::optional_base64",
        skip_serializing_if = "Option::is_none"
    )]
    pub ek_certificate: Option<Vec<u8>>,
    /// Why there is no EK certificate, in words. Nothing then shows that the key is in a TPM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unattested: Option<String>,
}

impl Evidence {
    /// SHA-256 of the EK certificate, if there is one.
    pub fn ek_sha256(&self) -> Option<Fingerprint> {
        self.ek_certificate.as_deref().map(sha256)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn evidence_in_json_is_base64_and_has_no_empty_fields() {
        let attested = Evidence {
            key_public: vec![0, 0x23],
            ek_certificate: Some(vec![0x30, 0x82, 0xFF]),
            unattested: None,
        };
        let text = serde_json::to_string(&attested).unwrap();
        assert_eq!(text, r#"{"key_public":"ACM=","ek_certificate":"MIL/"}"#);
        assert_eq!(serde_json::from_str::<Evidence>(&text).unwrap(), attested);
        let unattested = r#"{"key_public":"ACM=","unattested":"none"}"#;
        let read: Evidence = serde_json::from_str(unattested).unwrap();
        assert_eq!(read.ek_sha256(), None);
        assert_eq!(serde_json::to_string(&read).unwrap(), unattested);
        assert!(serde_json::from_str::<Evidence>(r#"{"key_public":"ACM"}"#).is_err());
    }
}
