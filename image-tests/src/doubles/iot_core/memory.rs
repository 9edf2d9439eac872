//! The double's state.

use openssl::x509::X509;

use super::provisioning::Service;

/// The double's state at one moment, from which another one can continue.
#[derive(Clone)]
pub struct Memory {
    pub(super) service: Service,
    pub(super) claim: String,
    pub(super) registered: Vec<X509>,
    pub(super) claim_pem: [String; 2],
    pub(super) trusted: Vec<u8>,
}
