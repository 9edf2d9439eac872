//! What may replace an accepted certificate: only one that is verifiably no worse. Cards lose data, and an old
//! certificate is easily put back.

use super::chain::{Chain, Verdict};
use super::path;
use crate::clock::Clock;
use crate::printable::printable;
use crate::public_key::PublicKey;

impl Chain {
    /// Checks the certificate as [`Chain::check`] does, and whether it may replace the accepted one, if there is one.
    pub fn check_successor(
        &self,
        accepted: Option<&Self>,
        key: &PublicKey,
        thing_name: &str,
        clock: Clock,
    ) -> Verdict {
        let verdict = self.check(key, thing_name, clock);
        let Some(accepted) = accepted.filter(|_| !matches!(verdict, Verdict::Bad(_))) else {
            return verdict;
        };
        let still_good = !matches!(accepted.check(key, thing_name, clock), Verdict::Bad(_));
        match self.inferiority(accepted, still_good) {
            Some(why) => Verdict::Bad(printable(why)),
            None => verdict,
        }
    }

    /// Why it is worse than the accepted one, if it is.
    fn inferiority(&self, accepted: &Self, still_good: bool) -> Option<String> {
        let (new, old) = (self.leaf(), accepted.leaf());
        if new == old {
            return (self.issuers().len() < accepted.issuers().len()).then(|| {
                "it is the accepted certificate with fewer of its issuers, or with a damaged one".into()
            });
        }
        // No CA uses a serial number twice, and no two signatures are alike: one of the two has changed.
        if new.identifier() == old.identifier() || new.signature() == old.signature() {
            return Some(
                "it is a damaged copy of the accepted certificate (same issuer and serial number, or same \
                 signature): copy it again"
                    .into(),
            );
        }
        if let ([], [issuer, ..]) = (self.issuers(), accepted.issuers())
            && new.issuer() == old.issuer()
            && !path::is_issued_by(new, issuer)
        {
            return Some(format!(
                "its issuer, {}, whose certificate came with the accepted one, did not sign it: it is damaged, or \
                 the issuer has a new key. If it has, add the issuer's certificate to the file",
                new.issuer()
            ));
        }
        (still_good && new.not_before < old.not_before).then(|| {
            format!(
                "it is older (valid from {}) than the accepted certificate (from {}), which stays in use: have this \
                 device's request signed again",
                self.summary().not_before,
                accepted.summary().not_before,
            )
        })
    }
}
