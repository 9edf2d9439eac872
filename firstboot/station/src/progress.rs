//! How far a long run is: one line, on a terminal only.

use std::io::{IsTerminal, Write, stderr};

/// Characters of the bar.
const WIDTH: usize = 40;

/// The line; it goes away when this is dropped.
pub(crate) struct Progress {
    what: &'static str,
    total: usize,
    shown: bool,
}

impl Progress {
    /// Of so many that are to be `what`.
    pub(crate) fn of(total: usize, what: &'static str) -> Self {
        Self {
            what,
            total,
            shown: total > 1 && stderr().is_terminal(),
        }
    }

    /// So many are done.
    pub(crate) fn done(&self, count: usize) {
        if self.shown {
            let bar = "#".repeat(WIDTH * count / self.total.max(1));
            // A terminal that has gone away is no reason to stop.
            let _ = write!(
                stderr(),
                "\r[{bar:<WIDTH$}] {count}/{} {}",
                self.total,
                self.what
            );
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            // Back to the beginning, and erase the line (ECMA-48 §8.3.41).
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}
