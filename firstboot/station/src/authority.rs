//! The operator's CA: issues device certificates, and signs replies.

use std::path::Path;

use firstboot_formats::encoding::hexadecimal;
use firstboot_formats::public_key::{KeyType, PublicKey, Scheme};
use firstboot_formats::x509;
use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectKeyIdentifier,
};
use openssl::x509::{X509, X509Name};
use x509_cert::Certificate;
use x509_cert::der::asn1::BitString;
use x509_cert::der::{Decode, Encode, Header, Length, Tag};
use zeroize::Zeroizing;

use crate::error::{Context, Error, Exit, Result};
use crate::request::file;
use crate::signer::{KeySource, Signer};
use crate::stop::Stop;

/// A CA certificate with its issuers has at most this many bytes.
const MAX_CHAIN: usize = 64 * 1024;
/// Random bits of a serial number, below 20 bytes with their sign (RFC 5280 §4.1.2.2; 64 bits at least by the
/// CA/Browser Forum's Baseline Requirements §7.1): nobody can guess what a certificate will be.
const SERIAL_BITS: i32 = 127;
/// A common name has at most this many characters (RFC 5280 appendix A.1, ub-common-name), a thing's name twice as
/// many. OpenSSL makes no longer one.
const MAX_COMMON_NAME: usize = 64;
/// How far a certificate begins in the past, in seconds: a device's clock may be behind.
const BACKDATED: i64 = 60 * 60;

/// The CA.
pub(crate) struct Authority {
    certificate: X509,
    /// Its certificate and those of its issuers, as the operator gave them.
    chain: Vec<u8>,
    kind: KeyType,
    signer: Signer,
    /// A key of the same kind that signs what is then signed again.
    stand_in: PKey<Private>,
}

/// A new certificate.
pub(crate) struct Issued {
    /// Leaf first, PEM.
    pub(crate) chain: Zeroizing<Vec<u8>>,
    /// Hexadecimal.
    pub(crate) serial: String,
}

impl Authority {
    /// Reads the CA's certificate (PEM, with the certificates of its issuers after it, if devices are to show
    /// those), opens its key, and tries it.
    pub(crate) fn open(certificates: &Path, key: &KeySource<'_>) -> Result<Self> {
        let unusable =
            |why: &str| Error::settings(format!("--ca: {}: {why}", certificates.display()));
        let pem = file(certificates, MAX_CHAIN)?;
        let found = x509::certificates(&pem).map_err(|why| unusable(&why))?;
        let parse = |c: &x509::Certificate| X509::from_der(c.der());
        let stack: Vec<X509> = found
            .iter()
            .map(parse)
            .collect::<std::result::Result<_, _>>()
            .map_err(|e| unusable(&e.to_string()))?;
        let certificate = stack
            .first()
            .ok_or_else(|| unusable("there is no certificate in it"))?;
        let public = certificate
            .public_key()
            .map_err(|e| unusable(&e.to_string()))?;
        let kind = match public.id() {
            Id::EC => KeyType::EccP256,
            Id::RSA => KeyType::Rsa2048,
            _ => return Err(unusable("its key is neither ECDSA nor RSA")),
        };
        let may_sign = Certificate::from_der(&encoded(certificate)?)
            .is_ok_and(|certificate| is_issuer(&certificate));
        if !may_sign {
            return Err(unusable(
                "it is not the certificate of a CA that may issue certificates",
            ));
        }
        for (issued, issuer) in stack.iter().zip(stack.iter().skip(1)) {
            let key = issuer.public_key().map_err(|e| unusable(&e.to_string()))?;
            if !issued.verify(&key).unwrap_or(false) {
                return Err(unusable(
                    "each certificate in it is to be issued by the next one",
                ));
            }
        }
        let mut chain = Vec::new();
        for certificate in &stack {
            chain.extend(certificate.to_pem().map_err(|e| unusable(&e.to_string()))?);
        }
        let authority = Self {
            stand_in: stand_in(kind).context(Exit::Other, || "cannot make a key".into())?,
            certificate: certificate.clone(),
            chain,
            kind,
            signer: Signer::open(key)?,
        };
        // No DER, and so nothing that is worth something with the CA's signature.
        const TRIAL: &[u8] = b"firstboot-station tries its key";
        let signature = authority.sign(TRIAL)?;
        let spki = public
            .public_key_to_der()
            .map_err(|e| unusable(&e.to_string()))?;
        match PublicKey::from_spki(spki).verifies(Scheme::Usual, TRIAL, &signature) {
            true => Ok(authority),
            false => Err(Error::settings(
                "--key is not the key of --ca's certificate",
            )),
        }
    }

    /// The CA's own certificate, DER.
    pub(crate) fn certificate(&self) -> Result<Vec<u8>> {
        encoded(&self.certificate)
    }

