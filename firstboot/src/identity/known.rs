//! What the files of an identity say: its key, request, record and certificate.

use firstboot_formats::public_key::PublicKey;
use firstboot_formats::record::Record;
use firstboot_formats::x509::{Chain, Request};

use super::Identity;
use crate::error::{Error, Result};

/// What is known of an identity.
pub struct Known {
    /// Its key.
    pub key: PublicKey,
    /// Its request, if that can be read.
    pub request: Option<Request>,
    /// The files of the request, PEM, and of its record, JSON; empty if they are lost.
    pub request_files: [Vec<u8>; 2],
    /// The record, or one that says that it is lost.
    pub record: Record,
    /// The accepted certificate for its key.
    pub certificate: Option<Chain>,
}

impl Identity {
    /// Reads them. Request and record can be made again, so their loss never costs an identity: the certificate and the
    /// token's store also tell the key. The inner error says that nothing does.
    pub fn known(&self) -> Result<std::result::Result<Known, Error>> {
        let request_files = self.request_files()?;
        let [request_pem, record_json] = &request_files;
        let request =
            Request::parse(request_pem).and_then(|request| Ok((request.public_key()?, request)));
        let certificate = self.certificate()?;
        let (key, request) = match (request, &certificate) {
            (Ok((key, request)), _) => (key, Some(request)),
            (Err(_), Some(certificate)) => (certificate.key(), None),
            (Err(_), None) => match self.stored_key().and_then(|stored| stored.public_key()) {
                Ok(key) => (key, None),
                Err(e) => return Ok(Err(e)),
            },
        };
        let record = serde_json::from_slice(record_json)
            .unwrap_or_else(|_| Record::lost(key.key_type().unwrap_or_default()));
        let certificate = certificate.filter(|chain| chain.is_for(&key));
        Ok(Ok(Known {
            key,
            request,
            request_files,
            record,
            certificate,
        }))
    }
}
