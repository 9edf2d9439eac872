//! A TPM manufacturer: root and intermediate CA, and EK certificates by the TCG EK Credential Profile, good ones or bad
//! ones that a station has to refuse. P-256 throughout.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use openssl::asn1::{Asn1Object, Asn1OctetString};
use openssl::pkey::{Id, PKeyRef, Public};
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage,
};
use openssl::x509::{X509Extension, X509Name};
use tempfile::TempDir;

use super::{Issuer, Validity, named, p256};
use crate::doubles::software_tpm::{Ek, SoftwareTpm};

/// tcg-kp-EKCertificate and tcg-kp-PlatformAttributeCertificate (TCG EK Credential Profile 2.6, §3.2.16; TCG
/// Platform Certificate Profile).
const EK_CERTIFICATE: &str = "2.23.133.8.1";
pub const PLATFORM_CERTIFICATE: &str = "2.23.133.8.2";
/// tcg-at-tpmManufacturer, -tpmModel and -tpmVersion (TCG EK Credential Profile 2.6, §3.1.2), as in a chip's
/// certificate.
const TPM: [(&str, &str); 3] = [
    ("2.23.133.2.1", "id:49465800"),
    ("2.23.133.2.2", "SLB 9670"),
    ("2.23.133.2.3", "id:00070055"),
];
/// subjectAltName (RFC 5280 §4.2.1.6).
const SUBJECT_ALT_NAME: &str = "2.5.29.17";

const ROOT: &str = "TPM Manufacturer Root CA";
const INTERMEDIATE: &str = "TPM Manufacturer EK CA 001";

/// How an EK certificate is made.
#[derive(Debug, Clone, Copy)]
pub struct EkForm {
    /// The extended key usage: an OID; none if empty.
    pub purpose: &'static str,
    /// Make it a CA certificate, which an EK certificate must not be.
    pub authority: bool,
    pub validity: Validity,
}

impl Default for EkForm {
    fn default() -> Self {
        Self {
            purpose: EK_CERTIFICATE,
            authority: false,
            validity: Validity::Now,
        }
    }
}

#[derive(Debug)]
pub struct Manufacturer {
    issuer: Issuer,
    directory: TempDir,
}

impl Manufacturer {
    /// One with good CA certificates. All manufacturers have the same names.
    pub fn new() -> Result<Self> {
        Self::with(Validity::Now)
    }

    /// One whose intermediate CA has this validity.
    pub fn with(validity: Validity) -> Result<Self> {
        let root = root()?;
        let intermediate = root.below(INTERMEDIATE, validity, Some(0), true)?;
        Self::of(&[root, intermediate])
    }

    /// One whose intermediate CA lacks the key usage for signing certificates.
    pub fn that_may_not_sign() -> Result<Self> {
        let root = root()?;
        let intermediate = root.below(INTERMEDIATE, Validity::Now, Some(0), false)?;
        Self::of(&[root, intermediate])
    }

    /// One whose intermediate CA has issued a CA certificate, against its path length.
    pub fn with_another_authority_below() -> Result<Self> {
        let root = root()?;
        let intermediate = root.below(INTERMEDIATE, Validity::Now, Some(0), true)?;
        let below = intermediate.below("Somebody", Validity::Now, Some(0), true)?;
        Self::of(&[root, intermediate, below])
    }

    /// The last of the CAs issues.
    fn of(authorities: &[Issuer]) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("tpm-manufacturer-")
            .tempdir()?;
        for (name, authority) in ["root", "intermediate", "below"].iter().zip(authorities) {
            let path = directory.path().join(name).with_extension("pem");
            fs::write(path, authority.certificate.to_pem()?)?;
        }
        let issuer = authorities.last().context("no authority")?.clone();
        Ok(Self { issuer, directory })
    }

    /// The directory of CA certificates for `--vendor-ca`: `root.pem` and `intermediate.pem`.
    pub fn certificates(&self) -> &Path {
        self.directory.path()
    }

    /// An EK certificate, DER.
    pub fn certify(&self, key: &PKeyRef<Public>, form: EkForm) -> Result<Vec<u8>> {
        let nobody = X509Name::builder()?.build();
        let issuer = &self.issuer;
        let certificate = issuer.certify(&nobody, key, form.validity, |builder| {
            let mut constraints = BasicConstraints::new();
            constraints.critical();
            if form.authority {
                constraints.ca();
            }
            builder.append_extension(constraints.build()?)?;
            let mut usage = KeyUsage::new();
            match key.id() {
                Id::RSA => usage.critical().key_encipherment(),
                _ => usage.critical().key_agreement(),
            };
            builder.append_extension(usage.build()?)?;
            if !form.purpose.is_empty() {
                let purpose = ExtendedKeyUsage::new().other(form.purpose).build()?;
                builder.append_extension(purpose)?;
            }
            builder.append_extension(tpm_name()?)?;
            let context = builder.x509v3_context(Some(&issuer.certificate), None);
            let identifier = AuthorityKeyIdentifier::new().keyid(true).build(&context)?;
            Ok(builder.append_extension(identifier)?)
        })?;
        Ok(certificate.to_der()?)
    }

    /// Writes an EK certificate into a TPM, as the factory does, and returns it.
    pub fn equip(&self, tpm: &SoftwareTpm, ek: Ek) -> Result<Vec<u8>> {
        let key = tpm.endorsement_key(ek)?;
        let certificate = self.certify(&key, EkForm::default())?;
        tpm.set_ek_certificate(ek, &certificate)?;
        Ok(certificate)
    }
}

/// The root CA, with a path length of one.
fn root() -> Result<Issuer> {
    Issuer::root(&*named(ROOT)?, p256()?, Some(1))
}

/// The TPM as the subject's alternative name: a directoryName, critical because the subject is empty (TCG EK Credential
/// Profile 2.6, §3.2.9).
fn tpm_name() -> Result<X509Extension> {
    let mut name = X509Name::builder()?;
    for (attribute, value) in TPM {
        name.append_entry_by_text(attribute, value)?;
    }
    // GeneralNames with one directoryName, [4] EXPLICIT (RFC 5280 §4.2.1.6).
    let names = tagged(0x30, &tagged(0xA4, &name.build().to_der()?)?)?;
    let oid = Asn1Object::from_str(SUBJECT_ALT_NAME)?;
    let value = Asn1OctetString::new_from_bytes(&names)?;
    Ok(X509Extension::new_from_der(&oid, true, &value)?)
}

/// A DER value of less than 128 bytes (X.690 §8.1.3.4).
fn tagged(tag: u8, content: &[u8]) -> Result<Vec<u8>> {
    let length = u8::try_from(content.len())?;
    anyhow::ensure!(length < 128, "{length} bytes need a longer length field");
    Ok([&[tag, length], content].concat())
}
