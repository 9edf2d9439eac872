//! From the request to the certificate. One file a method; each answers with an [`Offer`].

pub mod fleet;
pub mod offline;

use crate::attestation::Reply;
use crate::x509::Chain;

/// A wrapped reply that is for this device, from an issuer that may answer it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrapped {
    /// The reply.
    pub reply: Reply,
    /// SHA-256 of its file, hexadecimal.
    pub sha256: String,
}

/// What a method has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offer {
    /// No certificate yet; what is waited for, in words.
    Nothing(String),
    /// AWS IoT Core can be asked for a certificate.
    Request,
    /// AWS IoT Core can be asked to register the thing with the certificate that is kept.
    Registration,
    /// A certificate that may enter the token; with what the operator should know of it.
    Certificate(Box<Chain>, Option<String>),
    /// A certificate that only this TPM can open.
    Reply(Box<Wrapped>),
    /// A certificate that may not, and why.
    Refused(String),
}
