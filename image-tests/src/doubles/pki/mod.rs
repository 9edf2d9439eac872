//! Certificate authorities: the operator's, AWS IoT's, a TPM manufacturer's. One function makes all certificates; the
//! authorities differ in what they put into them, correctly or not.

pub mod aws;
mod manufacturer;
mod operator;

pub use manufacturer::{EkForm, Manufacturer, PLATFORM_CERTIFICATE};
pub use operator::{Authority, Issuing, Pair};

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use openssl::asn1::{Asn1Time, Asn1Type};
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{HasPublic, PKey, PKeyRef, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, KeyUsage, SubjectKeyIdentifier,
};
use openssl::x509::{X509, X509Builder, X509Name, X509NameRef};

/// When a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// Since long ago: a device without a clock may believe in an old date.
    Now,
    /// Valid now, but issued later than `Now`'s.
    Recent,
    Expired,
    NotYet,
    /// So many days of its lifetime are over, and so many are left.
    Days {
        over: u32,
        left: u32,
    },
}

impl Validity {
    /// Due for renewal at two thirds of its lifetime, and not near its end.
    pub const DUE: Self = Self::Days {
        over: 200,
        left: 50,
    };
    /// In its last days.
    pub const ENDING: Self = Self::Days {
        over: 240,
        left: 10,
    };
    /// Of this year, and not due for renewal.
    pub const YOUNG: Self = Self::Days {
        over: 10,
        left: 355,
    };

    /// The first and the last second.
    fn dates(self) -> Result<[Asn1Time; 2]> {
        let [from, until] = match self {
            Self::Now => ["20200101000000Z", "20491231235959Z"],
            Self::Recent => ["20230101000000Z", "20491231235959Z"],
            Self::Expired => ["20200101000000Z", "20210101000000Z"],
            Self::NotYet => ["20700101000000Z", "20710101000000Z"],
            Self::Days { over, left } => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() as i64;
                let day = |count: i64| Asn1Time::from_unix(now + count * 24 * 60 * 60);
                return Ok([day(-i64::from(over))?, day(left.into())?]);
            }
        };
        Ok([
            Asn1Time::from_str_x509(from)?,
            Asn1Time::from_str_x509(until)?,
        ])
    }
}

/// A CA: its certificate and its key.
#[derive(Debug, Clone)]
struct Issuer {
    certificate: X509,
    key: PKey<Private>,
}

impl Issuer {
    /// A self-signed CA.
    fn root(name: &X509NameRef, key: PKey<Private>, path_length: Option<u32>) -> Result<Self> {
        let certificate = sign(name, &key, (name, &key), Validity::Now, |builder| {
            extend_authority(builder, path_length, true)
        })?;
        Ok(Self { certificate, key })
    }

    /// A P-256 CA below this one. `signs`: whether its key usage includes signing certificates.
    fn below(
        &self,
        common_name: &str,
        validity: Validity,
        path_length: Option<u32>,
        signs: bool,
    ) -> Result<Self> {
        let key = p256()?;
        let name = named(common_name)?;
        let certificate = self.certify(&name, &key, validity, |builder| {
            extend_authority(builder, path_length, signs)
        })?;
        Ok(Self { certificate, key })
    }

    /// A certificate for a key, with the extensions that `extend` adds.
    fn certify<K: HasPublic>(
        &self,
        subject: &X509NameRef,
        key: &PKeyRef<K>,
        validity: Validity,
        extend: impl FnOnce(&mut X509Builder) -> Result<()>,
    ) -> Result<X509> {
        let issuer = (self.certificate.subject_name(), &*self.key);
        sign(subject, key, issuer, validity, extend)
    }

    /// A device's certificate, with nothing beyond what each has.
    fn certify_leaf<K: HasPublic>(
        &self,
        subject: &X509NameRef,
        key: &PKeyRef<K>,
        validity: Validity,
    ) -> Result<X509> {
        self.certify(subject, key, validity, |builder| self.extend_leaf(builder))
    }

    /// What each certificate of a device has: the key identifiers, by which CAs of the same name are told apart, and
    /// that it is not a CA's and signs.
    fn extend_leaf(&self, builder: &mut X509Builder) -> Result<()> {
        let context = builder.x509v3_context(Some(&self.certificate), None);
        let authority = AuthorityKeyIdentifier::new().keyid(true).build(&context)?;
        let identifier = SubjectKeyIdentifier::new().build(&context)?;
        builder.append_extension(authority)?;
        builder.append_extension(identifier)?;
        builder.append_extension(BasicConstraints::new().critical().build()?)?;
        Ok(builder.append_extension(KeyUsage::new().critical().digital_signature().build()?)?)
    }
}

/// An X.509 v3 certificate, signed with SHA-256.
fn sign<K: HasPublic>(
    subject: &X509NameRef,
    key: &PKeyRef<K>,
    (issuer, issuer_key): (&X509NameRef, &PKeyRef<Private>),
    validity: Validity,
    extend: impl FnOnce(&mut X509Builder) -> Result<()>,
) -> Result<X509> {
    let mut builder = X509::builder()?;
    builder.set_version(2)?; // v3 (RFC 5280 §4.1.2.1)
    // 20 octets, and positive (RFC 5280 §4.1.2.2).
    let mut serial = BigNum::new()?;
    serial.rand(159, MsbOption::ONE, false)?;
    builder.set_serial_number(serial.to_asn1_integer()?.as_ref())?;
    builder.set_subject_name(subject)?;
    builder.set_issuer_name(issuer)?;
    builder.set_pubkey(key)?;
    let [from, until] = validity.dates()?;
    builder.set_not_before(&from)?;
    builder.set_not_after(&until)?;
    extend(&mut builder)?;
    builder.sign(issuer_key, MessageDigest::sha256())?;
    Ok(builder.build())
}

fn extend_authority(
    builder: &mut X509Builder,
    path_length: Option<u32>,
    signs: bool,
) -> Result<()> {
    let mut constraints = BasicConstraints::new();
    constraints.critical().ca();
    if let Some(length) = path_length {
        constraints.pathlen(length);
    }
    builder.append_extension(constraints.build()?)?;
    let mut usage = KeyUsage::new();
    usage.critical().crl_sign();
    if signs {
        usage.key_cert_sign();
    }
    builder.append_extension(usage.build()?)?;
    let identifier = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None))?;
    Ok(builder.append_extension(identifier)?)
}

/// A new P-256 key.
pub fn p256() -> Result<PKey<Private>> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    Ok(PKey::from_ec_key(EcKey::generate(&group)?)?)
}

/// A new RSA-2048 key.
fn rsa_2048() -> Result<PKey<Private>> {
    Ok(PKey::from_rsa(Rsa::generate(2048)?)?)
}

/// A name that consists of a common name.
pub fn named(common_name: &str) -> Result<X509Name> {
    name_of(Nid::COMMONNAME, common_name)
}

fn name_of(attribute: Nid, value: &str) -> Result<X509Name> {
    let mut name = X509Name::builder()?;
    // Given the string's type, OpenSSL accepts the 66 characters of AWS's OU (RFC 5280 allows 64).
    name.append_entry_by_nid_with_type(attribute, value, Asn1Type::UTF8STRING)?;
    Ok(name.build())
}

/// Bytes in hexadecimal, as in certificate IDs and records.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
