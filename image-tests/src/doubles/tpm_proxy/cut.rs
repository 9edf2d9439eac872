//! The moment of a power cut.

use std::fmt;

/// On which side of a command, call or packet the power is cut.
/// On which side of a command, call or packet the power is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// It does not happen.
    Before,
    /// It happens, and nobody gets the answer.
    After,
}

pub struct Cut {
    when: When,
    /// Commands until the cut, including the one that is cut.
    left: usize,
    kill: Box<dyn FnOnce() + Send>,
}

impl Cut {
    pub fn new(when: When, n: usize, kill: Box<dyn FnOnce() + Send>) -> Self {
        Self {
            when,
            left: n,
            kill,
        }
    }

    /// Call this before and after each command.
    pub fn is_due(&mut self, moment: When) -> bool {
        if moment == When::Before {
            self.left = self.left.saturating_sub(1);
        }
        self.left == 0 && moment == self.when
    }

    pub fn kill(self) {
        (self.kill)();
    }
}

impl fmt::Debug for Cut {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "Cut {:?} in {} commands", self.when, self.left)
    }
}
