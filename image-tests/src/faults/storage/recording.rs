//! A recording of one run, to be replayed up to any of its storage calls.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use tempfile::TempDir;

use super::call::{Kind, StorageCall};
use super::disk;
use super::history::History;
use super::recorder::Recorder;
use super::replay::{self, Loss};
use super::tracer::{self, Ending};

/// One run of a program, to be replayed up to any of its storage calls.
#[derive(Debug)]
pub struct Recording {
    calls: Vec<StorageCall>,
    history: History,
}

impl Recording {
    /// Runs the program, which has to end with this status. Calls `at_point` with 0 before the first call, with 1 before
    /// the second, …, and finally with the number of calls. The program is stopped meanwhile, so the TPM's state can be
    /// copied.
    pub fn make(
        command: Command,
        directory: &Path,
        code: i32,
        mut at_point: impl FnMut(usize) -> Result<()> + Send,
    ) -> Result<Self> {
        let directory = directory.canonicalize()?;
        let mut recorder = Recorder::new(&directory, &mut at_point)?;
        let outcome = tracer::run(command, &directory, &mut recorder)?;
        ensure!(
            outcome.ending == Ending::Exited(code),
            "the recorded program: {outcome}"
        );
        let mut history = recorder.history;
        history.effects.resize_with(outcome.calls.len(), Vec::new);
        let recording = Self {
            calls: outcome.calls,
            history,
        };
        at_point(recording.points() - 1)?;
        let unseen = recording.differences(&directory)?;
        ensure!(
            unseen.is_empty(),
            "changes that the recorder did not see: {unseen:?}"
        );
        Ok(recording)
    }

    pub fn calls(&self) -> &[StorageCall] {
        &self.calls
    }

    /// The number of crash points: point n is after n calls.
    pub fn points(&self) -> usize {
        self.calls.len() + 1
    }

    /// Pretends that the program left out this call, which has to be a sync, so that a test can show that a missing one
    /// would be noticed.
    pub fn forget_sync(&mut self, call: usize) -> Result<()> {
        let syncs = [Kind::Sync, Kind::SyncData, Kind::SyncAll];
        let kind = self.calls.get(call).map(|call| call.kind);
        ensure!(
            kind.is_some_and(|kind| syncs.contains(&kind)),
            "call {call} is not a sync"
        );
        self.history.effects[call].clear();
        Ok(())
    }

    /// A hash of what [`Recording::crash`] would build: neighbouring points are often the same.
    pub fn fingerprint(&self, point: usize, loss: Loss) -> u64 {
        let mut hasher = DefaultHasher::new();
        replay::tree(&self.history, point, loss).hash(&mut hasher);
        hasher.finish()
    }

    /// The directory as it may be after a power cut at this point.
    pub fn crash(&self, point: usize, loss: Loss) -> Result<TempDir> {
        let directory = TempDir::new()?;
        disk::write(&replay::tree(&self.history, point, loss), directory.path())?;
        Ok(directory)
    }

    /// Where the directory after the run differs from the replay.
    fn differences(&self, directory: &Path) -> Result<Vec<PathBuf>> {
        let expected = replay::tree(&self.history, self.points() - 1, Loss::Nothing);
        let found = disk::read(directory)?;
        let paths = expected.keys().chain(found.keys());
        let differing = paths.filter(|path| expected.get(*path) != found.get(*path));
        Ok(differing.cloned().collect())
    }
}
