//! The points at which the power is cut.

use std::fmt;

use crate::doubles::tpm_proxy::When;
use crate::faults::storage::Loss;

/// The kinds of cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Before or after each TPM command.
    Command,
    /// Before or after each storage call; the TPM loses its power with the program.
    Call,
    /// At a random point of the recovery from a random cut.
    Twice,
    /// Between two storage calls, with unsynced writes lost or reordered.
    Lost,
    /// Before or after each packet to or from a server, where there is one.
    Packet,
}

impl Kind {
    pub const ALL: [Self; 5] = [
        Self::Command,
        Self::Call,
        Self::Twice,
        Self::Lost,
        Self::Packet,
    ];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Command => "TPM command, before/after",
            Self::Call => "storage call, before/after",
            Self::Twice => "two random points",
            Self::Lost => "lost unsynced writes",
            Self::Packet => "packet, before/after",
        })
    }
}

/// The number of ways to lose unsynced writes at each point: all, data only, names only, and two draws each of an
/// ordered and an unordered selection.
pub const LOSSES: u64 = 7;

/// One point. Trying it again gives the same result, but for the TPM's random numbers.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    pub kind: Kind,
    pub n: usize,
    pub when: When,
    pub seed: u64,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} {} {:?} (seed {})",
            self.kind, self.n, self.when, self.seed
        )
    }
}

impl Point {
    /// For lost writes: the number of storage calls before the cut.
    pub fn after(self) -> usize {
        self.loss().0
    }

    /// For lost writes: the number of storage calls before the cut, and what is lost.
    pub fn loss(self) -> (usize, Loss) {
        let at = self.n / LOSSES as usize;
        let loss = match self.n as u64 % LOSSES {
            0 => Loss::Everything,
            1 => Loss::Data,
            2 => Loss::Names,
            3 | 4 => Loss::Ordered(self.seed),
            _ => Loss::Unordered(self.seed),
        };
        (at, loss)
    }
}
