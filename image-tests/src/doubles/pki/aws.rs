//! Certificates as AWS IoT makes them, and claim pairs. In this process: a run has a thousand of them.
//!
//! The shape is that of certificates that AWS has issued in public: RSA issuer "Amazon Web Services O=Amazon.com
//! Inc. …" in one OU, 20 bytes of serial number, valid to the end of 2049, digitalSignature only.

use std::sync::OnceLock;

use anyhow::{Result, anyhow};
use openssl::asn1::{Asn1Integer, Asn1Time, Asn1Type};
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{HasPublic, PKey, PKeyRef, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, KeyUsage, SubjectKeyIdentifier,
};
use openssl::x509::{X509, X509Builder, X509Name, X509NameRef, X509Req};

/// The name that a certificate gets.
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

/// The CA that device certificates and claim certificates are signed by.
#[derive(Clone, Debug)]
pub struct Issuer {
    certificate: X509,
    key: PKey<Private>,
}

impl Issuer {
    /// One for all doubles of a program: an RSA key takes its time.
    pub fn shared() -> Result<Self> {
        static SHARED: OnceLock<Result<Issuer, String>> = OnceLock::new();
        let made = SHARED.get_or_init(|| Self::new().map_err(|e| format!("{e:#}")));
        made.clone().map_err(|e| anyhow!("{e}"))
    }

    fn new() -> Result<Self> {
        let key = PKey::from_rsa(Rsa::generate(2048)?)?;
        let name = name(&[(
            Nid::ORGANIZATIONALUNITNAME,
            "Amazon Web Services O=Amazon.com Inc. L=Seattle ST=Washington C=US",
        )])?;
        let mut builder = builder(&name, &name, &key)?;
        builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
        builder.append_extension(KeyUsage::new().critical().key_cert_sign().build()?)?;
        let identifier = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None))?;
        builder.append_extension(identifier)?;
        builder.sign(&key, MessageDigest::sha256())?;
        let certificate = builder.build();
        Ok(Self { certificate, key })
    }

    pub fn certificate_pem(&self) -> Result<Vec<u8>> {
        Ok(self.certificate.to_pem()?)
    }

    /// A device's certificate.
    pub fn issue<K: HasPublic>(
        &self,
        request: &X509Req,
        key: &PKeyRef<K>,
        subject: Subject,
    ) -> Result<X509> {
        match subject {
            Subject::Aws => self.certify(common_name("AWS IoT Certificate")?.as_ref(), key),
            Subject::Requested => self.certify(request.subject_name(), key),
        }
    }

    /// A new claim pair: certificate, and key as PKCS#8, both PEM.
    pub fn claim(&self, kind: ClaimKey) -> Result<(X509, PKey<Private>)> {
        let key = match kind {
            ClaimKey::Ecc => new_ecc_key()?,
            ClaimKey::Rsa => PKey::from_rsa(Rsa::generate(2048)?)?,
        };
        let subject = common_name("AWS IoT Certificate")?;
        Ok((self.certify(&subject, &key)?, key))
    }

    fn certify<K: HasPublic>(&self, subject: &X509NameRef, key: &PKeyRef<K>) -> Result<X509> {
        let mut builder = builder(subject, self.certificate.subject_name(), key)?;
        let context = builder.x509v3_context(Some(&self.certificate), None);
        let authority = AuthorityKeyIdentifier::new().keyid(true).build(&context)?;
        let identifier = SubjectKeyIdentifier::new().build(&context)?;
        builder.append_extension(authority)?;
        builder.append_extension(identifier)?;
        builder.append_extension(BasicConstraints::new().critical().build()?)?;
        builder.append_extension(KeyUsage::new().critical().digital_signature().build()?)?;
        builder.sign(&self.key, MessageDigest::sha256())?;
        Ok(builder.build())
    }
}

/// A key of nobody's.
pub fn new_ecc_key() -> Result<PKey<Private>> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    Ok(PKey::from_ec_key(EcKey::generate(&group)?)?)
}

fn common_name(text: &str) -> Result<X509Name> {
    name(&[(Nid::COMMONNAME, text)])
}

fn name(attributes: &[(Nid, &str)]) -> Result<X509Name> {
    let mut name = X509Name::builder()?;
    for (nid, value) in attributes {
        // With its type, OpenSSL lets the 66 characters of AWS's OU pass (RFC 5280 allows 64).
        name.append_entry_by_nid_with_type(*nid, value, Asn1Type::UTF8STRING)?;
    }
    Ok(name.build())
}

fn builder<K: HasPublic>(
    subject: &X509NameRef,
    issuer: &X509NameRef,
    key: &PKeyRef<K>,
) -> Result<X509Builder> {
    let mut builder = X509::builder()?;
    builder.set_version(2)?; // X.509 v3 (RFC 5280 §4.1.2.1)
    let mut serial = BigNum::new()?;
    serial.rand(159, MsbOption::ONE, false)?;
    let serial: Asn1Integer = serial.to_asn1_integer()?;
    builder.set_serial_number(&serial)?;
    builder.set_subject_name(subject)?;
    builder.set_issuer_name(issuer)?;
    builder.set_pubkey(key)?;
    // UTCTime, as RFC 5280 §4.1.2.5 wants it until 2049. Long ago, as the devices of the tests may believe in an old date.
    builder.set_not_before(Asn1Time::from_str("200101000000Z")?.as_ref())?;
    builder.set_not_after(Asn1Time::from_str("491231235959Z")?.as_ref())?;
    Ok(builder)
}
