//! What the identity has been configured as: it tells whose state Greengrass has, even if the configuration itself is
//! gone.

use firstboot_formats::files;

use super::{CONFIGURED, Identity};
use crate::error::Result;

/// Maximum size of a mark, bytes: an edition and a thing's name.
const MAX_MARK: usize = 256;

impl Identity {
    /// The mark of the configuration that was written last, if one was.
    pub fn configured(&self) -> Option<String> {
        let content = files::read(&self.directory.join(CONFIGURED), MAX_MARK).ok()??;
        String::from_utf8(content).ok()
    }

    /// Keeps the mark of a written configuration.
    pub fn keep_configured(&self, mark: &str) -> Result<()> {
        if self.configured().as_deref() == Some(mark) {
            return Ok(());
        }
        self.write(CONFIGURED, mark.as_bytes())
    }
}
