//! The store, where the PKCS#11 library was interrupted while it upgraded it.

use firstboot_formats::files;

use super::Identity;
use crate::error::Result;

impl Identity {
    /// Whether an upgrade of the store's schema by tpm2-pkcs11 1.10 was interrupted: it leaves
    /// copies behind, and then refuses to run for ever. Of a store that is ours.
    pub fn has_cut_upgrade(&self) -> bool {
        [".bak", ".old"]
            .iter()
            .any(|suffix| self.database(suffix).exists())
            && self.has_files_of_ours()
    }

    /// Puts an interrupted upgrade right (tpm2-pkcs11 1.10, src/lib/db.c): the original back into
    /// its place if it was moved away, the copies removed. The library then upgrades again.
    pub fn repair_upgrade(&self) -> Result<()> {
        let original = self.database("");
        let moved = self.database(".old");
        if !original.exists() && moved.exists() {
            files::rename(&moved, &original)?;
        }
        for suffix in [".bak", ".bak-journal", ".old", ".lock"] {
            files::remove(&self.database(suffix))?;
        }
        Ok(())
    }
}
