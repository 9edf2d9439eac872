//! The double's state.

use anyhow::Result;
use openssl::x509::X509;

use super::policy::{ClientIds, Renewing};
use super::provisioning::Service;
use crate::doubles::pki::Authority;

/// The double's state at one moment, from which another one can continue.
#[derive(Clone)]
pub struct Memory {
    pub(super) service: Service,
    pub(super) claim: String,
    pub(super) registered: Vec<X509>,
    pub(super) claim_pem: [String; 2],
    pub(super) trusted: Vec<u8>,
    pub(super) renewing: Renewing,
    pub(super) client_ids: ClientIds,
}

impl Memory {
    /// The same with one more CA registered, whose clients the broker accepts.
    pub fn registering(mut self, authority: &Authority) -> Result<Self> {
        let pem = authority.certificate_pem()?;
        self.registered.push(X509::from_pem(pem.as_bytes())?);
        self.trusted.extend(pem.as_bytes());
        Ok(self)
    }
}
