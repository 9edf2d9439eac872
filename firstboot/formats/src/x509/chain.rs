//! The device's certificate and its issuers: put in order, and checked before anything relies on them.

use std::time::Duration;

use super::bundle::certificates;
use super::certificate::{Certificate, CertificateDer, Summary};
use super::path::{self, Graph};
use crate::card::MAX_CERTIFICATE;
use crate::clock::{Clock, rfc3339};
use crate::digest::{Fingerprint, sha256};
use crate::pem;
use crate::printable::printable;
use crate::public_key::PublicKey;

/// A device certificate and the certificates of its issuers, each issued by the next.
#[derive(Clone, Debug)]
pub struct Chain {
    leaf: Certificate,
    issuers: Vec<Certificate>,
    left_out: Vec<String>,
}

/// Two chains are equal when their certificates are, byte for byte.
impl PartialEq for Chain {
    fn eq(&self, other: &Self) -> bool {
        self.all().eq(other.all())
    }
}

impl Eq for Chain {}

/// The result of a certificate's check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may enter the token.
    Good,
    /// It may enter the token, but the operator should know this.
    GoodBut(String),
    /// It may not enter the token, for this reason.
    Bad(String),
}

impl Chain {
    /// Reads a file with the certificate of this key and, in any order, its issuers, in any form of [`certificates`].
    /// Certificates that are not in its chain are left out. If `issuers` are named, it has to chain up to one of them,
    /// whose certificate is in the file, too. A chain whose PEM is larger than [`MAX_CERTIFICATE`] is refused: nobody
    /// could read it back. The error tells the operator what is wrong.
    pub fn parse(
        content: &[u8],
        key: &PublicKey,
        issuers: &[Fingerprint],
    ) -> std::result::Result<Self, String> {
        let mut others = certificates(content)?;
        let leaf = others.remove(leaf(&others, key)?);
        let graph = Graph::new(&leaf, &others)?;
        let mut path = match issuers {
            [] => graph.longest(),
            issuers => graph.leading_to(issuers)?,
        };
        let mut chain = Self {
            leaf,
            issuers: path.iter().map(|at| others[*at].clone()).collect(),
            left_out: Vec::new(),
        };
        path.sort_unstable();
        chain.left_out = (0..others.len())
            .filter(|at| path.binary_search(at).is_err())
            .map(|at| others[at].subject())
            .collect();
        match chain.pem().len() {
            0..=MAX_CERTIFICATE => Ok(chain),
            length => Err(format!(
                "with its issuers, it has {length} bytes of PEM, more than {MAX_CERTIFICATE}"
            )),
        }
    }

    /// Reads what [`Chain::pem`] has written; nothing if it is damaged. Verifies no signatures: that has been done.
    pub fn stored(pem: &[u8]) -> Option<Self> {
        let mut all = certificates(pem).ok()?;
        Some(Self {
            leaf: all.remove(0),
            issuers: all,
            left_out: Vec::new(),
        })
    }

    /// Whether a file contains these certificates, in any order and form, and beside them only certificates that by
    /// their names and keys cannot belong to the chain: then [`Chain::parse`], which verifies signatures, would find
    /// nothing new.
    pub fn is_all_of(&self, content: &[u8]) -> bool {
        certificates(content).is_ok_and(|mut found| {
            let all_there = self.all().all(|c| found.contains(c));
            found.retain(|c| !self.all().any(|mine| mine == c));
            let belongs = |c: &Certificate| {
                let subject = c.subject();
                let issues = |mine: &Certificate| mine.issuer().eq_ignore_ascii_case(&subject);
                c.key() == self.leaf.key() || self.all().any(issues)
            };
            all_there && !found.iter().any(belongs)
        })
    }

    /// Whether the certificate is for this key.
    pub fn is_for(&self, key: &PublicKey) -> bool {
        path::is_for(&self.leaf, key)
    }

    /// Whether name and signature of the certificate are this CA's.
    pub fn is_issued_by(&self, authority: &Certificate) -> bool {
        path::is_issued_by(&self.leaf, authority)
    }

    /// The key that it is for.
    pub fn key(&self) -> PublicKey {
        PublicKey::from_spki(self.leaf.key().to_vec())
    }

    /// The certificates in the file that are not part of the chain.
    pub fn remark(&self) -> Option<String> {
        (!self.left_out.is_empty()).then(|| {
            printable(format!(
                "ignored, not part of the certificate's chain: {}",
                self.left_out.join("; ")
            ))
        })
    }

    /// Checks that the certificate is for this key and this thing, and valid now.
    pub fn check(&self, key: &PublicKey, thing_name: &str, clock: Clock) -> Verdict {
        if !self.is_for(key) {
            return Verdict::Bad(other_key(key));
        }
        if let Some(name) = self.thing_name()
            && !self.is_of(thing_name)
        {
            return Verdict::Bad(printable(format!(
                "it is for \"{name}\", but this thing's name is \"{thing_name}\""
            )));
        }
        validity(self.leaf.not_before, self.leaf.not_after, clock)
    }

    /// Its first and its last moment, counted from the epoch.
    pub fn lifetime(&self) -> [Duration; 2] {
        [self.leaf.not_before, self.leaf.not_after]
    }

    /// When it expired (RFC 3339, UTC), if it has.
    pub fn expired(&self, clock: Clock) -> Option<String> {
        (clock.now > self.leaf.not_after).then(|| rfc3339(self.leaf.not_after))
    }

    /// The subject's common name.
    pub fn common_name(&self) -> Option<String> {
        self.leaf.common_name()
    }

