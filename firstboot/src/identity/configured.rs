//! What the identity has been configured as: tells whose the state is that Greengrass has made, also where the
//! configuration itself is gone.

use firstboot_formats::files;

use super::{CONFIGURED, Identity};
use crate::error::Result;

/// An edition and a thing's name.
const MAX_MARK: usize = 256;

impl Identity {
    /// The mark of the configuration that was written last, if one was.
    pub fn configured(&self) -> Option<String> {
        let content = files::read(&self.directory.join(CONFIGURED), MAX_MARK).ok()??;
        String::from_utf8(content).ok()
    }

    /// Keeps the mark of a configuration that is written.
    pub fn keep_configured(&self, mark: &str) -> Result<()> {
        if self.configured().as_deref() == Some(mark) {
            return Ok(());
        }
        self.write(CONFIGURED, mark.as_bytes())
    }
}
