//! The store after an interrupted upgrade by the PKCS#11 library.

use firstboot_formats::files;

use super::Identity;
use crate::error::Result;

impl Identity {
    /// Whether an upgrade of the store's schema by tpm2-pkcs11 1.10 was interrupted: it leaves copies behind, and the
    /// library then never runs again. Only for a store of ours.
    pub fn has_cut_upgrade(&self) -> bool {
        [".bak", ".old"]
            .iter()
            .any(|suffix| self.database(suffix).exists())
            && self.has_files_of_ours()
    }

    /// Repairs an interrupted upgrade (tpm2-pkcs11 1.10, src/lib/db.c): moves the original back into place if it was
    /// moved away, and removes the copies. The library then upgrades again.
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
