//! The commands that went through the proxy, and their responses.

use std::collections::BTreeMap;
use std::time::Duration;

/// One command and its response.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub code: u32,
    pub name: &'static str,
    pub handles: Vec<u32>,
    /// The whole command.
    pub bytes: Vec<u8>,
    /// The whole response; empty if there was none.
    pub response: Vec<u8>,
    /// `None` if there was no response: the power was cut, or the TPM is gone.
    pub response_code: Option<u32>,
    /// The time it took here.
    pub elapsed: Duration,
    /// The time it would take on the chip; zero without a latency table.
    pub chip_time: Duration,
}

/// In the order in which the TPM got them.
/// In the order in which the TPM got them.
#[derive(Clone, Debug, Default)]
pub struct CommandLog(pub Vec<Exchange>);

impl CommandLog {
    pub fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|command| command.name).collect()
    }

    /// How many of each command there were.
    pub fn counts(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for command in &self.0 {
            *counts.entry(command.name).or_default() += 1;
        }
        counts
    }

    pub fn count(&self, name: &str) -> usize {
        self.counts().get(name).copied().unwrap_or_default()
    }

    /// The commands with these bytes in them or in their responses.
    pub fn with(&self, bytes: &[u8]) -> Vec<&'static str> {
        let has = |text: &[u8]| text.windows(bytes.len()).any(|window| window == bytes);
        let found = self.0.iter().filter(|c| has(&c.bytes) || has(&c.response));
        found.map(|command| command.name).collect()
    }

    /// The time that all of them would take on the chip.
    pub fn chip_time(&self) -> Duration {
        self.0.iter().map(|command| command.chip_time).sum()
    }
}
