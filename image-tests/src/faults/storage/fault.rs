//! A disk that is full, read-only or broken.

use anyhow::Result;
use nix::errno::Errno;

use super::call::{Kind, StorageCall};
use super::tracee::Tracee;
use super::tracer::{Observer, Verdict};

/// An error that storage calls answer with instead of happening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// ENOSPC, EROFS or EIO
    pub error: Errno,
    /// the first call to fail, counting from 1
    pub from: usize,
    /// all later ones fail as well: the disk stays full
    pub lasting: bool,
}

impl Fault {
    pub(super) fn injector(self) -> Injector {
        Injector {
            fault: self,
            seen: 0,
        }
    }

    /// Whether such a call can answer with such an error: section 2 of the manual, ERRORS.
    fn fits(self, kind: Kind) -> bool {
        match self.error {
            // removing needs no room
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
            // what was open when the disk became read-only can still be synced
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
        let due = match self.fault.lasting {
            true => self.seen >= self.fault.from,
            false => self.seen == self.fault.from,
        };
        let fails = due && self.fault.fits(call.kind);
        Ok(if fails {
            Verdict::Fail(self.fault.error)
        } else {
            Verdict::Go
        })
    }
}
