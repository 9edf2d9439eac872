//! What went over the wire.

use std::collections::BTreeMap;
use std::time::Duration;

/// One command, in the order in which the TPM saw it.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub code: u32,
    pub name: &'static str,
    pub handles: Vec<u32>,
    /// all of it, as it came
    pub bytes: Vec<u8>,
    /// all of the answer; empty where there was none
    pub response: Vec<u8>,
    /// `None`: never answered (the power was cut, or the TPM is gone)
    pub response_code: Option<u32>,
    /// what it took here
    pub elapsed: Duration,
    /// what it would take on the chip; zero without a latency table
    pub chip_time: Duration,
}

#[derive(Clone, Debug, Default)]
pub struct CommandLog(pub Vec<Exchange>);

impl CommandLog {
    pub fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|command| command.name).collect()
    }

    /// How often each command came.
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

    /// The commands that have these bytes in them or in their answers.
    pub fn with(&self, bytes: &[u8]) -> Vec<&'static str> {
        let has = |text: &[u8]| text.windows(bytes.len()).any(|window| window == bytes);
        let found = self.0.iter().filter(|c| has(&c.bytes) || has(&c.response));
        found.map(|command| command.name).collect()
    }

    /// What all of them would take on the chip.
    pub fn chip_time(&self) -> Duration {
        self.0.iter().map(|command| command.chip_time).sum()
    }
}
