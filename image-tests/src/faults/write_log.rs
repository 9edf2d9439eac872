//! The writes of a running machine to its card, in order, with its flushes, and the TPM's states in between: from these
//! come the card and the TPM as a power cut at any point may leave them.
//!
//! QEMU's blklogwrites writes the log, in the format of the kernel's dm-log-writes
//! (Documentation/admin-guide/device-mapper/log-writes.rst). `guest/nvsnap.c`, inside swtpm, saves the states.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::device::machine::{Card, EXT4, LogFiles, Machine, Running};
use crate::doubles::software_tpm::copy_state;

/// struct log_write_super of drivers/md/dm-log-writes.c: magic, version, number of entries, size of a sector.
const MAGIC: u64 = 0x006a_7366_7773_6872;
/// struct log_write_entry: sector, number of sectors, flags, length of the data that follow the entry's sector.
const FLUSH: u64 = 1;
const DISCARD: u64 = 4;

#[derive(Debug)]
pub struct WriteLog {
    directory: TempDir,
    /// The card before the first write.
    base: Card,
}

/// A point at which the power may go: after the n-th entry, with a random selection of the unflushed writes lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrashPoint {
    pub n: usize,
    pub seed: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Offset on the card, bytes.
    at: u64,
    flags: u64,
    /// Its data: offset in the log and length, bytes.
    data: (u64, usize),
}

impl WriteLog {
    /// Switches a machine on and records its writes.
    pub fn record(machine: Machine) -> Result<(Running, Self)> {
        let directory = tempfile::Builder::new().prefix("write-log-").tempdir()?;
        let log = Self {
            base: Card::flash(machine.card.path())?,
            directory,
        };
        let LogFiles { writes, tpm_states } = log.files();
        File::create(writes)?;
        std::fs::create_dir(tpm_states)?;
        std::fs::create_dir(log.first_state())?;
        copy_state(&machine.tpm_state(), &log.first_state())?;
        Ok((machine.boot_logged(&log.files())?, log))
    }

    fn files(&self) -> LogFiles {
        LogFiles {
            writes: self.directory.path().join("log"),
            tpm_states: self.directory.path().join("states"),
        }
    }

    fn first_state(&self) -> PathBuf {
        self.directory.path().join("first")
    }

    /// The number of entries so far.
    pub fn len(&self) -> Result<usize> {
        Ok(usize::try_from(self.header()?[2])?)
    }

    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    fn header(&self) -> Result<[u64; 4]> {
        let mut bytes = [0; 28];
        let log = File::open(self.files().writes)?;
        if log.metadata()?.len() == 0 {
            return Ok([MAGIC, 1, 0, 512]);
        }
        log.read_exact_at(&mut bytes, 0)?;
        let header = [
            word(&bytes, 0),
            word(&bytes, 8),
            word(&bytes, 16),
            word(&bytes, 24),
        ];
        ensure!(header[0] == MAGIC, "not a write log: {header:x?}");
        Ok([header[0], header[1], header[2], header[3] & 0xffff_ffff])
    }

    fn entries(&self) -> Result<Vec<Entry>> {
        let [_, _, count, sector] = self.header()?;
        let log = File::open(self.files().writes)?;
        let mut entries = Vec::new();
        let mut at = sector;
        for n in 0..count {
            let mut bytes = [0; 32];
            log.read_exact_at(&mut bytes, at)
                .with_context(|| format!("entry {n} of the write log"))?;
            let flags = word(&bytes, 16);
            let sectors = word(&bytes, 8);
            let length = if flags & DISCARD == 0 {
                sectors * sector
            } else {
                0
            };
            entries.push(Entry {
                at: word(&bytes, 0) * sector,
                flags,
                data: (at + sector, usize::try_from(length)?),
            });
            at += sector + length;
        }
        Ok(entries)
    }

