//! A machine that boots: QEMU's arm64 `virt` board with a software TPM on the TIS interface, and a card with Debian 13
//! and firstboot (`guest/build`). Always under TCG, so that it is the same everywhere.
//!
//! ```no_run
//! # use image_tests::device::machine::Machine;
//! # fn main() -> anyhow::Result<()> {
//! let machine = Machine::flash("nucleus-lite")?.boot()?.until("multi-user.target")?.pull_the_plug()?;
//! # Ok(()) }
//! ```
//!
//! - [`Machine`]: switched off; its card can be read and written, its TPM's state inspected;
//! - [`Running`]: switched on; follows its journal, and runs commands;
//! - [`Card`]: the two partitions, as in a card reader.
//!
//! Nothing here waits for a time: tests wait for journal entries. If a test fails, its machine's journal and console
//! are kept in `target/guest/failures/`.

mod card;
mod hardware;
mod journal;
mod offline;
mod running;
mod units;

pub use card::{Card, EXT4};
pub use hardware::{Hardware, Overlay, Tpm};
pub use journal::{Entry, Journal};
pub use running::{LogFiles, Running};

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::doubles::software_tpm::{SoftwareTpm, copy_state};

/// A file that `guest/build` has built, by its name in `target/guest`.
pub fn built(name: &str) -> Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../target/guest")
        .join(name);
    ensure!(
        path.exists(),
        "there is no {}: run image-tests/guest/build, which `make boot` does, too",
        path.display()
    );
    Ok(path)
}

/// A machine that is switched off.
#[derive(Debug)]
pub struct Machine {
    pub card: Card,
    pub hardware: Hardware,
    /// The TPM's state, and files of the boots: boot-1.journal, boot-1.console, ….
    files: TempDir,
    boots: usize,
}

impl Machine {
    /// A machine with an unused TPM and a card with the edition's image.
    pub fn flash(edition: &str) -> Result<Self> {
        Self::with_card(Card::flash(&built(&format!("{edition}.img"))?)?)
    }

    /// A machine with an unused TPM and this card.
    pub fn with_card(card: Card) -> Result<Self> {
        let files = tempfile::Builder::new().prefix("machine-").tempdir()?;
        std::fs::create_dir(files.path().join("tpm"))?;
        Ok(Self {
            card,
            hardware: Hardware::default(),
            files,
            boots: 0,
        })
    }

    /// Another machine, with copies of the card and of the TPM's state.
    pub fn copy(&self) -> Result<Self> {
        let copy = Self::with_card(Card::flash(self.card.path())?)?;
        copy_state(&self.tpm_state(), &copy.tpm_state())?;
        Ok(copy)
    }

    /// Switches it on.
    pub fn boot(mut self) -> Result<Running> {
        self.boots += 1;
        Running::start(self, None)
    }

    /// Switches it on, and records every write to the card and every state of the TPM.
    pub fn boot_logged(mut self, log: &LogFiles) -> Result<Running> {
        self.boots += 1;
        Running::start(self, Some(log))
    }

    /// The directory of the TPM's state.
    pub fn tpm_state(&self) -> PathBuf {
        self.files.path().join("tpm")
    }

    /// A copy of its TPM, to be inspected.
    pub fn tpm(&self) -> Result<SoftwareTpm> {
        SoftwareTpm::copy_of(&self.tpm_state())
    }

    /// The console's output at the last boot.
    pub fn console(&self) -> Result<String> {
        let console = std::fs::read(self.file("console")).context("no console yet")?;
        Ok(String::from_utf8_lossy(&console).into_owned())
    }

    /// A file of the last boot.
    fn file(&self, name: &str) -> PathBuf {
        self.files
            .path()
            .join(format!("boot-{}.{name}", self.boots))
    }

    /// Saves the boots' files. Returns where, with the end of the last console and journal.
    pub fn keep(&self) -> String {
        let test = std::thread::current().name().unwrap_or("boot").to_owned();
        let to = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../target/guest/failures")
            .join(test.replace("::", "-"));
        let kept = || -> Result<()> {
            std::fs::create_dir_all(&to)?;
            for entry in std::fs::read_dir(self.files.path())?.flatten() {
                // There are sockets and FIFOs, too.
                if entry.file_type()?.is_file() {
                    std::fs::copy(entry.path(), to.join(entry.file_name()))?;
                }
            }
            Ok(())
        };
        let place = match kept() {
            Ok(()) => format!("kept in {}", to.display()),
            Err(e) => format!("could not be kept: {e:#}"),
        };
        let journal = Journal::read(&self.file("journal")).unwrap_or_default();
        format!(
            "journal and console {place}\n--- console, its end ---\n{}\n--- journal, its end ---\n{}",
            end_of(&self.console().unwrap_or_default(), 25),
            end_of(&journal.text(), 60)
        )
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() && self.boots > 0 {
            eprintln!("{}", self.keep());
        }
    }
}

fn end_of(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