    /// Signs with SHA-256.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        self.signer.sign(self.kind, message)
    }

    /// Whether certificates of this many days are possible: they must not outlive the CA's.
    pub(crate) fn check_days(&self, days: u32) -> Result<()> {
        let end = Asn1Time::days_from_now(days).context(Exit::Settings, || "--days".into())?;
        let outlived = self.certificate.not_after() < end.as_ref();
        match outlived {
            false => Ok(()),
            true => Err(Error::settings(format!(
                "--days {days}: the CA's own certificate is only valid until {}",
                self.certificate.not_after()
            ))),
        }
    }

    /// Issues a certificate for TLS clients (RFC 5280; AWS IoT Core developer guide, "X.509 client certificates").
    /// The name is the station's choice: nothing of the CSR but its key gets in. A name or key with which there is no
    /// certificate is a refusal; that the CA does not sign is a failure.
    pub(crate) fn issue(
        &self,
        key: &PublicKey,
        thing_name: &str,
        days: u32,
    ) -> std::result::Result<Issued, Stop> {
        let length = thing_name.chars().count();
        if length > MAX_COMMON_NAME {
            return Err(Stop::Refused(format!(
                "its thing name has {length} characters, and the common name of a certificate has at most \
                 {MAX_COMMON_NAME} (RFC 5280): give the thing a shorter name, or have AWS IoT issue the certificate, \
                 which names no thing, and wrap that"
            )));
        }
        let issuing = || "cannot make the certificate".to_owned();
        let (der, serial) = self
            .to_be_signed(key, thing_name, days)
            .map_err(|e| Stop::Refused(format!("{}: {e}", issuing())))?;
        let der = Zeroizing::new(self.sign_again(&der)?);
        let leaf = X509::from_der(&der).and_then(|leaf| leaf.to_pem());
        let mut chain = Zeroizing::new(leaf.context(Exit::Other, issuing)?);
        chain.extend(&self.chain);
        Ok(Issued { chain, serial })
    }

    /// The certificate with the stand-in's signature, and its serial number.
    fn to_be_signed(
        &self,
        key: &PublicKey,
        thing_name: &str,
        days: u32,
    ) -> std::result::Result<(Zeroizing<Vec<u8>>, String), ErrorStack> {
        let mut serial = BigNum::new()?;
        serial.rand(SERIAL_BITS, MsbOption::MAYBE_ZERO, false)?;
        let mut name = X509Name::builder()?;
        name.append_entry_by_nid(Nid::COMMONNAME, thing_name)?;
        let name = name.build();
        let now = firstboot_formats::clock::Clock::read().now.as_secs() as i64;
        let mut builder = X509::builder()?;
        builder.set_version(2)?; // X.509 v3 (RFC 5280 §4.1.2.1)
        builder.set_serial_number(serial.to_asn1_integer()?.as_ref())?;
        builder.set_subject_name(&name)?;
        builder.set_issuer_name(self.certificate.subject_name())?;
        let key = PKey::public_key_from_der(key.spki())?;
        builder.set_pubkey(&key)?;
        builder.set_not_before(Asn1Time::from_unix(now - BACKDATED)?.as_ref())?;
        builder.set_not_after(Asn1Time::days_from_now(days)?.as_ref())?;
        builder.append_extension(BasicConstraints::new().critical().build()?)?;
        builder.append_extension(KeyUsage::new().critical().digital_signature().build()?)?;
        builder.append_extension(ExtendedKeyUsage::new().client_auth().build()?)?;
        let context = builder.x509v3_context(Some(&self.certificate), None);
        let subject = SubjectKeyIdentifier::new().build(&context)?;
        // Where the CA's certificate has an identifier of its own (RFC 5280 §4.2.1.1).
        let authority = self
            .certificate
            .subject_key_id()
            .map(|_| AuthorityKeyIdentifier::new().keyid(true).build(&context))
            .transpose()?;
        builder.append_extension(subject)?;
        if let Some(authority) = authority {
            builder.append_extension(authority)?;
        }
        builder.sign(&self.stand_in, MessageDigest::sha256())?;
        let der = Zeroizing::new(builder.build().to_der()?);
        Ok((der, hexadecimal(&serial.to_vec())))
    }

    /// Replaces the stand-in's signature by the CA's: OpenSSL signs with keys that it holds itself only. What is
    /// signed names the algorithm and not the key, so that it stays the same.
    fn sign_again(&self, der: &[u8]) -> Result<Vec<u8>> {
        let signing = || "cannot sign the certificate".to_owned();
        let certificate = Certificate::from_der(der).context(Exit::Other, signing)?;
        let to_be_signed = certificate
            .tbs_certificate()
            .to_der()
            .context(Exit::Other, signing)?;
        let signature = self.sign(&to_be_signed)?;
        let encode = || -> x509_cert::der::Result<Vec<u8>> {
            let algorithm = certificate.signature_algorithm().to_der()?;
            let signature = BitString::from_bytes(&signature)?.to_der()?;
            let content = [to_be_signed, algorithm, signature].concat();
            let length = Length::try_from(content.len())?;
            let header = Header::new(Tag::Sequence, length).to_der()?;
            Ok([header, content].concat())
        };
        encode().context(Exit::Other, signing)
    }
}

/// basicConstraints with cA, and keyCertSign where there is a keyUsage (RFC 5280 §4.2.1.3 and §4.2.1.9).
fn is_issuer(certificate: &Certificate) -> bool {
    use x509_cert::ext::pkix;
    let tbs = certificate.tbs_certificate();
    let constraints = tbs.get_extension::<pkix::BasicConstraints>();
    let usage = tbs.get_extension::<pkix::KeyUsage>();
    matches!(constraints, Ok(Some((_, constraints))) if constraints.ca)
        && usage.is_ok_and(|usage| usage.is_none_or(|(_, usage)| usage.key_cert_sign()))
}

fn stand_in(kind: KeyType) -> std::result::Result<PKey<Private>, ErrorStack> {
    match kind {
        KeyType::Rsa2048 => PKey::from_rsa(Rsa::generate(2048)?),
        KeyType::EccP256 => {
            let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
            PKey::from_ec_key(EcKey::generate(&group)?)
        }
    }
}

fn encoded(certificate: &X509) -> Result<Vec<u8>> {
    certificate
        .to_der()
        .context(Exit::Other, || "cannot encode the CA's certificate".into())
}
