//! Certificates from outside: parsed, put in order, and checked before anything believes them.

use std::time::Duration;

use openssl::x509::X509;
use x509_cert::Certificate;
use x509_cert::der::oid::AssociatedOid;
use x509_cert::der::oid::db::rfc4519::CN;
use x509_cert::der::pem::LineEnding;
use x509_cert::der::{Decode, Encode, EncodePem};
use x509_cert::ext::pkix::BasicConstraints;
use x509_cert::name::Name;

use crate::certificate_der::CertificateDer;
use crate::clock::Clock;
use crate::error::{Doing, Exit, Result, printable};
use crate::public_key::PublicKey;

/// A device certificate and the certificates of its issuers, each issued by the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    leaf: Certificate,
    issuers: Vec<Certificate>,
}

/// What the check of a certificate ends with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may enter the token.
    Good,
    /// It may enter the token, but the operator should know this.
    GoodBut(String),
    /// It may not, because of this.
    Bad(String),
}

impl Chain {
    /// Reads PEM with one device certificate and, in any order, its issuers. Text outside the
    /// PEM blocks and CRLF are fine. The error says what is wrong, for the operator.
    pub fn parse(pem: &[u8]) -> std::result::Result<Self, String> {
        let mut leaves = Vec::new();
        let mut authorities = Vec::new();
        for block in blocks(pem)? {
            let der = decoded(&block)?;
            let certificate = Certificate::from_der(&der).map_err(|e| format!("{DAMAGED}: {e}"))?;
            // Written again in other bytes, its signature would be worth nothing.
            if certificate.to_der() != Ok(der) {
                return Err(format!("{DAMAGED}: it is not DER"));
            }
            if is_authority(&certificate) {
                authorities.push(certificate);
            } else {
                leaves.push(certificate);
            }
        }
        let leaf = match leaves.len() {
            1 => leaves.remove(0),
            0 if authorities.is_empty() => return Err("there is no certificate in it".into()),
            0 => return Err("there are only CA certificates in it, none for a device".into()),
            n => {
                return Err(format!(
                    "there are {n} device certificates in it; one is wanted"
                ));
            }
        };
        let mut issuers: Vec<Certificate> = Vec::new();
        while let Some(next) = {
            let last = issuers.last().unwrap_or(&leaf);
            authorities.iter().position(|c| has_issued(c, last))
        } {
            issuers.push(authorities.remove(next));
        }
        match authorities.first() {
            None => Ok(Self { leaf, issuers }),
            Some(stray) => Err(printable(format!(
                "the CA certificate of \"{}\" does not belong to the device certificate's chain",
                stray.tbs_certificate().subject()
            ))),
        }
    }

    /// Whether the certificate is for this key.
    pub fn is_for(&self, key: &PublicKey) -> bool {
        let spki = self
            .leaf
            .tbs_certificate()
            .subject_public_key_info()
            .to_der();
        spki.is_ok_and(|spki| spki == key.spki())
    }

    /// The SHA-256 of the certificate's key, as [`PublicKey::fingerprint`] has it.
    pub fn key_fingerprint(&self) -> Option<String> {
        let tbs = self.leaf.tbs_certificate();
        let spki = tbs.subject_public_key_info().to_der().ok()?;
        Some(PublicKey::from_spki(spki).fingerprint())
    }

    /// Checks that the certificate is for this key and this thing, and valid now.
    pub fn check(&self, key: &PublicKey, thing_name: &str, clock: Clock) -> Verdict {
        if !self.is_for(key) {
            return Verdict::Bad(format!(
                "it is for another key than this device's (SHA-256 {}): was it made from this \
                 device's current request?",
                key.fingerprint()
            ));
        }
        let tbs = self.leaf.tbs_certificate();
        if let Some(name) = self.common_name()
            && name != thing_name
            && name != AWS_COMMON_NAME
        {
            return Verdict::Bad(printable(format!(
                "it is for \"{name}\", and this thing's name is \"{thing_name}\""
            )));
        }
        validity(
            tbs.validity().not_before.to_unix_duration(),
            tbs.validity().not_after.to_unix_duration(),
            clock,
        )
    }

    /// The subject's common name.
    pub fn common_name(&self) -> Option<String> {
        common_name(self.leaf.tbs_certificate().subject())
    }

    /// Subject, and the end of its validity (RFC 3339), for people.
    pub fn describe(&self) -> String {
        let tbs = self.leaf.tbs_certificate();
        let end = tbs.validity().not_after.to_date_time();
        let issuers = match self.issuers.len() {
            0 => String::new(),
            n => format!(", with {n} of its issuers"),
        };
        printable(format!("{}, valid until {end}{issuers}", tbs.subject()))
    }

    /// Leaf first, then its issuers, as RFC 7468 text.
    pub fn pem(&self) -> Result<String> {
        self.all()
            .map(|c| c.to_pem(LineEnding::LF))
            .collect::<std::result::Result<String, _>>()
            .doing(Exit::Other, || "cannot encode the certificate".into())
    }

    /// As the token holds them: the leaf, and its issuers.
    pub fn objects(&self) -> Result<(CertificateDer, Vec<CertificateDer>)> {
        let mut objects = self
            .all()
            .map(object)
            .collect::<std::result::Result<Vec<_>, _>>()
            .doing(Exit::Other, || "cannot encode the certificate".into())?;
        let leaf = objects.remove(0);
        Ok((leaf, objects))
    }

    fn all(&self) -> impl Iterator<Item = &Certificate> {
        std::iter::once(&self.leaf).chain(&self.issuers)
    }
}

