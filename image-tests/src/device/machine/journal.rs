//! The guest's journal, from the report channel: one JSON object per line (journalctl -o json).

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::Value;

/// Ends a test that waits for something that does not come: a boot takes half a minute, or several on a busy host.
const LIMIT: Duration = Duration::from_secs(900);

/// One entry; systemd.journal-fields(7) has the fields.
#[derive(Clone, Debug)]
pub struct Entry(Value);

impl Entry {
    pub fn field(&self, name: &str) -> &str {
        self.0[name].as_str().unwrap_or_default()
    }

    pub fn message(&self) -> &str {
        self.field("MESSAGE")
    }

    /// The unit that it is from, or about.
    pub fn unit(&self) -> &str {
        match self.field("UNIT") {
            "" => self.field("_SYSTEMD_UNIT"),
            unit => unit,
        }
    }

    /// The result of the unit's start, if this entry has it: "done", "failed", "dependency", ….
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

/// A part of the journal, in order.
#[derive(Clone, Debug, Default)]
pub struct Journal(Vec<Entry>);

impl Journal {
    /// The journal of a boot, from its file.
    pub fn read(file: &Path) -> Result<Self> {
        let text = String::from_utf8_lossy(&std::fs::read(file)?).into_owned();
        let entries = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        Ok(Self(entries.map(Entry).collect()))
    }

    pub fn entries(&self) -> &[Entry] {
        &self.0
    }

    /// The entries from or about a unit.
    pub fn of(&self, unit: &str) -> Self {
        let of_unit = self.0.iter().filter(|entry| entry.unit() == unit);
        Self(of_unit.cloned().collect())
    }

    /// The first entry with these words.
    pub fn saying(&self, words: &str) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.message().contains(words))
    }

    /// The result of a unit's last start.
    pub fn started(&self, unit: &str) -> Option<&str> {
        let of_unit = self.0.iter().filter(|entry| entry.unit() == unit);
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

/// A running guest's journal, which a thread reads.
#[derive(Debug, Clone)]
pub(super) struct Live(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    journal: Journal,
    ended: bool,
}

impl Live {
    /// Reads the channel until it is closed, and saves everything in a file.
    pub fn follow(channel: UnixStream, mut file: File) -> Self {
        let live = Self(Arc::default());
        let reader = live.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(channel).split(b'\n') {
                let Ok(line) = line else { break };
                let _ = file.write_all(&line).and_then(|()| file.write_all(b"\n"));
                if let Ok(entry) = serde_json::from_slice(&line) {
                    reader.lock().journal.0.push(Entry(entry));
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

    /// Waits for an entry, starting with the `from`-th. Returns it, and the index after it.
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
            while let Some(entry) = state.journal.0.get(next) {
                next += 1;
                if wanted(entry) {
                    return Ok((entry.clone(), next));
                }
            }
            if state.ended {
                bail!("the machine went off before {what}");
            }
            let Some(left) = LIMIT.checked_sub(start.elapsed()) else {
                bail!("gave up waiting for {what}");
            };
            let waited = self.0.1.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until the machine is off.
    pub fn wait_for_end(&self) -> Result<()> {
        let running = |state: &mut State| !state.ended;
        let waited = self.0.1.wait_timeout_while(self.lock(), LIMIT, running);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        ensure!(state.ended, "gave up waiting for the machine to go off");
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
