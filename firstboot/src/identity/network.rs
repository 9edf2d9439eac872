//! The identity with the key for networks that want their own. It is not one of a series, and has a PIN of its own.

use firstboot_formats::files;

use super::{Contents, Identity, PIN};
use crate::error::{Error, Result};

impl Identity {
    /// Removes it, its PIN first, and keeps nothing of it. Whether there was one; another program's token beside it is
    /// an error. With its mark it is given up, so that nobody takes what a power cut leaves for an identity.
    pub fn destroy_if_ours(&self) -> Result<bool> {
        if !self.exists()? {
            return Ok(false);
        }
        match self.contents()? {
            Contents::Nothing | Contents::Others(_) => return Ok(false),
            Contents::Both(what) => return Err(Error::other(what)),
            Contents::Ours => {}
        }
        // Anything but a directory may be a link to one.
        if self.directory.symlink_metadata().is_ok_and(|m| m.is_dir()) {
            self.mark_given_up(false)?;
            files::overwrite_and_remove(&self.directory.join(PIN))?;
        }
        self.clear_away()?;
        Ok(true)
    }
}