    /// The number of entries that a cut at this point may lose: those after the last flush.
    pub fn unflushed(&self, n: usize) -> Result<usize> {
        Ok(n - last_flush(&self.entries()?, n))
    }

    /// The points after each write to the FAT partition.
    pub fn fat_writes(&self) -> Result<Vec<usize>> {
        let entries = self.entries()?;
        let is_fat = |entry: &Entry| entry.at < EXT4 && entry.data.1 > 0;
        let numbers = 1..=entries.len();
        Ok(numbers.filter(|n| is_fat(&entries[n - 1])).collect())
    }

    /// A machine as a power cut at this point leaves it.
    pub fn crash(&self, point: CrashPoint) -> Result<Machine> {
        let entries = self.entries()?;
        let card = Card::flash(self.base.path())?;
        let (log, image) = (
            File::open(self.files().writes)?,
            File::options().write(true).open(card.path())?,
        );
        let mut draw = fastrand::Rng::with_seed(point.seed);
        let safe = last_flush(&entries, point.n);
        for (i, entry) in entries[..point.n].iter().enumerate() {
            let mut data = vec![0; entry.data.1];
            log.read_exact_at(&mut data, entry.data.0)?;
            // Any half of the unflushed writes is lost.
            if i >= safe && draw.bool() && !is_forced(entry.at, &data) {
                continue;
            }
            image.write_all_at(&data, entry.at)?;
        }
        let machine = Machine::with_card(card)?;
        let state = self.state(point)?;
        if state.is_dir() {
            copy_state(&state, &machine.tpm_state())?;
        } else {
            std::fs::copy(state, machine.tpm_state().join("tpm2-00.permall"))?;
        }
        Ok(machine)
    }

    /// The TPM's state at a point. If it changed just there, it may be either.
    fn state(&self, point: CrashPoint) -> Result<PathBuf> {
        let changes = self.changes()?;
        let until = point.n + (point.seed % 2) as usize;
        let last = changes.iter().rposition(|entries| *entries < until);
        Ok(last.map_or_else(
            || self.first_state(),
            |state| self.files().tpm_states.join(state.to_string()),
        ))
    }

    /// The points at which the TPM's permanent state changed.
    pub fn changes(&self) -> Result<Vec<usize>> {
        let index =
            std::fs::read_to_string(self.files().tpm_states.join("index")).unwrap_or_default();
        let number = |line: &str| line.split_once(' ')?.1.parse().ok();
        index
            .lines()
            .map(|line| number(line).with_context(|| format!("in the index of states: {line}")))
            .collect()
    }
}

/// Whether ext4 writes this with "force unit access": a journal's commit block or superblock (jbd2 writes these with
/// REQ_FUA; Documentation/filesystems/ext4/journal.rst has their layout), or the file system's superblock
/// (super.rst). QEMU's NVMe device ignores FUA, so the log has no flag for it.
fn is_forced(at: u64, data: &[u8]) -> bool {
    /// h_magic and the block types 2 (commit), 3 and 4 (superblock), big endian.
    const JOURNAL: [u8; 4] = [0xC0, 0x3B, 0x39, 0x98];
    /// s_magic, little endian, in the superblock at byte 1024 of the partition.
    const EXT4_MAGIC: [u8; 2] = [0x53, 0xEF];
    let is_journals = data.starts_with(&JOURNAL) && matches!(data[4..8], [0, 0, 0, 2..=4]);
    is_journals || (at == EXT4 && data.get(1024 + 56..1024 + 58) == Some(&EXT4_MAGIC))
}

/// The number of entries that are certainly on the card at a point: those before the last flush.
fn last_flush(entries: &[Entry], n: usize) -> usize {
    let flush = entries[..n]
        .iter()
        .rposition(|entry| entry.flags & FLUSH != 0);
    flush.unwrap_or(0)
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    let have = bytes.len().min(at + 8) - at;
    word[..have].copy_from_slice(&bytes[at..at + have]);
    u64::from_le_bytes(word)
}
