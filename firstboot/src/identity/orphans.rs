//! Orphans: identities that are set aside when the TPM cannot serve them any more, taken back when it can, and given up by
//! `firstboot reset`.

use std::fs;
use std::path::{Path, PathBuf};

use firstboot_formats::files::{self, Access};

use super::contents::other_tokens;
use super::{CERTIFICATE, ESSENTIAL, Identity, PIN, SRK_NAME};
use crate::error::Result;
use crate::layout::ORPHAN_SUFFIX;

/// Identities set aside that are kept: enough to look at what went wrong, too few to fill a disk.
const ORPHANS_KEPT: usize = 2;
/// Marks of an identity that `firstboot reset` has given up, so that it does not come back by itself: its PIN goes, or
/// stays. They are empty: such a file is there or not, whenever the power goes, and leaves nothing half-written.
const GIVEN_UP: [&str; 2] = ["reset", "reset-keep"];
/// For root alone: what is set aside is nobody's any more.
const ASIDE: Access = Access {
    mode: 0o700,
    group: Some(0),
};

impl Identity {
    /// Sets the identity aside, for root alone, and forgets the least of those that were set aside before. The PIN
    /// stays with it, since the identity may come back with its TPM; but not where a reset was interrupted that was
    /// to destroy it.
    pub fn set_aside(&self) -> Result<PathBuf> {
        let [destroy, _] = GIVEN_UP;
        if self.directory.join(destroy).exists() {
            files::overwrite_and_remove(&self.directory.join(PIN))?;
        }
        let aside = self.move_aside()?;
        self.forget_superfluous(&aside)?;
        Ok(aside)
    }

    /// Gives the identity up: sets it aside in such a way that it does not come back by itself, and destroys its PIN,
    /// without which nobody can use the key, unless that is to be kept. The mark comes first: with it the reset has
    /// happened, and what a power cut leaves of it is done by the next start.
    pub fn give_up(&self, keep_pin: bool) -> Result<PathBuf> {
        let [destroy, keep] = GIVEN_UP;
        let mark = if keep_pin { keep } else { destroy };
        files::make_empty(&self.directory.join(mark))?;
        self.set_aside()
    }

    /// Sets an identity aside that is damaged: it does not come back by itself, and keeps its PIN for who looks at it.
    pub fn set_defective_aside(&self) -> Result<PathBuf> {
        if self.directory.is_dir() && !is_given_up(&self.directory) {
            self.give_up(true)
        } else {
            self.set_aside()
        }
    }

    /// Puts an identity that was set aside back into its place. What is there is set aside first, and nothing is
    /// forgotten for it: a power cut between the two renames leaves none, and the next start takes this one back.
    pub fn take_back(&self, orphan: &Path) -> Result<()> {
        if self.exists()? {
            self.move_aside()?;
        }
        Ok(files::rename(orphan, &self.directory)?)
    }

    /// Those that were set aside and can come back, by the Name of the storage root key that they need, the latest
    /// first.
    pub fn returnable(&self) -> Vec<(String, PathBuf)> {
        self.orphans()
            .into_iter()
            .rev()
            .filter(|(_, path)| is_returnable(path))
            .filter_map(|(_, path)| {
                // As long as a Name can be, in hexadecimal digits.
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
        // What is no directory may be somebody's link to one.
        if self.directory.symlink_metadata().is_ok_and(|m| m.is_dir()) {
            files::set_access(&self.directory, ASIDE)?;
        }
        files::rename(&self.directory, &aside)?;
        Ok(aside)
    }

    /// Removes what is too much: never what holds a token of somebody else's, never one with a certificate for one
    /// without, and rather one that cannot come back than one that can.
    fn forget_superfluous(&self, latest: &Path) -> Result<()> {
        let mut ours: Vec<_> = self
            .orphans()
            .into_iter()
            // What cannot be read may hold anything.
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
                    "{} is not kept: those from before are worth more",
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

/// Whether an identity that was set aside is complete, and was not given up.
fn is_returnable(orphan: &Path) -> bool {
    let is_there =
        |name: &&str| fs::metadata(orphan.join(name)).is_ok_and(|m| m.is_file() && m.len() > 0);
    ESSENTIAL.iter().all(is_there) && !is_given_up(orphan)
}

/// Whether `firstboot reset` has given up the identity in a directory.
pub(super) fn is_given_up(directory: &Path) -> bool {
    GIVEN_UP.iter().any(|mark| directory.join(mark).exists())
}
