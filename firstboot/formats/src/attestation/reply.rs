//! The wrapped reply, `<thing>.reply.json`: a certificate that only one TPM can open.
//!
//! | field | what |
//! |---|---|
//! | `version` | 1 |
//! | `thing_name` | whom it is for |
//! | `key_name` | the Name of the device's key (TPM 2.0 Library, Part 1 §16), hexadecimal |
//! | `ek_certificate_sha256` | the TPM that can open it, hexadecimal |
//! | `credential_blob` | TPM2B_ID_OBJECT (Part 2 §12.4.3), with its size, base64 |
//! | `secret` | TPM2B_ENCRYPTED_SECRET (Part 2 §11.4.3), with its size, base64 |
//! | `nonce` | 12 bytes, base64 |
//! | `ciphertext` | AES-256-GCM of the PEM chain, leaf first, with the tag of 16 bytes at its end; base64 |
//! | `issuer` | DER of the operator's CA certificate whose key has signed this reply, base64 |
//! | `signature` | that signature: ECDSA (DER) or RSASSA-PKCS1-v1_5, with SHA-256; base64 |
//!
//! The AES key is the credential, which TPM2_ActivateCredential returns. The additional data of the GCM are the fields
//! before `nonce`; the signature covers [`SIGNED`], all fields before `issuer`, and `issuer` (`canonical` says how they
//! become bytes). Anybody can make a credential for a TPM, so the issuer is checked first, then whether the reply is
//! for this device. A reply that fails reaches neither the TPM nor anything else.

use openssl::symm::{Cipher, decrypt_aead};
use openssl::x509::X509;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::NAME_SIZE;
use super::canonical::Canonical;
use crate::digest::{Fingerprint, sha256};
use crate::encoding::{base64, hex, to_hex};
use crate::printable::printable;
use crate::public_key::{PublicKey, Scheme};

/// Maximum size of a reply's file, bytes. With an RSA-4096 issuer and three certificates it has some 12,000.
pub const MAX_REPLY: usize = 64 * 1024;
/// Bytes of the credential: the maximum for a TPM whose EK has SHA-256 as its name algorithm (Part 3,
/// TPM2_MakeCredential), and the size of an AES-256 key.
pub const CREDENTIAL_SIZE: usize = 32;
/// The version of this format.
pub(super) const VERSION: u32 = 1;
/// The beginning of the signed bytes. Otherwise a CA signs DER, which begins with 0x30.
const SIGNED: &[u8] = b"firstboot reply v1\0";
/// Bytes of the nonce and of the tag (NIST SP 800-38D §5.2.1).
pub(super) const NONCE: usize = 12;
pub(super) const TAG: usize = 16;
/// TPM2B_ID_OBJECT: three sizes, an HMAC-SHA-256, and an encrypted credential.
const CREDENTIAL_BLOB: usize = 2 + (2 + 32) + (2 + CREDENTIAL_SIZE);
/// TPM2B_ENCRYPTED_SECRET for an EK of P-256 (a point) and of RSA-2048.
const SECRETS: [usize; 2] = [2 + 2 * (2 + 32), 2 + 256];

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    pub(super) version: u32,
    /// Whom it is for.
    pub thing_name: String,
    /// The Name of the key that it is for.
    #[serde(with = "hex")]
    pub key_name: [u8; NAME_SIZE],
    /// SHA-256 of the EK certificate of the TPM that can open it.
    #[serde(with = "hex")]
    pub ek_certificate_sha256: Fingerprint,
    /// TPM2B_ID_OBJECT, for TPM2_ActivateCredential; with its size.
    #[serde(with = "base64")]
    pub credential_blob: Vec<u8>,
    /// TPM2B_ENCRYPTED_SECRET, for TPM2_ActivateCredential; with its size.
    #[serde(with = "base64")]
    pub secret: Vec<u8>,
    #[serde(with = "base64")]
    pub(super) nonce: Vec<u8>,
    #[serde(with = "base64")]
    pub(super) ciphertext: Vec<u8>,
    /// DER of the certificate whose key has signed it.
    #[serde(with = "base64")]
    pub issuer: Vec<u8>,
    #[serde(with = "base64")]
    pub(super) signature: Vec<u8>,
}

