//! Storage faults under a program: power cuts, errors, writes that were never synced.
//!
//! The program runs under ptrace, with all its threads and children. Something can go wrong at each *storage call*: a
//! system call that changes something below a directory, or makes it durable ([`StorageCall`]).
//!
//! - [`trace`] lists them;
//! - [`run_with_cut`] kills everything before or after the n-th. What the kernel was given stays;
//! - [`run_with_fault`] makes the n-th fail, as on a full, read-only or broken disk;
//! - [`Recording`] records them with their data, and builds the directory as it may be after a *power* cut, when the
//!   kernel had not written everything to the disk yet.
//!
//! Processes that the program does not start, such as swtpm, are not traced. x86_64 only.

mod arch_x86_64;
mod call;
mod disk;
mod fault;
mod history;
mod recorder;
mod recording;
mod replay;
mod tracee;
mod tracer;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

pub use call::{Kind, StorageCall};
pub use fault::Fault;
pub use recording::Recording;
pub use replay::Loss;
use tracee::Tracee;
pub use tracer::{Ending, Outcome};
use tracer::{Observer, Verdict};

use crate::doubles::tpm_proxy::When;

/// Runs the program, which has to succeed, undisturbed: its storage calls below `directory`.
pub fn trace(command: Command, directory: &Path) -> Result<Vec<StorageCall>> {
    struct Undisturbed;
    impl Observer for Undisturbed {}
    let outcome = tracer::run(command, directory, &mut Undisturbed)?;
    ensure!(
        outcome.ending == Ending::Exited(0),
        "the traced program: {outcome}"
    );
    Ok(outcome.calls)
}

/// Kills the program and its children before or after its `n`-th storage call, counted from 1. `on_cut` runs once all
/// of them have stopped, so that the TPM can lose its power at the same time. It is not called if the program ends
/// earlier.
pub fn run_with_cut(
    command: Command,
    directory: &Path,
    n: usize,
    when: When,
    on_cut: impl FnOnce() + Send,
) -> Result<Outcome> {
    let mut cut = Cut {
        left: n,
        when,
        on_cut: Some(on_cut),
    };
    tracer::run(command, directory, &mut cut)
}

/// Runs the program with a fault in its storage.
pub fn run_with_fault(command: Command, directory: &Path, fault: Fault) -> Result<Outcome> {
    tracer::run(command, directory, &mut fault.injector())
}

struct Cut<F> {
    left: usize,
    when: When,
    on_cut: Option<F>,
}

impl<F> Cut<F> {
    fn verdict(&self, moment: When) -> Verdict {
        if self.left == 0 && self.when == moment {
            Verdict::Cut
        } else {
            Verdict::Go
        }
    }
}

impl<F: FnOnce() + Send> Observer for Cut<F> {
    fn enter(&mut self, _: &StorageCall, _: Tracee) -> Result<Verdict> {
        self.left = self.left.saturating_sub(1);
        Ok(self.verdict(When::Before))
    }

    fn exit(&mut self, _: &StorageCall, _: Tracee, _: i64) -> Result<Verdict> {
        Ok(self.verdict(When::After))
    }

    fn cut(&mut self) {
        if let Some(on_cut) = self.on_cut.take() {
            on_cut();
        }
    }
}
