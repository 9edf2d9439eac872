//! The guest's journal, as it comes over the report channel: one JSON object a line (journalctl -o json).

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::Value;

/// Only so that a test that waits in vain ends: a boot takes half a minute, and several on a machine that is
/// busy with other things.
const LIMIT: Duration = Duration::from_secs(900);

/// One entry; systemd.journal-fields(7) has the names.
#[derive(Clone, Debug)]
pub struct Entry(Value);

impl Entry {
    pub fn field(&self, name: &str) -> &str {
        self.0[name].as_str().unwrap_or_default()
    }

    pub fn message(&self) -> &str {
        self.field("MESSAGE")
    }

    /// The unit that it is of, or about.
    pub fn unit(&self) -> &str {
        match self.field("UNIT") {
            "" => self.field("_SYSTEMD_UNIT"),
            unit => unit,
        }
    }

    /// How the unit's start has ended, if this record says so: "done", "failed", "dependency", ….
    pub fn started(&self) -> Option<&str> {
        (self.field("JOB_TYPE") == "start" && !self.field("JOB_RESULT").is_empty())
            .then(|| self.field("JOB_RESULT"))
    }

    /// Since the kernel's start.
    pub fn time(&self) -> Duration {
        let microseconds = self.field("__MONOTONIC_TIMESTAMP").parse();
        Duration::from_micros(microseconds.unwrap_or(0))
    }
}

/// A part of the journal, in its order.
#[derive(Clone, Debug, Default)]
pub struct Journal(Vec<Entry>);

impl Journal {
    /// What was kept of a boot.
    pub fn read(file: &Path) -> Result<Self> {
        let text = String::from_utf8_lossy(&std::fs::read(file)?).into_owned();
        let records = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        Ok(Self(records.map(Entry).collect()))
    }

    pub fn entries(&self) -> &[Entry] {
        &self.0
    }

    /// The records of a unit, or about it.
    pub fn of(&self, unit: &str) -> Self {
        let of_unit = self.0.iter().filter(|record| record.unit() == unit);
        Self(of_unit.cloned().collect())
    }

    /// The first record with these words.
    pub fn saying(&self, words: &str) -> Option<&Entry> {
        self.0
            .iter()
            .find(|record| record.message().contains(words))
    }

    /// How a unit's start has ended, the last time.
    pub fn started(&self, unit: &str) -> Option<&str> {
        let of_unit = self.0.iter().filter(|record| record.unit() == unit);
        of_unit.filter_map(Entry::started).next_back()
    }

    pub fn text(&self) -> String {
        let line = |r: &Entry| {
            format!(
                "{:9.3} {}: {}\n",
                r.time().as_secs_f64(),
                r.unit(),
                r.message()
            )
        };
        self.0.iter().map(line).collect()
    }
}

/// The journal of a guest that runs: read by a thread of its own.
#[derive(Debug, Clone)]
pub(super) struct Live(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    journal: Journal,
    ended: bool,
}

impl Live {
    /// Reads from the channel until it is closed; keeps what comes in a file.
    pub fn follow(channel: UnixStream, mut file: File) -> Self {
        let live = Self(Arc::default());
        let reader = live.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(channel).split(b'\n') {
                let Ok(line) = line else { break };
                let _ = file.write_all(&line).and_then(|()| file.write_all(b"\n"));
                if let Ok(record) = serde_json::from_slice(&line) {
                    reader.lock().journal.0.push(Entry(record));
                    reader.0.1.notify_all();
                }
            }
            reader.lock().ended = true;
            reader.0.1.notify_all();
        });
        live
    }

    pub fn so_far(&self) -> Journal {
        self.lock().journal.clone()
    }

    /// Waits for a record, from the `from`-th on; the one that was wanted, and the place after it.
    pub fn wait_for(
        &self,
        what: &str,
        from: usize,
        wanted: impl Fn(&Entry) -> bool,
    ) -> Result<(Entry, usize)> {
        let start = Instant::now();
        let mut next = from;
        let mut state = self.lock();
        loop {
            while let Some(record) = state.journal.0.get(next) {
                next += 1;
                if wanted(record) {
                    return Ok((record.clone(), next));
                }
            }
            if state.ended {
                bail!("the machine has gone off before {what}");
            }
            let Some(left) = LIMIT.checked_sub(start.elapsed()) else {
                bail!("waited in vain for {what}");
            };
            let waited = self.0.1.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until the machine has gone off.
    pub fn wait_for_end(&self) -> Result<()> {
        let running = |state: &mut State| !state.ended;
        let waited = self.0.1.wait_timeout_while(self.lock(), LIMIT, running);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        ensure!(state.ended, "waited in vain for the machine to go off");
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
