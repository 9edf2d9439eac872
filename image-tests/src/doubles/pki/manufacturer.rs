//! A maker of TPMs: root and intermediate authority, and EK certificates in the form of the TCG EK Credential
//! Profile, right or wrong in one of the ways that a station has to refuse. P-256 throughout, made in this process.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use openssl::asn1::{Asn1Object, Asn1OctetString, Asn1Time};
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, PKeyRef, Private, Public};
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectKeyIdentifier,
};
use openssl::x509::{X509, X509Builder, X509Extension, X509Name, X509NameRef};
use tempfile::TempDir;

use crate::doubles::pki::Validity;
use crate::doubles::software_tpm::{Ek, SoftwareTpm};

/// tcg-kp-EKCertificate and tcg-kp-PlatformAttributeCertificate (TCG EK Credential Profile 2.6, §3.2.16; TCG
/// Platform Certificate Profile).
const EK_CERTIFICATE: &str = "2.23.133.8.1";
pub const PLATFORM_CERTIFICATE: &str = "2.23.133.8.2";
/// tcg-at-tpmManufacturer, -tpmModel and -tpmVersion (TCG EK Credential Profile 2.6, §3.1.2), as a chip has them.
const TPM: [(&str, &str); 3] = [
    ("2.23.133.2.1", "id:49465800"),
    ("2.23.133.2.2", "SLB 9670"),
    ("2.23.133.2.3", "id:00070055"),
];
/// subjectAltName (RFC 5280 §4.2.1.6).
const SUBJECT_ALT_NAME: &str = "2.5.29.17";

const ROOT: &str = "TPM Manufacturer Root CA";
const INTERMEDIATE: &str = "TPM Manufacturer EK CA 001";

/// First and last second of a certificate that is valid then.
fn dates(validity: Validity) -> [&'static str; 2] {
    match validity {
        Validity::Now => ["20200101000000Z", "20491231235959Z"],
        Validity::Expired => ["20200101000000Z", "20210101000000Z"],
        Validity::Recent => ["20230101000000Z", "20491231235959Z"],
        Validity::NotYet => ["20480101000000Z", "20491231235959Z"],
    }
}

/// What an EK certificate is like.
#[derive(Debug, Clone, Copy)]
pub struct EkForm {
    /// The extended key usage: an OID, none if it is empty.
    pub purpose: &'static str,
    /// A CA certificate, which no EK certificate is.
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

/// A certificate and its key.
#[derive(Debug, Clone)]
struct Pair {
    certificate: X509,
    key: PKey<Private>,
}

#[derive(Debug)]
pub struct Manufacturer {
    issuer: Pair,
    directory: TempDir,
}

impl Manufacturer {
    /// One whose certificates are as they should be. All makers have the same names.
    pub fn new() -> Result<Self> {
        Self::with(Validity::Now)
    }

    /// One whose intermediate authority is valid then.
    pub fn with(validity: Validity) -> Result<Self> {
        let root = authority(ROOT, None, Validity::Now, true)?;
        let intermediate = authority(INTERMEDIATE, Some(&root), validity, true)?;
        Self::of(&[&root, &intermediate])
    }

    /// One whose intermediate authority's key is not for signing certificates.
    pub fn that_may_not_sign() -> Result<Self> {
        let root = authority(ROOT, None, Validity::Now, true)?;
        let intermediate = authority(INTERMEDIATE, Some(&root), Validity::Now, false)?;
        Self::of(&[&root, &intermediate])
    }

    /// One whose intermediate authority has made another authority, which it may not.
    pub fn with_another_authority_below() -> Result<Self> {
        let root = authority(ROOT, None, Validity::Now, true)?;
        let intermediate = authority(INTERMEDIATE, Some(&root), Validity::Now, true)?;
        let below = authority("Somebody", Some(&intermediate), Validity::Now, true)?;
        Self::of(&[&root, &intermediate, &below])
    }

