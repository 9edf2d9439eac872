//! The accepted certificate, and the token, which has to hold it for editions that read it there.
//!
//! `certificate.pem` comes first and is durable; then the token is made to match, as often as necessary.
//! `verified.json` notes what was seen, with hashes of both: as long as they match, the token need not be opened.

use std::fs;
use std::io::Read;

use firstboot_formats::encoding::to_hex;
use firstboot_formats::files;
use firstboot_formats::x509::Chain;
use openssl::sha::Sha256;
use serde::{Deserialize, Serialize};

use super::{CERTIFICATE, DATABASE, Identity, MAX_FILE, VERIFIED, token_slot};
use crate::error::{ErrorKind, Result, ResultExt};
use crate::token::Library;

/// What the token was seen to hold: valid until the store or the certificate changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    store_sha256: String,
    certificate_sha256: String,
    /// The token's slot in that store.
    pub slot: u64,
}

impl Identity {
    /// The accepted certificate with its chain, if there is a valid one. A file that cannot be read is an error, so
    /// that nothing made with it is removed.
    pub fn certificate(&self) -> Result<Option<Chain>> {
        let pem = files::read(&self.directory.join(CERTIFICATE), MAX_FILE)?;
        Ok(pem.and_then(|pem| Chain::stored(&pem)))
    }

    /// Accepts a certificate: from now on Greengrass is to present it.
    pub fn accept(&self, chain: &Chain) -> Result<()> {
        self.write(CERTIFICATE, chain.pem().as_bytes())
    }

    /// Makes the token hold the accepted certificate, and notes what it holds.
    pub fn fill_token(&self, chain: &Chain) -> Result<()> {
        let library = Library::open(&self.store)?;
        let slot = token_slot(&library)?;
        let login = library.login(slot, &self.pin()?)?;
        let (leaf, issuers) = chain.objects();
        login.set_certificates(&leaf, &issuers)?;
        drop(login);
        drop(library);
        // SQLite does not sync the removal of its rollback journal (it would with synchronous=EXTRA): if a power cut
        // brought it back, the certificate would be rolled back. A journal that is still there, now that the library
        // has read the store, is void.
        files::remove(&self.database("-journal"))?;
        files::sync_directory(&self.directory)?;
        let verified = Verified {
            slot,
            ..self.fingerprint()?
        };
        let text = serde_json::to_vec(&verified)
            .context(ErrorKind::Other, || "cannot encode verified.json".into())?;
        self.write(VERIFIED, &text)
    }

    /// What the token holds, if it was seen to hold the accepted certificate and neither has
    /// changed since. A store with a rollback journal is going to change as soon as it is opened.
    pub fn verified(&self) -> Option<Verified> {
        if self.database("-journal").exists() {
            return None;
        }
        let noted: Verified = serde_json::from_slice(&self.read(VERIFIED).ok()?).ok()?;
        let now = Verified {
            slot: noted.slot,
            ..self.fingerprint().ok()?
        };
        (noted == now).then_some(noted)
    }

    fn fingerprint(&self) -> Result<Verified> {
        Ok(Verified {
            store_sha256: self.hash(DATABASE)?,
            certificate_sha256: self.hash(CERTIFICATE)?,
            slot: 0,
        })
    }

    fn hash(&self, name: &str) -> Result<String> {
        let path = self.directory.join(name);
        let hash = || -> std::io::Result<[u8; 32]> {
            let mut file = fs::File::open(&path)?;
            let mut hasher = Sha256::new();
            let mut buffer = [0; 16 * 1024];
            loop {
                match file.read(&mut buffer)? {
                    0 => return Ok(hasher.finish()),
                    n => hasher.update(&buffer[..n]),
                }
            }
        };
        let digest = hash().context(ErrorKind::Other, || {
            format!("cannot read {}", path.display())
        })?;
        Ok(to_hex(&digest))
    }
}
