//! What becomes of identities: set aside when the TPM cannot serve them any more, repaired when the
//! PKCS#11 library was interrupted.

use std::fs;
use std::path::PathBuf;

use super::{DATABASE, Identity};
use crate::error::Result;
use crate::files;
use crate::layout::ORPHAN_SUFFIX;

/// Identities set aside that are kept: enough to look at what went wrong, too few to fill a disk.
const ORPHANS_KEPT: usize = 2;

impl Identity {
    /// Sets the identity aside, and forgets the oldest of those that were set aside before.
    pub fn set_aside(&self) -> Result<PathBuf> {
        let orphans = self.orphans();
        let next = orphans.last().map_or(1, |(number, _)| number + 1);
        let mut name = self.directory.clone().into_os_string();
        name.push(format!("{ORPHAN_SUFFIX}{next}"));
        let aside = PathBuf::from(name);
        files::rename(&self.directory, &aside)?;
        for (_, old) in orphans.iter().rev().skip(ORPHANS_KEPT - 1) {
            files::remove_tree(old)?;
        }
        Ok(aside)
    }

    /// Identities that were set aside, oldest first.
    pub fn orphans(&self) -> Vec<(u64, PathBuf)> {
        let (Some(parent), Some(name)) = (self.directory.parent(), self.directory.file_name())
        else {
            return Vec::new();
        };
        let prefix = format!("{}{ORPHAN_SUFFIX}", name.to_string_lossy());
        let mut found: Vec<(u64, PathBuf)> = fs::read_dir(parent)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name();
                let number = name.to_str()?.strip_prefix(&prefix)?.parse().ok()?;
                Some((number, entry.path()))
            })
            .collect();
        found.sort();
        found
    }

    /// Whether an upgrade of the store's schema by tpm2-pkcs11 1.10 was interrupted: it leaves
    /// copies behind, and then refuses to run for ever.
    pub fn has_torn_upgrade(&self) -> bool {
        [".bak", ".old"]
            .iter()
            .any(|suffix| self.database(suffix).exists())
    }

    /// Puts an interrupted upgrade right (facts/tpm2-pkcs11.md §1, bug B): the original back into
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

    pub(super) fn database(&self, suffix: &str) -> PathBuf {
        self.directory.join(format!("{DATABASE}{suffix}"))
    }
}
