//! The record of a request: `<thing>.json` on the card.

use serde::{Deserialize, Serialize};

use crate::attestation::Evidence;
use crate::countersignature::Countersignature;
use crate::public_key::KeyType;

/// The version of a [`Record`]'s form.
pub const RECORD_VERSION: u32 = 1;

/// What an operator's inventory needs to know about a request. The same text is in the identity directory and on the
/// boot partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The form's version, [`RECORD_VERSION`]; 0 in the record of an older firstboot. Changed names make a new version;
    /// additional names do not.
    #[serde(default)]
    pub version: u32,
    /// The thing's name.
    pub thing_name: String,
    /// The board's serial number; empty if it has none.
    pub serial: String,
    /// The TPM, in words.
    pub tpm: String,
    /// The key's type.
    pub key: KeyType,
    /// SHA-256 of the key's SubjectPublicKeyInfo.
    pub key_sha256: String,
    /// SHA-256 of the request file.
    pub csr_sha256: String,
    /// What shows that the key is in a TPM; none in the record of an older firstboot.
    #[serde(flatten)]
    pub evidence: Option<Evidence>,
    /// What shows that the holder of the key in service asks for another; none if the request is not for a next key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub countersignature: Option<Countersignature>,
}

impl Record {
    /// Stands for a record that is lost or damaged: nothing in it is right, so the request is signed again.
    pub fn lost(key: KeyType) -> Self {
        Self {
            version: RECORD_VERSION,
            thing_name: String::new(),
            serial: String::new(),
            tpm: String::new(),
            key,
            key_sha256: String::new(),
            csr_sha256: String::new(),
            evidence: None,
            countersignature: None,
        }
    }
}
