//! When the power goes.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The command or call does not happen.
    Before,
    /// It happens, and nobody hears of it.
    After,
}

pub struct Cut {
    when: When,
    /// commands until the cut, the one in question included
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

    /// Asked before and after each command, in this order.
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
