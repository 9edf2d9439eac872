//! The identity with the next key, beside the one in service, and the one that was in service before.
//!
//! All have the same PIN, token and labels, so that what names them need not change. The generation tells which is newer:
//! in the place of the next identity, a newer one waits for its certificate, and an older one has just been relieved.

use std::time::Duration;

use firstboot_formats::encoding::to_hex;
use firstboot_formats::files;
use firstboot_formats::public_key::Scheme;
use firstboot_formats::x509::Chain;

use super::{ASKED, CONFIGURED, GENERATION, Identity, MAX_FILE, PIN, REFUSED, TAKEN_UP};
use crate::error::{Error, Result};
use crate::token::OpenKey;

/// A number of 64 bits has this many digits at most.
const MAX_NUMBER: usize = 20;

impl Identity {
    /// How many identities have had its PIN before it. Where nobody can tell, that is none.
    pub fn generation(&self) -> u64 {
        self.number(GENERATION).unwrap_or_default()
    }

    /// Whether it has the other one's PIN and storage root key: what is to take another one's place has to.
    pub fn is_related_to(&self, other: &Self) -> Result<bool> {
        Ok(
            self.pin()?.expose() == other.pin()?.expose()
                && self.srk_name()? == other.srk_name()?,
        )
    }

    /// Has the token sign something, and holds it against the certificate. The key stays open.
    pub fn prove(&self, chain: &Chain) -> Result<OpenKey> {
        const MESSAGE: &[u8] = b"firstboot proves the next key";
        let key = self.open_key()?;
        let signature = key.sign(Scheme::X509, MESSAGE)?;
        if chain.key().verifies(Scheme::X509, MESSAGE, &signature) {
            return Ok(key);
        }
        Err(Error::other(
            "what the token signs is not of the certificate's key: was its store exchanged?",
        ))
    }

    /// Whether it was noted that AWS IoT Core accepts no connection with this certificate.
    pub fn is_refused(&self, chain: &Chain) -> bool {
        let noted = files::read(&self.directory.join(REFUSED), MAX_FILE)
            .ok()
            .flatten();
        noted.is_some_and(|noted| noted == to_hex(&chain.fingerprint()).as_bytes())
    }

    /// Notes that it does not.
    pub fn note_refused(&self, chain: &Chain) -> Result<()> {
        self.write(REFUSED, to_hex(&chain.fingerprint()).as_bytes())
    }

    /// Puts this identity into the other one's place, and the other one into this one's: in one step. It takes over what
    /// is known of the device, and notes the time (since the epoch), if that is known.
    pub fn relieve(&self, other: &Self, now: Option<Duration>) -> Result<()> {
        for name in [CONFIGURED, ASKED] {
            if let Some(content) = files::read(&other.directory.join(name), MAX_FILE)? {
                self.write(name, &content)?;
            }
        }
        match now {
            Some(now) => self.write(TAKEN_UP, now.as_secs().to_string().as_bytes())?,
            None => files::remove(&self.directory.join(TAKEN_UP))?,
        }
        files::remove(&self.directory.join(REFUSED))?;
        Ok(files::exchange(&self.directory, &other.directory)?)
    }

    /// When it took another one's place (since the epoch); nothing where that is not known.
    pub fn taken_up(&self) -> Option<Duration> {
        self.number(TAKEN_UP).map(Duration::from_secs)
    }

    /// Moves to another one's place, in which there is nothing any more afterwards but this one.
    pub fn replace(&self, other: &Self) -> Result<()> {
        if other.exists()? {
            other.discard()?;
        }
        Ok(files::rename(&self.directory, &other.directory)?)
    }

    /// Removes it. What a power cut leaves of it lies in the staging directory, where nobody takes it for an identity.
    pub fn discard(&self) -> Result<()> {
        self.remove_staging()?;
        files::rename(&self.directory, &self.staging)?;
        self.remove_staging()
    }

    /// The same, and destroys its PIN first.
    pub fn destroy(&self) -> Result<()> {
        if !self.exists()? {
            return Ok(());
        }
        files::overwrite_and_remove(&self.directory.join(PIN))?;
        self.discard()
    }

    fn number(&self, name: &str) -> Option<u64> {
        let content = files::read(&self.directory.join(name), MAX_NUMBER).ok()??;
        String::from_utf8(content).ok()?.parse().ok()
    }
}