impl Reply {
    /// Parses a reply's file. Only its form is checked yet. The error says what is wrong.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        if text.len() > MAX_REPLY {
            return Err(format!("it is larger than {MAX_REPLY} bytes"));
        }
        let no_reply = |e: serde_json::Error| printable(format!("it is not a wrapped reply: {e}"));
        let Versioned { version } = serde_json::from_slice(text).map_err(no_reply)?;
        if version != VERSION {
            return Err(format!(
                "it has version {version}, but this firstboot reads only version {VERSION}: use the firstboot-station \
                 of the same release"
            ));
        }
        let reply: Self = serde_json::from_slice(text).map_err(no_reply)?;
        let is_tpm2b = |bytes: &[u8]| {
            let size = (bytes.len().wrapping_sub(2) as u16).to_be_bytes();
            bytes.starts_with(&size)
        };
        for (field, good) in [
            (
                "credential_blob",
                reply.credential_blob.len() == CREDENTIAL_BLOB && is_tpm2b(&reply.credential_blob),
            ),
            (
                "secret",
                SECRETS.contains(&reply.secret.len()) && is_tpm2b(&reply.secret),
            ),
            ("nonce", reply.nonce.len() == NONCE),
            ("ciphertext", reply.ciphertext.len() > TAG),
        ] {
            if !good {
                return Err(format!(
                    "it is not a wrapped reply: {field} has the wrong size"
                ));
            }
        }
        Ok(reply)
    }

    /// The reply's file.
    pub fn json(&self) -> Result<String, String> {
        let text = serde_json::to_string_pretty(self).map_err(|e| e.to_string())?;
        Ok(text + "\n")
    }

    /// Whether it is from one of these issuers, whole, and for this thing, this key and this TPM. Sends no TPM command.
    /// Before this, only the form can be relied on. The error tells the operator what is wrong.
    pub fn check(
        &self,
        issuers: &[Fingerprint],
        thing_name: &str,
        key_name: &[u8; NAME_SIZE],
        ek_sha256: &Fingerprint,
    ) -> Result<(), String> {
        let issuer = sha256(&self.issuer);
        if !issuers.contains(&issuer) {
            return Err(format!(
                "its issuer's certificate (SHA-256 {}) is not in the setting enrollment.issuers",
                to_hex(&issuer)
            ));
        }
        if !self.is_signed() {
            return Err(
                "it is not signed by the key of its issuer's certificate: it was damaged or changed"
                    .into(),
            );
        }
        if self.thing_name != thing_name {
            return Err(printable(format!(
                "it is for \"{}\", but this thing's name is \"{thing_name}\"",
                self.thing_name
            )));
        }
        if &self.key_name != key_name {
            return Err(
                "it is for another key, not this device's: was it made from the device's current request?"
                    .into(),
            );
        }
        if &self.ek_certificate_sha256 != ek_sha256 {
            return Err(format!(
                "it is for another TPM (EK certificate {}), not this device's ({})",
                to_hex(&self.ek_certificate_sha256),
                to_hex(ek_sha256)
            ));
        }
        Ok(())
    }

    /// Decrypts the PEM chain with the credential that the TPM has released for it.
    pub fn open(&self, credential: &[u8; CREDENTIAL_SIZE]) -> Result<Zeroizing<Vec<u8>>, String> {
        let damaged =
            "it cannot be decrypted with the credential from the TPM: it was damaged or changed";
        let (ciphertext, tag) = self.ciphertext.split_last_chunk::<TAG>().ok_or(damaged)?;
        let additional = self.additional();
        decrypt_aead(
            Cipher::aes_256_gcm(),
            credential,
            Some(&self.nonce),
            additional.bytes(),
            ciphertext,
            tag,
        )
        .map(Zeroizing::new)
        .map_err(|_| damaged.into())
    }

    /// GCM's additional data: what the reply is for.
    pub(super) fn additional(&self) -> Canonical {
        self.clear_fields(b"")
    }

    /// What the issuer signs.
    pub(super) fn signed(&self) -> Vec<u8> {
        self.clear_fields(SIGNED)
            .field(&self.nonce)
            .field(&self.ciphertext)
            .field(&self.issuer)
            .bytes()
            .to_vec()
    }

    fn clear_fields(&self, prefix: &[u8]) -> Canonical {
        Canonical::new(prefix)
            .field(&self.version.to_be_bytes())
            .field(self.thing_name.as_bytes())
            .field(&self.key_name)
            .field(&self.ek_certificate_sha256)
            .field(&self.credential_blob)
            .field(&self.secret)
    }

    fn is_signed(&self) -> bool {
        let key = || {
            let key = X509::from_der(&self.issuer).ok()?.public_key().ok()?;
            key.public_key_to_der().ok()
        };
        key().is_some_and(|spki| {
            PublicKey::from_spki(spki).verifies(Scheme::X509, &self.signed(), &self.signature)
        })
    }
}
