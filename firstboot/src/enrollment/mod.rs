//! From the request to the certificate. The methods are `offline`, `fleet` and `est`, each of which answers with an
//! [`Offer`]; `claim` and `network` serve the two that use the network.

pub mod claim;
pub mod est;
pub mod fleet;
pub mod network;
pub mod offline;

use std::fmt;
use std::path::PathBuf;

use firstboot_formats::attestation::Reply;
use firstboot_formats::clock::{Clock, rfc3339};
use firstboot_formats::x509::Chain;
use serde::Serialize;

/// A wrapped reply for this device, from a named issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedReply {
    /// The reply.
    pub reply: Reply,
    /// SHA-256 of its file, hexadecimal.
    pub sha256: String,
}

/// A file that was refused, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display().to_string();
        // An unreadable file's message already has its path.
        if self.reason.contains(&path) {
            f.write_str(&self.reason)
        } else {
            write!(f, "{path}: {}", self.reason)
        }
    }
}

/// What a method has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offer {
    /// No certificate yet; what it waits for, in words.
    Pending(String),
    /// AWS IoT Core can be asked for a certificate.
    CanCreate,
    /// AWS IoT Core can be asked to register the thing with the certificate that is kept.
    CanRegister,
    /// An EST server can be asked for a certificate.
    CanRequest,
    /// A certificate that may be accepted, and what the operator should know about it.
    Certificate(Box<Chain>, Option<String>),
    /// A certificate that only this TPM can open.
    Reply(Box<WrappedReply>),
    /// A certificate that may not be accepted, and why.
    Refused(Refusal),
}

/// Why a certificate that came over the network is no gain over the one that it renews, if it is none: nobody has looked
/// at it, as at a file that an operator chooses.
fn no_gain(new: &Chain, old: &Chain, clock: Clock) -> Option<String> {
    if new.fingerprint() == old.fingerprint() {
        return Some("it is the certificate that is to be renewed".into());
    }
    let [[_, new_end], [_, old_end]] = [new.lifetime(), old.lifetime()];
    (new_end < old_end && old.expired(clock).is_none()).then(|| {
        format!(
            "it ends on {}, before the one that it renews ({})",
            rfc3339(new_end),
            rfc3339(old_end)
        )
    })
}

impl Offer {
    /// Whether there is something to request over the network.
    pub fn is_by_request(&self) -> bool {
        matches!(self, Self::CanCreate | Self::CanRegister | Self::CanRequest)
    }
}
