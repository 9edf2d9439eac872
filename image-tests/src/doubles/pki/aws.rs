//! Certificates as AWS IoT issues them, and claim pairs.
//!
//! They look like AWS certificates found in public: RSA issuer "Amazon Web Services O=Amazon.com Inc. …" in one OU, a
//! serial number of 20 bytes, valid until the end of 2049, digitalSignature only.

use std::sync::OnceLock;

use anyhow::{Result, anyhow};
use openssl::nid::Nid;
use openssl::pkey::{HasPublic, PKey, PKeyRef, Private};
use openssl::x509::{X509, X509Req};

use super::{Issuer, Validity, name_of, named, p256, rsa_2048};

/// The subject of device certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Subject {
    /// "CN=AWS IoT Certificate", whatever was requested.
    #[default]
    Aws,
    /// The one that was requested.
    Requested,
}

/// The key of a claim pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimKey {
    Ecc,
    Rsa,
}

/// The CA that signs device certificates and claim certificates.
#[derive(Clone, Debug)]
pub struct AwsCa(Issuer);

impl AwsCa {
    /// One CA for all doubles of a program, as generating an RSA key takes time.
    pub fn shared() -> Result<Self> {
        static SHARED: OnceLock<Result<AwsCa, String>> = OnceLock::new();
        let made = SHARED.get_or_init(|| Self::new().map_err(|e| format!("{e:#}")));
        made.clone().map_err(|e| anyhow!("{e}"))
    }

    fn new() -> Result<Self> {
        let unit = "Amazon Web Services O=Amazon.com Inc. L=Seattle ST=Washington C=US";
        let name = name_of(Nid::ORGANIZATIONALUNITNAME, unit)?;
        Ok(Self(Issuer::root(&name, rsa_2048()?, None)?))
    }

    pub fn certificate_pem(&self) -> Result<Vec<u8>> {
        Ok(self.0.certificate.to_pem()?)
    }

    /// A device certificate for the key of the request.
    pub fn issue<K: HasPublic>(
        &self,
        request: &X509Req,
        key: &PKeyRef<K>,
        subject: Subject,
        validity: Validity,
    ) -> Result<X509> {
        match subject {
            Subject::Aws => self.0.certify_leaf(&*named(AWS_SUBJECT)?, key, validity),
            Subject::Requested => self.0.certify_leaf(request.subject_name(), key, validity),
        }
    }

    /// A certificate for a key other than the requested one.
    pub fn issue_for_another_key(&self) -> Result<X509> {
        self.0
            .certify_leaf(&*named(AWS_SUBJECT)?, &*p256()?, Validity::Now)
    }

    /// A new claim pair.
    pub fn claim(&self, kind: ClaimKey) -> Result<(X509, PKey<Private>)> {
        let key = match kind {
            ClaimKey::Ecc => p256()?,
            ClaimKey::Rsa => rsa_2048()?,
        };
        let certificate = self
            .0
            .certify_leaf(&*named(AWS_SUBJECT)?, &key, Validity::Now)?;
        Ok((certificate, key))
    }
}

const AWS_SUBJECT: &str = "AWS IoT Certificate";
