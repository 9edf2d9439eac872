//! What the double knows.

use openssl::x509::X509;

use super::provisioning::Service;

/// What the double knows at a moment: another one can go on from there.
#[derive(Clone)]
pub struct Memory {
    pub(super) service: Service,
    pub(super) claim: String,
    pub(super) registered: Vec<X509>,
    pub(super) claim_pem: [String; 2],
    pub(super) trusted: Vec<u8>,
}
