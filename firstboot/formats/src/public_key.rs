//! A public key as the DER of its SubjectPublicKeyInfo (RFC 5280 §4.1.2.7).
//!
//! The TPM's signatures are verified here, in software, by the system's libcrypto.

use std::fmt;

use openssl::bn::{BigNum, BigNumContext};
use openssl::ec::{EcGroup, EcKey, EcPoint};
use openssl::ecdsa::EcdsaSig;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Public};
use openssl::rsa::{Padding, Rsa};
use openssl::sign::{RsaPssSaltlen, Verifier};
use serde::{Deserialize, Serialize};

use crate::digest::sha256;
use crate::encoding::to_hex;

/// What kind of key the device has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum KeyType {
    /// ECDSA on NIST P-256: 0.2 s to make on an SLB 9670.
    #[default]
    #[serde(rename = "ecc-p256")]
    EccP256,
    /// RSA with 2048 bits: 10 s on average, and occasionally 50 s (docs/findings/slb9670.md, "Latencies"). Needed for
    /// Greengrass's secret manager.
    #[serde(rename = "rsa-2048")]
    Rsa2048,
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EccP256 => "ECC P-256",
            Self::Rsa2048 => "RSA-2048",
        })
    }
}

/// A key's algorithm, whatever its size: a CA's key may have another size than a device's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFamily {
    /// ECDSA, on any curve.
    Ecc,
    /// RSA.
    Rsa,
}

/// How a signature was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// What certificates and requests carry: ECDSA with SHA-256 (DER), or RSASSA-PKCS1-v1_5 with
    /// SHA-256.
    X509,
    /// RSASSA-PSS with SHA-256, MGF1 with SHA-256 and a salt of 32 bytes: the only form that TLS 1.3 accepts from an
    /// RSA key (RFC 8446 §4.2.3, `rsa_pss_rsae_sha256`).
    Pss,
}

/// A public key. Two are equal when their SubjectPublicKeyInfo is, byte for byte.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    spki: Vec<u8>,
}

impl PublicKey {
    /// From an elliptic curve point on P-256, uncompressed (SEC 1 §2.3.3).
    pub fn from_p256_point(point: &[u8]) -> Result<Self, ErrorStack> {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
        let point = EcPoint::from_bytes(&group, point, &mut *BigNumContext::new()?)?;
        let key = EcKey::from_public_key(&group, &point)?;
        key.check_key()?;
        Ok(Self {
            spki: key.public_key_to_der()?,
        })
    }

    /// From an RSA modulus and public exponent, big endian.
    pub fn from_rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, ErrorStack> {
        let key = Rsa::from_public_components(
            BigNum::from_slice(modulus)?,
            BigNum::from_slice(exponent)?,
        )?;
        Ok(Self {
            spki: key.public_key_to_der()?,
        })
    }

    /// From the DER of a SubjectPublicKeyInfo, as in a request or a certificate.
    pub fn from_spki(spki: Vec<u8>) -> Self {
        Self { spki }
    }

    /// The DER of the SubjectPublicKeyInfo.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// SHA-256 of the SubjectPublicKeyInfo in hexadecimal: what `openssl pkey -pubin -outform DER
    /// | sha256sum` shows.
    pub fn fingerprint(&self) -> String {
        to_hex(&sha256(&self.spki))
    }

    /// RSA or ECC, if it is a key that this crate knows.
    pub fn family(&self) -> Option<KeyFamily> {
        match self.decode().ok()?.id() {
            Id::EC => Some(KeyFamily::Ecc),
            Id::RSA => Some(KeyFamily::Rsa),
            _ => None,
        }
    }

    /// The type of a device's key of this family, if it is a key that this crate knows.
    pub fn key_type(&self) -> Option<KeyType> {
        self.family().map(|family| match family {
            KeyFamily::Ecc => KeyType::EccP256,
            KeyFamily::Rsa => KeyType::Rsa2048,
        })
    }

    /// Whether `signature` over `message` was made by this key. Anything that cannot be a signature does not verify.
    pub fn verifies(&self, scheme: Scheme, message: &[u8], signature: &[u8]) -> bool {
        let attempt = || -> Result<bool, ErrorStack> {
            let key = self.decode()?;
            let mut verifier = Verifier::new(MessageDigest::sha256(), &key)?;
            if scheme == Scheme::Pss {
                verifier.set_rsa_padding(Padding::PKCS1_PSS)?;
                verifier.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH)?;
            }
            verifier.verify_oneshot(signature, message)
        };
        attempt().unwrap_or(false)
    }

    fn decode(&self) -> Result<PKey<Public>, ErrorStack> {
        PKey::public_key_from_der(&self.spki)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.fingerprint())
    }
}

/// An ECDSA signature as X.509 has it: the DER of `ECDSA-Sig-Value` (RFC 3279 §2.2.3) of its two numbers, big endian.
pub fn ecdsa_der(r: &[u8], s: &[u8]) -> Result<Vec<u8>, ErrorStack> {
    EcdsaSig::from_private_components(BigNum::from_slice(r)?, BigNum::from_slice(s)?)?.to_der()
}