    /// Whether it may belong to this thing.
    pub fn is_of(&self, thing_name: &str) -> bool {
        self.thing_name().is_none_or(|name| name == thing_name)
    }

    /// The thing that it names, if any: AWS's own certificates are for whatever they are attached to.
    pub fn thing_name(&self) -> Option<String> {
        self.common_name().filter(|name| name != AWS_COMMON_NAME)
    }

    /// Subject, and the end of its validity (RFC 3339), for people.
    pub fn describe(&self) -> String {
        let Summary {
            subject, not_after, ..
        } = self.summary();
        let issuers = match self.issuers.len() {
            0 => String::new(),
            n => format!(", with {n} of its issuers"),
        };
        format!("{subject}, valid until {not_after}{issuers}")
    }

    /// What the certificate says.
    pub fn summary(&self) -> Summary {
        self.leaf.summary()
    }

    /// The leaf, then its issuers, in PEM (RFC 7468).
    pub fn pem(&self) -> String {
        let encode = |c: &Certificate| pem::encode("CERTIFICATE", c.der());
        self.all().map(encode).collect()
    }

    /// As the token holds them: the leaf, and its issuers.
    pub fn objects(&self) -> (CertificateDer, Vec<CertificateDer>) {
        let issuers = self.issuers.iter().map(Certificate::object);
        (self.leaf.object(), issuers.collect())
    }

    /// SHA-256 of the device certificate.
    pub fn fingerprint(&self) -> Fingerprint {
        sha256(self.leaf.der())
    }

    /// The device certificate.
    pub fn leaf(&self) -> &Certificate {
        &self.leaf
    }

    pub(super) fn issuers(&self) -> &[Certificate] {
        &self.issuers
    }

    fn all(&self) -> impl Iterator<Item = &Certificate> {
        std::iter::once(&self.leaf).chain(&self.issuers)
    }
}

/// The common name that AWS IoT gives to certificates for keys that it made itself
/// (CreateKeysAndCertificate); from a CSR it keeps the requested name.
const AWS_COMMON_NAME: &str = "AWS IoT Certificate";

/// The certificate for this key; of several, the one whose validity begins last.
fn leaf(found: &[Certificate], key: &PublicKey) -> std::result::Result<usize, String> {
    let newest = |matches: &dyn Fn(&Certificate) -> bool| {
        let mine = found.iter().enumerate().filter(|(_, c)| matches(c));
        mine.max_by_key(|(_, c)| c.not_before).map(|(at, _)| at)
    };
    newest(&|c| c.key() == key.spki())
        .or_else(|| newest(&|c| path::is_for(c, key)))
        .ok_or_else(|| match found.iter().all(|c| c.is_authority()) {
            true => "it contains only CA certificates, none for a device".into(),
            false => other_key(key),
        })
}

fn other_key(key: &PublicKey) -> String {
    format!(
        "it is for another key, not this device's (SHA-256 {}): was it made from the device's current request?",
        key.fingerprint()
    )
}

/// An undisciplined clock runs behind: a certificate that it calls expired has expired, and one that it calls not yet
/// valid shows that the clock is behind.
fn validity(not_before: Duration, not_after: Duration, clock: Clock) -> Verdict {
    if clock.now > not_after {
        let doubt = if clock.synchronised {
            ""
        } else {
            " (the clock is not synchronised; if its date is wrong, set it)"
        };
        return Verdict::Bad(format!("it expired on {}{doubt}", rfc3339(not_after)));
    }
    if clock.now < not_before {
        let start = rfc3339(not_before);
        return if clock.synchronised {
            Verdict::Bad(format!("it is not valid before {start}"))
        } else {
            Verdict::GoodBut(format!(
                "the clock is not synchronised, and still before the start of the certificate's validity ({start}): \
                 TLS connections fail until it is set"
            ))
        };
    }
    Verdict::Good
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use openssl::asn1::{Asn1Object, Asn1OctetString, Asn1Time};
    use openssl::ec::{EcGroup, EcKey};
    use openssl::hash::MessageDigest;
    use openssl::nid::Nid;
    use openssl::pkey::PKey;
    use openssl::x509::{X509, X509Extension};

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

    /// What could not be read back once it is written.
    #[test]
    fn a_chain_that_is_too_large_is_refused() {
        let curve = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        let key = PKey::from_ec_key(EcKey::generate(&curve).unwrap()).unwrap();
        let public = PublicKey::from_spki(key.public_key_to_der().unwrap());
        let with_comment = |length: usize| {
            let mut builder = X509::builder().unwrap();
            let day = |n| Asn1Time::days_from_now(n).unwrap();
            builder.set_version(2).unwrap();
            builder.set_not_before(&day(0)).unwrap();
            builder.set_not_after(&day(9)).unwrap();
            builder.set_pubkey(&key).unwrap();
            // Under an identifier that nobody knows.
            let id = Asn1Object::from_str("1.3.6.1.4.1.99999").unwrap();
            let text = Asn1OctetString::new_from_bytes(&vec![b'x'; length]).unwrap();
            let comment = X509Extension::new_from_der(&id, false, &text);
            builder.append_extension(comment.unwrap()).unwrap();
            builder.sign(&key, MessageDigest::sha256()).unwrap();
            // DER: as a certificate that comes as PEM has a third more.
            Chain::parse(&builder.build().to_der().unwrap(), &public, &[])
        };
        let chain = with_comment(47_000).unwrap();
        assert!(Chain::stored(chain.pem().as_bytes()).is_some());
        assert!(
            with_comment(49_000)
                .unwrap_err()
                .contains("more than 65536")
        );
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
}
