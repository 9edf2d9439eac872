//! The identity with the next key, beside the one in service, and the one that was in service before.
//!
//! All have the same PIN, token and labels, so that what names them need not change. The generation tells which is newer:
//! in the place of the next identity, a newer one waits for its certificate, and an older one has just been relieved.

use std::time::Duration;

use firstboot_formats::files::{self, Access};
use firstboot_formats::public_key::Scheme;
use firstboot_formats::x509::Chain;
use zeroize::Zeroizing;

use super::contents::in_words;
use super::{ASKED, CONFIGURED, GENERATION, Identity, MAX_FILE, PIN, TAKEN_UP};
use crate::error::{Error, Result};
use crate::token::OpenKey;

/// The most digits of a number: beyond that, it is damaged. A time in seconds has ten.
const MAX_DIGITS: usize = 12;
/// Only for root: what is not in service belongs to nobody else.
const ASIDE: Access = Access {
    mode: 0o700,
    group: Some(0),
};

impl Identity {
    /// How many identities have had its PIN before it; none if nothing is noted. An error if the note cannot be read or is
    /// damaged: nothing is concluded from that.
    pub fn generation(&self) -> Result<u64> {
        Ok(self.number(GENERATION)?.unwrap_or_default())
    }

    /// Whether it is one of a series. Only firstboot notes that, and a directory without it is somebody else's.
    pub fn has_generation(&self) -> bool {
        self.directory.join(GENERATION).symlink_metadata().is_ok()
    }

    /// Whether it has the other one's PIN and storage root key: what is to take another one's place has to.
    pub fn is_related_to(&self, other: &Self) -> Result<bool> {
        let pin = |identity: &Self| identity.read(PIN).map(Zeroizing::new);
        Ok(pin(self)? == pin(other)? && self.srk_name()? == other.srk_name()?)
    }

    /// Refuses to go on if another program's token is in the store, or if that cannot be seen: it would go where that
    /// program does not look for it.
    pub fn refuse_other_tokens(&self) -> Result<()> {
        match self.other_tokens()?.as_slice() {
            [] => Ok(()),
            others => Err(Error::other(format!(
                "{} has {} of another program: give that program a store of its own (TPM2_PKCS11_STORE)",
                self.directory.display(),
                in_words(others)
            ))),
        }
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

    /// Puts this identity into the other one's place, and the other one into this one's: in one step. It takes over what
    /// is known of the device, and notes the time (since the epoch), if that is known.
    pub fn relieve(&self, other: &Self, now: Option<Duration>) -> Result<()> {
        other.refuse_other_tokens()?;
        for name in [CONFIGURED, ASKED] {
            if let Some(content) = files::read(&other.directory.join(name), MAX_FILE)? {
                self.write(name, &content)?;
            }
        }
        // The thing's name is not a setting where AWS IoT Core has registered it.
        if self.registration()?.is_none()
            && let Some(registration) = other.registration()?
        {
            self.keep_registration(&registration)?;
        }
        match now {
            Some(now) => self.note_taken_up(now)?,
            None => files::remove(&self.directory.join(TAKEN_UP))?,
        }
        if !other.has_generation() {
            other.write(GENERATION, b"0")?;
        }
        Ok(files::exchange(&self.directory, &other.directory)?)
    }

    /// When it took another one's place (since the epoch); nothing where that is not known.
    pub fn taken_up(&self) -> Option<Duration> {
        let seconds = self.number(TAKEN_UP).ok().flatten();
        seconds.map(Duration::from_secs)
    }

    /// Notes when it took another one's place (since the epoch).
    pub fn note_taken_up(&self, now: Duration) -> Result<()> {
        self.write(TAKEN_UP, now.as_secs().to_string().as_bytes())
    }

    /// Moves to another one's place, and [discards](Self::discard) what is there.
    pub fn replace(&self, other: &Self) -> Result<()> {
        if other.exists()? {
            other.discard()?;
        }
        files::set_access(&self.directory, ASIDE)?;
        Ok(files::rename(&self.directory, &other.directory)?)
    }

    /// Removes it. What is not one of a series, or has another program's token in it, is an error and stays as it is.
    /// What a power cut leaves of it lies in the staging directory, where nobody takes it for an identity.
    pub fn discard(&self) -> Result<()> {
        self.refuse_to_discard_others()?;
        self.clear_away()
    }

    /// Removes it, by way of the staging directory.
    pub(super) fn clear_away(&self) -> Result<()> {
        self.remove_staging()?;
        files::rename(&self.directory, &self.staging)?;
        self.remove_staging()
    }

    /// The same, and destroys its PIN first; what is not one of a series stays.
    pub fn destroy(&self) -> Result<()> {
        if !self.has_generation() {
            return Ok(());
        }
        self.refuse_to_discard_others()?;
        files::overwrite_and_remove(&self.directory.join(PIN))?;
        self.discard()
    }

    fn refuse_to_discard_others(&self) -> Result<()> {
        if !self.has_generation() {
            return Err(Error::other(format!(
                "{} is not firstboot's: remove it",
                self.directory.display()
            )));
        }
        match self.other_tokens() {
            Ok(others) if !others.is_empty() => self.refuse_other_tokens(),
            // A store that is damaged holds nothing.
            _ => Ok(()),
        }
    }

    fn number(&self, name: &str) -> Result<Option<u64>> {
        let path = self.directory.join(name);
        let Some(content) = files::read(&path, MAX_DIGITS)? else {
            return Ok(None);
        };
        let digits = std::str::from_utf8(&content).ok();
        let number = digits.and_then(|digits| digits.parse().ok());
        let damaged = || Error::other(format!("{} is damaged", path.display()));
        number.ok_or_else(damaged).map(Some)
    }
}