/// The common name that AWS IoT gives to certificates for keys that it made itself
/// (CreateKeysAndCertificate); from a CSR it keeps the requested name.
const AWS_COMMON_NAME: &str = "AWS IoT Certificate";

fn object(certificate: &Certificate) -> x509_cert::der::Result<CertificateDer> {
    let tbs = certificate.tbs_certificate();
    Ok(CertificateDer {
        value: certificate.to_der()?,
        subject: tbs.subject().to_der()?,
        issuer: tbs.issuer().to_der()?,
        serial_number: tbs.serial_number().to_der()?,
    })
}

/// The CERTIFICATE blocks of a PEM text, base64 in one line each; anything else that is labelled is
/// refused, above all a private key.
pub(super) fn blocks(pem: &[u8]) -> std::result::Result<Vec<String>, String> {
    let text = std::str::from_utf8(pem).map_err(|_| "it is not a PEM text file".to_owned())?;
    let mut found = Vec::new();
    let mut block: Option<String> = None;
    for line in text.lines().map(str::trim) {
        if let Some(label) = line
            .strip_prefix("-----BEGIN ")
            .and_then(|l| l.strip_suffix("-----"))
        {
            if label != "CERTIFICATE" {
                return Err(printable(format!(
                    "there is a {label} in it; only certificates belong here"
                )));
            }
            block = Some(String::new());
        } else if line == "-----END CERTIFICATE-----" {
            found.extend(block.take());
        } else if let Some(open) = &mut block {
            open.push_str(line);
        }
    }
    match block {
        Some(_) => Err("its last CERTIFICATE block has no end".into()),
        None => Ok(found),
    }
}

pub(super) const DAMAGED: &str = "a CERTIFICATE block is damaged";

/// What is in one of [`blocks`].
pub(super) fn decoded(block: &str) -> std::result::Result<Vec<u8>, String> {
    // OpenSSL takes a padding character that is not at the end for an A.
    match block.trim_end_matches('=').contains('=') {
        true => None,
        false => openssl::base64::decode_block(block).ok(),
    }
    .ok_or_else(|| DAMAGED.to_owned())
}

/// basicConstraints with cA (RFC 5280 §4.2.1.9).
fn is_authority(certificate: &Certificate) -> bool {
    certificate
        .tbs_certificate()
        .extensions()
        .into_iter()
        .flatten()
        .filter(|e| e.extn_id == BasicConstraints::OID)
        .any(|e| BasicConstraints::from_der(e.extn_value.as_bytes()).is_ok_and(|b| b.ca))
}

/// Whether name and signature of a certificate are its issuer's.
fn has_issued(issuer: &Certificate, certificate: &Certificate) -> bool {
    if issuer.tbs_certificate().subject() != certificate.tbs_certificate().issuer() {
        return false;
    }
    let openssl = |c: &Certificate| X509::from_der(&c.to_der().ok()?).ok();
    let verify = || {
        let key = openssl(issuer)?.public_key().ok()?;
        openssl(certificate)?.verify(&key).ok()
    };
    verify() == Some(true)
}

/// The common name as text. One in another encoding comes out garbled, and is no thing's name then.
fn common_name(name: &Name) -> Option<String> {
    let attribute = name.iter().find(|a| a.oid == CN)?;
    Some(String::from_utf8_lossy(attribute.value.value()).into_owned())
}

/// An undisciplined clock runs behind: what it calls expired has expired, and what it calls not
/// yet valid shows that it is behind.
fn validity(not_before: Duration, not_after: Duration, clock: Clock) -> Verdict {
    let days = |d: Duration| d.as_secs() / (24 * 60 * 60);
    if clock.now > not_after {
        let doubt = if clock.synchronised {
            ""
        } else {
            " (the clock is not synchronised; if its date is wrong, set it)"
        };
        return Verdict::Bad(format!(
            "it expired {} days ago{doubt}",
            days(clock.now - not_after)
        ));
    }
    if clock.now < not_before {
        let ahead = days(not_before - clock.now);
        return if clock.synchronised {
            Verdict::Bad(format!("it is not valid before {ahead} days from now"))
        } else {
            Verdict::GoodBut(format!(
                "the clock is not synchronised and at least {ahead} days behind the certificate's \
                 beginning: no TLS connection will succeed before it is set"
            ))
        };
    }
    Verdict::Good
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 60 * 60;

    fn at(day: u64, synchronised: bool) -> Verdict {
        let clock = Clock {
            now: Duration::from_secs(day * DAY),
            synchronised,
        };
        validity(
            Duration::from_secs(100 * DAY),
            Duration::from_secs(200 * DAY),
            clock,
        )
    }

    #[test]
    fn validity_is_judged_with_the_clock_in_mind() {
        assert_eq!(at(150, true), Verdict::Good);
        assert_eq!(at(150, false), Verdict::Good);
        assert!(matches!(at(201, true), Verdict::Bad(_)));
        assert!(matches!(at(201, false), Verdict::Bad(_)));
        assert!(matches!(at(99, true), Verdict::Bad(_)));
        assert!(matches!(at(0, false), Verdict::GoodBut(_)));
    }

    #[test]
    fn what_is_no_chain_is_refused_with_the_reason() {
        let refused = |pem: &str| Chain::parse(pem.as_bytes()).err().unwrap_or_default();
        assert!(refused("").contains("no certificate"));
        assert!(refused("-----BEGIN PRIVATE KEY-----\n").contains("PRIVATE KEY"));
        assert!(refused("-----BEGIN CERTIFICATE-----\nAAAA\n").contains("no end"));
        assert!(
            refused("-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n")
                .contains("damaged")
        );
        assert!(Chain::parse(&[0xFF, 0xFE]).is_err());
    }
}
