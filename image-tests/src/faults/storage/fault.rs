//! A disk that is full, read-only or broken.

use anyhow::Result;
use nix::errno::Errno;

use super::call::{Kind, StorageCall};
use super::tracee::Tracee;
use super::tracer::{Observer, Verdict};

/// An error that storage calls return instead of taking effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// ENOSPC, EROFS or EIO.
    pub error: Errno,
    /// The first call to fail, counted from 1.
    pub from: usize,
    /// Whether all later ones fail, too, as on a disk that stays full.
    pub lasting: bool,
}

impl Fault {
    pub(super) fn injector(self) -> Injector {
        Injector {
            fault: self,
            seen: 0,
        }
    }

    /// Whether such a call can return this error: section 2 of the manual, ERRORS.
    fn fits(self, kind: Kind) -> bool {
        match self.error {
            // Removing needs no space.
            Errno::ENOSPC => matches!(
                kind,
                Kind::Open
                    | Kind::Content
                    | Kind::Rename
                    | Kind::Link
                    | Kind::Symlink
                    | Kind::MakeDirectory
                    | Kind::Sync
                    | Kind::SyncData
            ),
            // Files that were open when the disk became read-only can still be synced.
            Errno::EROFS => !matches!(kind, Kind::Sync | Kind::SyncData | Kind::SyncAll),
            _ => kind != Kind::SyncAll,
        }
    }
}

pub struct Injector {
    fault: Fault,
    seen: usize,
}

impl Observer for Injector {
    fn enter(&mut self, call: &StorageCall, _: Tracee) -> Result<Verdict> {
        self.seen += 1;
        let due = if self.fault.lasting {
            self.seen >= self.fault.from
        } else {
            self.seen == self.fault.from
        };
        let fails = due && self.fault.fits(call.kind);
        Ok(if fails {
            Verdict::Fail(self.fault.error)
        } else {
            Verdict::Go
        })
    }
}
