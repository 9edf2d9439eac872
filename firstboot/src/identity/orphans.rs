//! Orphans: identities that are set aside when the TPM can no longer serve them, restored when it can, and discarded by
//! `firstboot reset`.

use std::fs;
use std::path::{Path, PathBuf};

use firstboot_formats::files::{self, Access};

use super::contents::other_tokens;
use super::{CERTIFICATE, ESSENTIAL, Identity, PIN, SRK_NAME};
use crate::error::Result;
use crate::layout::ORPHAN_SUFFIX;

/// Number of set-aside identities that are kept: enough to look at what went wrong, too few to fill a disk.
const ORPHANS_KEPT: usize = 2;
/// Marks of an identity that was given up, so that it is not restored: its PIN is destroyed, or kept. They are empty files: whenever the power goes, such a file is there or not, never half-written.
const GIVEN_UP: [&str; 2] = ["reset", "reset-keep"];
/// Only for root: what is set aside belongs to nobody any more.
const ASIDE: Access = Access {
    mode: 0o700,
    group: Some(0),
};

impl Identity {
    /// Sets the identity aside, readable only by root, and removes the least valuable of those set aside before. The
    /// PIN stays with it, because the identity may be restored with its TPM; but not if a reset that was to destroy the
    /// PIN was interrupted.
    pub fn set_aside(&self) -> Result<PathBuf> {
        let [destroy, _] = GIVEN_UP;
        if self.directory.join(destroy).exists() {
            files::overwrite_and_remove(&self.directory.join(PIN))?;
        }
        let aside = self.move_aside()?;
        self.forget_superfluous(&aside)?;
        Ok(aside)
    }

    /// Discards the identity: sets it aside so that it is never restored, and destroys its PIN, without which nobody
    /// can use the key, unless the PIN is to be kept. The mark comes first: with it the reset has happened, and the
    /// next start finishes what a power cut interrupts.
    pub fn give_up(&self, keep_pin: bool) -> Result<PathBuf> {
        self.mark_given_up(keep_pin)?;
        self.set_aside()
    }

    pub(super) fn mark_given_up(&self, keep_pin: bool) -> Result<()> {
        let [destroy, keep] = GIVEN_UP;
        let mark = if keep_pin { keep } else { destroy };
        Ok(files::make_empty(&self.directory.join(mark))?)
    }

    /// Sets a damaged identity aside: it is never restored, and keeps its PIN for inspection.
    pub fn set_defective_aside(&self) -> Result<PathBuf> {
        if self.directory.is_dir() && !is_given_up(&self.directory) {
            self.give_up(true)
        } else {
            self.set_aside()
        }
    }

    /// Restores an identity that was set aside. The present one is set aside first, and none is removed for it: a power
    /// cut between the two renames leaves no identity, and the next start restores this one.
    pub fn take_back(&self, orphan: &Path) -> Result<()> {
        if self.exists()? {
            self.move_aside()?;
        }
        Ok(files::rename(orphan, &self.directory)?)
    }

    /// The set-aside identities that can be restored, with the Name of the storage root key that they need, the latest
    /// first.
    pub fn returnable(&self) -> Vec<(String, PathBuf)> {
        self.orphans()
            .into_iter()
            .rev()
            .filter(|(_, path)| is_returnable(path))
            .filter_map(|(_, path)| {
                // The maximum length of a Name, in hexadecimal digits.
                let name = files::read(&path.join(SRK_NAME), 2 * (2 + 64)).ok()??;
                Some((String::from_utf8(name).ok()?, path))
            })
            .collect()
    }

    fn move_aside(&self) -> Result<PathBuf> {
        let next = self.orphans().last().map_or(1, |(number, _)| number + 1);
        let mut name = self.directory.clone().into_os_string();
        name.push(format!("{ORPHAN_SUFFIX}{next}"));
        let aside = PathBuf::from(name);
        // Anything but a directory may be a link to one.
        if self.directory.symlink_metadata().is_ok_and(|m| m.is_dir()) {
            files::set_access(&self.directory, ASIDE)?;
        }
        files::rename(&self.directory, &aside)?;
        Ok(aside)
    }

    /// Removes superfluous ones: never one with another program's token, never one with a certificate in favour of one
    /// without, and rather one that cannot be restored than one that can.
    fn forget_superfluous(&self, latest: &Path) -> Result<()> {
        let mut ours: Vec<_> = self
            .orphans()
            .into_iter()
            // An unreadable store may hold anything.
            .filter(|(_, path)| other_tokens(path).is_ok_and(|others| others.is_empty()))
            .map(|(number, path)| {
                let has_certificate = path.join(CERTIFICATE).exists();
                (has_certificate, is_returnable(&path), number, path)
            })
            .collect();
        ours.sort();
        let too_many = ours.len().saturating_sub(ORPHANS_KEPT);
        for (.., path) in ours.into_iter().take(too_many) {
            if path == latest {
                log::warn!(
                    "not keeping {}: the identities set aside before it have a certificate or can be restored",
                    path.display()
                );
            }
            files::remove_tree(&path)?;
        }
        Ok(())
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
}

/// Whether an identity that was set aside is complete, and was not discarded.
fn is_returnable(orphan: &Path) -> bool {
    let is_there =
        |name: &&str| fs::metadata(orphan.join(name)).is_ok_and(|m| m.is_file() && m.len() > 0);
    ESSENTIAL.iter().all(is_there) && !is_given_up(orphan)
}

/// Whether `firstboot reset` has discarded the identity in a directory.
pub(super) fn is_given_up(directory: &Path) -> bool {
    GIVEN_UP.iter().any(|mark| directory.join(mark).exists())
}
