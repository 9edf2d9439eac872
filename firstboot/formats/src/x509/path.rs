//! Which certificate has issued which, as OpenSSL verifies it on the original bytes.

use openssl::error::ErrorStack;
use openssl::pkey::PKey;
use openssl::stack::Stack;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::verify::X509VerifyFlags;
use openssl::x509::{X509, X509Ref, X509StoreContext, X509VerifyResult};

use super::certificate::Certificate;
use crate::digest::{Fingerprint, sha256};
use crate::printable::printable;
use crate::public_key::PublicKey;

/// Whether the certificate's key is this one, even if it is encoded differently, for example as a compressed point.
pub(super) fn is_for(certificate: &Certificate, key: &PublicKey) -> bool {
    let same = || -> Result<bool, ErrorStack> {
        let one = PKey::public_key_from_der(certificate.key())?;
        Ok(one.public_eq(&*PKey::public_key_from_der(key.spki())?))
    };
    certificate.key() == key.spki() || same().unwrap_or(false)
}

/// What leads up from a certificate: a tree with that certificate as its root, built breadth first, so that each
/// certificate is looked at once, however many have the same name.
pub(super) struct Graph<'a> {
    leaf: X509,
    others: &'a [Certificate],
    reached: Vec<Reached>,
}

struct Reached {
    /// Its index among the others.
    at: usize,
    /// The index of the reached one that it has issued; none for the leaf.
    below: Option<usize>,
    certificate: X509,
}

impl<'a> Graph<'a> {
    /// Starts at a leaf. The error says that OpenSSL, which will use it, cannot.
    pub(super) fn new(leaf: &Certificate, others: &'a [Certificate]) -> Result<Self, String> {
        let unusable = |e: ErrorStack| printable(format!("OpenSSL cannot read it: {e}"));
        let leaf = X509::from_der(leaf.der()).map_err(unusable)?;
        leaf.public_key().map_err(unusable)?;
        let mut candidates: Vec<(usize, X509)> = others
            .iter()
            .enumerate()
            .filter(|(_, certificate)| certificate.is_authority())
            .filter_map(|(at, certificate)| Some((at, X509::from_der(certificate.der()).ok()?)))
            .collect();
        let mut reached: Vec<Reached> = Vec::new();
        let mut looking_at = None;
        loop {
            let last = looking_at.map_or(&*leaf, |at: usize| &*reached[at].certificate);
            let (issuers, rest) = candidates
                .into_iter()
                .partition(|(_, c)| has_issued(c, last));
            candidates = rest;
            let issuers: Vec<(usize, X509)> = issuers;
            reached.extend(issuers.into_iter().map(|(at, certificate)| Reached {
                at,
                below: looking_at,
                certificate,
            }));
            let next = looking_at.map_or(0, |at| at + 1);
            if next == reached.len() {
                break;
            }
            looking_at = Some(next);
        }
        // An issuer's name without its signature is not a stray certificate: one of the two is damaged, or for another
        // key.
        let named = |(_, c): &&(usize, X509)| c.issued(&leaf) == X509VerifyResult::OK;
        if let (true, Some((at, _))) = (reached.is_empty(), candidates.iter().find(named)) {
            return Err(printable(format!(
                "its issuer, {}, is in the file, but did not sign it: one of the two is damaged, or that CA has a \
                 new key",
                others[*at].subject()
            )));
        }
        Ok(Self {
            leaf,
            others,
            reached,
        })
    }

    /// The longest path up through the others, each issued by the next.
    pub(super) fn longest(&self) -> Vec<usize> {
        self.numbers(&self.path(self.reached.len().checked_sub(1)))
    }

    /// The path up to one of these. The error says why there is none.
    pub(super) fn leading_to(&self, issuers: &[Fingerprint]) -> Result<Vec<usize>, String> {
        let is_named = |r: &Reached| issuers.contains(&sha256(self.others[r.at].der()));
        let end = self.reached.iter().position(is_named).ok_or(
            "its chain does not lead to a CA in the setting enrollment.issuers (with EST: in est-ca.pem, where that names \
             none): have one of these sign the request, and add the CA's certificate to the file",
        )?;
        let path = self.path(Some(end));
        match self.verify(&path) {
            Ok(None) => Ok(self.numbers(&path)),
            Ok(Some(why)) => Err(format!("its chain cannot be verified: {why}")),
            Err(e) => Err(printable(format!("its chain cannot be verified: {e}"))),
        }
    }

    fn numbers(&self, path: &[usize]) -> Vec<usize> {
        path.iter().map(|at| self.reached[*at].at).collect()
    }

    /// The way from the leaf up to a reached one.
    fn path(&self, end: Option<usize>) -> Vec<usize> {
        let mut path: Vec<usize> =
            std::iter::successors(end, |at| self.reached[*at].below).collect();
        path.reverse();
        path
    }

    /// Signatures, path lengths, key usages, name constraints up to the last, by OpenSSL's verifier. Not the dates: the
    /// clock may be wrong, and the leaf's are judged with that in mind.
    fn verify(&self, path: &[usize]) -> Result<Option<&'static str>, ErrorStack> {
        let mut roots = X509StoreBuilder::new()?;
        roots.set_flags(X509VerifyFlags::PARTIAL_CHAIN | X509VerifyFlags::NO_CHECK_TIME)?;
        let mut between = Stack::new()?;
        for (place, at) in path.iter().enumerate() {
            let certificate = self.reached[*at].certificate.clone();
            match place + 1 == path.len() {
                true => roots.add_cert(certificate)?,
                false => between.push(certificate)?,
            }
        }
        let roots = roots.build();
        X509StoreContext::new()?.init(&roots, &self.leaf, &between, |context| {
            let good = context.verify_cert()?;
            Ok((!good).then(|| context.error().error_string()))
        })
    }
}

/// Whether one of these certificates is one of the issuers, or leads up to one through these and the others.
pub fn any_leads_to(
    these: &[Certificate],
    others: &[Certificate],
    issuers: &[Fingerprint],
) -> bool {
    these.iter().enumerate().any(|(at, certificate)| {
        let beside = [&these[..at], &these[at + 1..], others].concat();
        issuers.contains(&sha256(certificate.der()))
            || Graph::new(certificate, &beside).is_ok_and(|graph| graph.leading_to(issuers).is_ok())
    })
}

/// Whether name and signature of a certificate are its issuer's.
pub(super) fn is_issued_by(certificate: &Certificate, issuer: &Certificate) -> bool {
    let openssl = |c: &Certificate| X509::from_der(c.der()).ok();
    let both = openssl(issuer).zip(openssl(certificate));
    both.is_some_and(|(issuer, certificate)| has_issued(&issuer, &certificate))
}

fn has_issued(issuer: &X509Ref, certificate: &X509Ref) -> bool {
    let verify = || certificate.verify(&*issuer.public_key()?);
    issuer.issued(certificate) == X509VerifyResult::OK && verify().unwrap_or(false)
}
