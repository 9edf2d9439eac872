//! The operator's CA: issues device certificates, and signs replies.

use std::path::Path;
use std::time::Duration;

use der::Encode;
use firstboot_formats::clock::Clock;
use firstboot_formats::encoding::to_hex;
use firstboot_formats::public_key::{KeyFamily, PublicKey, Scheme};
use firstboot_formats::{pem, x509};
use openssl::rand::rand_bytes;
use openssl::x509::X509;
use x509_cert::ext::pkix::KeyUsage;
use zeroize::Zeroizing;

use crate::certificate::{Terms, ToBeSigned};
use crate::error::{Context, Error, Exit, Result};
use crate::extension::extension;
use crate::request::file;
use crate::signer::{KeySource, Signer};
use crate::stop::Stop;

/// Maximum size of a CA certificate with its issuers, bytes.
const MAX_CHAIN: usize = 64 * 1024;
/// Random bytes of a serial number, of which one bit is the sign (at most 20 by RFC 5280 §4.1.2.2; 64 bits at least by
/// the CA/Browser Forum's Baseline Requirements §7.1): nobody can guess a certificate in advance.
const SERIAL: usize = 16;
/// Maximum length of a common name, characters (RFC 5280 appendix A.1, ub-common-name); a thing's name may have twice
/// as many. Verifiers may refuse a longer one.
const MAX_COMMON_NAME: usize = 64;
/// How far in the past a certificate's validity begins: a device's clock may be behind.
const BACKDATED: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The CA.
pub(crate) struct Authority {
    certificate: x509::Certificate,
    /// Its certificate and those of its issuers, as the operator gave them.
    chain: Vec<u8>,
    family: KeyFamily,
    signer: Signer,
}

/// A new certificate.
pub(crate) struct Issued {
    /// Leaf first, PEM.
    pub(crate) chain: Zeroizing<Vec<u8>>,
    /// Hexadecimal.
    pub(crate) serial: String,
}

impl Authority {
    /// Reads the CA's certificate (PEM, followed by the certificates of its issuers, if devices are to present those),
    /// opens its key, and tries it.
    pub(crate) fn open(certificates: &Path, key: &KeySource<'_>) -> Result<Self> {
        let unusable =
            |why: &str| Error::settings(format!("--ca: {}: {why}", certificates.display()));
        let pem = file(certificates, MAX_CHAIN)?;
        let found = x509::certificates(&pem).map_err(|why| unusable(&why))?;
        let certificate = found
            .first()
            .ok_or_else(|| unusable("it contains no certificate"))?;
        let public = PublicKey::from_spki(certificate.key().to_vec());
        let family = public
            .family()
            .ok_or_else(|| unusable("its key is neither ECDSA nor RSA"))?;
        if !is_issuer(certificate) {
            return Err(unusable(
                "it is not the certificate of a CA that may issue certificates",
            ));
        }
        let verifiable: Vec<X509> = found
            .iter()
            .map(|c| X509::from_der(c.der()))
            .collect::<std::result::Result<_, _>>()
            .map_err(|e| unusable(&e.to_string()))?;
        for (issued, issuer) in verifiable.iter().zip(verifiable.iter().skip(1)) {
            let key = issuer.public_key().map_err(|e| unusable(&e.to_string()))?;
            if !issued.verify(&key).unwrap_or(false) {
                return Err(unusable(
                    "each certificate in it must be issued by the next one",
                ));
            }
        }
        let chain: String = found
            .iter()
            .map(|c| pem::encode("CERTIFICATE", c.der()))
            .collect();
        let authority = Self {
            certificate: certificate.clone(),
            chain: chain.into_bytes(),
            family,
            signer: Signer::open(key)?,
        };
        // Not DER, so the CA's signature over it is worth nothing.
        const TRIAL: &[u8] = b"firstboot-station tries its key";
        let signature = authority.sign(TRIAL)?;
        match public.verifies(Scheme::X509, TRIAL, &signature) {
            true => Ok(authority),
            false => Err(Error::settings(
                "--key does not match the certificate in --ca",
            )),
        }
    }

    /// The CA's own certificate, DER.
    pub(crate) fn certificate(&self) -> &[u8] {
        self.certificate.der()
    }

    /// The same, with its fields.
    pub(crate) fn x509(&self) -> &x509::Certificate {
        &self.certificate
    }

    /// Signs with SHA-256.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        self.signer.sign(self.family, message)
    }

    /// Whether certificates of this many days are possible: they must not outlive the CA's.
    pub(crate) fn check_days(&self, days: u32) -> Result<()> {
        if Clock::read().now + DAY * days <= self.certificate.not_after() {
            return Ok(());
        }
        Err(Error::settings(format!(
            "--days {days}: the CA's own certificate is only valid until {}",
            self.certificate.summary().not_after
        )))
    }

    /// Issues a certificate for TLS clients (RFC 5280; AWS IoT Core developer guide, "X.509 client certificates"). The
    /// station chooses the name: nothing but the key is taken from the CSR. A name or key that no certificate can have
    /// is a refusal; a CA that does not sign is a failure.
    pub(crate) fn issue(
        &self,
        key: &PublicKey,
        thing_name: &str,
        days: u32,
    ) -> std::result::Result<Issued, Stop> {
        let length = thing_name.chars().count();
        if length > MAX_COMMON_NAME {
            return Err(Stop::Refused(format!(
                "its thing name has {length} characters, but a certificate's common name may have at most \
                 {MAX_COMMON_NAME} (RFC 5280): give the thing a shorter name, or have AWS IoT issue the certificate, \
                 which names no thing, and wrap that"
            )));
        }
        let issuing = || "cannot create the certificate".to_owned();
        let certificate = self
            .to_be_signed(key, thing_name, days)
            .map_err(|e| Stop::Refused(format!("{}: {e}", issuing())))?;
        let serial = to_hex(certificate.serial_number());
        let message = certificate.to_der().context(Exit::Other, issuing)?;
        let signature = self.sign(&message)?;
        let der = certificate.signed(&signature).map(Zeroizing::new);
        let leaf = pem::encode("CERTIFICATE", &der.context(Exit::Other, issuing)?);
        let mut chain = Zeroizing::new(leaf.into_bytes());
        chain.extend(&self.chain);
        Ok(Issued { chain, serial })
    }

    fn to_be_signed(
        &self,
        key: &PublicKey,
        thing_name: &str,
        days: u32,
    ) -> std::result::Result<ToBeSigned, String> {
        let mut serial_number = [0; SERIAL];
        rand_bytes(&mut serial_number).map_err(|e| e.to_string())?;
        // Positive (X.690 §8.3.3).
        serial_number[0] &= 0x7F;
        let now = Clock::read().now;
        let terms = Terms {
            serial_number: serial_number.to_vec(),
            algorithm: x509::signature_algorithm(self.family),
            subject: x509::name(&[("CN", thing_name)])?,
            not_before: now.saturating_sub(BACKDATED),
            not_after: now + DAY * days,
        };
        ToBeSigned::new(terms, key, &self.certificate).map_err(|e| e.to_string())
    }
}

/// basicConstraints with cA, and keyCertSign where there is a keyUsage (RFC 5280 §4.2.1.3 and §4.2.1.9).
fn is_issuer(certificate: &x509::Certificate) -> bool {
    let usage = extension::<KeyUsage>(certificate);
    certificate.is_authority()
        && usage.is_ok_and(|usage| usage.is_none_or(|usage| usage.key_cert_sign()))
}
