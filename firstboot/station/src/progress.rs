//! The progress of a long run: one line, only on a terminal.

use std::io::{IsTerminal, Write, stderr};

/// Width of the bar, characters.
const WIDTH: usize = 40;

/// The line; dropping this erases it.
pub(crate) struct Progress {
    what: &'static str,
    total: usize,
    shown: bool,
}

impl Progress {
    /// For `total` items that are to be `what`.
    pub(crate) fn of(total: usize, what: &'static str) -> Self {
        Self {
            what,
            total,
            shown: total > 1 && stderr().is_terminal(),
        }
    }

    /// `count` of them are done.
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
            // Goes to the start, and erases the line (ECMA-48 §8.3.41).
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}
