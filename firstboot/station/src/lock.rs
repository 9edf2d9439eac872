//! One run at a time writes: a second one waits here until the first is done.

use std::fs::{File, TryLockError};
use std::path::Path;

use firstboot_formats::output;

/// Locks an open file or directory until it is closed (flock(2)).
pub(crate) fn lock(file: &File, path: &Path) {
    let path = path.display();
    let locked = match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            output::say(&format!(
                "another firstboot-station is writing to {path}; waiting for it"
            ));
            file.lock()
        }
        Err(TryLockError::Error(e)) => Err(e),
        Ok(()) => Ok(()),
    };
    // Some file systems do not support such locks, such as NFS for directories.
    if let Err(e) = locked {
        output::say(&format!(
            "cannot lock {path} ({e}): do not run another firstboot-station at the same time"
        ));
    }
}