    /// The last one issues.
    fn of(authorities: &[&Pair]) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("tpm-maker-").tempdir()?;
        for (name, pair) in ["root", "intermediate", "below"].iter().zip(authorities) {
            let path = directory.path().join(name).with_extension("pem");
            fs::write(path, pair.certificate.to_pem()?)?;
        }
        let issuer = authorities.last().context("no authority")?;
        Ok(Self {
            issuer: (*issuer).clone(),
            directory,
        })
    }

    /// The directory with the certificates that a station pins: `root.pem` and `intermediate.pem`.
    pub fn certificates(&self) -> &Path {
        self.directory.path()
    }

    /// An EK certificate, DER.
    pub fn certify(&self, key: &PKeyRef<Public>, form: EkForm) -> Result<Vec<u8>> {
        let issuer = &self.issuer;
        let nobody = X509Name::builder()?.build();
        let name = issuer.certificate.subject_name();
        let mut builder = builder(&nobody, name, key, form.validity)?;
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
            builder.append_extension(ExtendedKeyUsage::new().other(form.purpose).build()?)?;
        }
        builder.append_extension(tpm_name()?)?;
        let context = builder.x509v3_context(Some(&issuer.certificate), None);
        let identifier = AuthorityKeyIdentifier::new().keyid(true).build(&context)?;
        builder.append_extension(identifier)?;
        builder.sign(&issuer.key, MessageDigest::sha256())?;
        Ok(builder.build().to_der()?)
    }

    /// Gives a TPM what it has from the factory: the certificate of this endorsement key, which is returned.
    pub fn equip(&self, tpm: &SoftwareTpm, ek: Ek) -> Result<Vec<u8>> {
        let key = tpm.endorsement_key(ek)?;
        let certificate = self.certify(&key, EkForm::default())?;
        tpm.set_ek_certificate(ek, &certificate)?;
        Ok(certificate)
    }
}

fn authority(
    common_name: &str,
    issuer: Option<&Pair>,
    validity: Validity,
    signs: bool,
) -> Result<Pair> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    let key = PKey::from_ec_key(EcKey::generate(&group)?)?;
    let mut name = X509Name::builder()?;
    name.append_entry_by_nid(Nid::COMMONNAME, common_name)?;
    let name = name.build();
    let (issuer_name, issuer_key) = match issuer {
        Some(issuer) => (issuer.certificate.subject_name(), &issuer.key),
        None => (name.as_ref(), &key),
    };
    let mut builder = builder(&name, issuer_name, &key, validity)?;
    let mut constraints = BasicConstraints::new();
    // No authority below the intermediate one.
    constraints
        .critical()
        .ca()
        .pathlen(u32::from(issuer.is_none()));
    builder.append_extension(constraints.build()?)?;
    let mut usage = KeyUsage::new();
    usage.critical().crl_sign();
    if signs {
        usage.key_cert_sign();
    }
    builder.append_extension(usage.build()?)?;
    let identifier = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None))?;
    builder.append_extension(identifier)?;
    builder.sign(issuer_key, MessageDigest::sha256())?;
    let certificate = builder.build();
    Ok(Pair { certificate, key })
}

fn builder<K: openssl::pkey::HasPublic>(
    subject: &X509NameRef,
    issuer: &X509NameRef,
    key: &PKeyRef<K>,
    validity: Validity,
) -> Result<X509Builder> {
    let mut builder = X509::builder()?;
    builder.set_version(2)?; // X.509 v3 (RFC 5280 §4.1.2.1)
    let mut serial = BigNum::new()?;
    serial.rand(120, MsbOption::ONE, false)?;
    builder.set_serial_number(serial.to_asn1_integer()?.as_ref())?;
    builder.set_subject_name(subject)?;
    builder.set_issuer_name(issuer)?;
    builder.set_pubkey(key)?;
    let [from, until] = dates(validity);
    builder.set_not_before(Asn1Time::from_str_x509(from)?.as_ref())?;
    builder.set_not_after(Asn1Time::from_str_x509(until)?.as_ref())?;
    Ok(builder)
}

/// The TPM in the subject's alternative name: a directoryName, critical as the subject is empty (TCG EK Credential
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
    anyhow::ensure!(length < 128, "{length} bytes are too many here");
    Ok([&[tag, length], content].concat())
}
