//! The kernel's resource manager, /dev/tpmrm0, and its open files.
//!
//! As in drivers/char/tpm/tpm2-space.c, each file has its own three transient objects and three sessions, which are
//! saved and loaded again around the commands of others; objects have virtual handles, from 80ffffff downwards; objects
//! and sessions that a file has left are flushed when it is closed; a command that the TPM does not implement gets a
//! response from the manager (0x000B0143).
//!
//! Unlike the kernel, contexts are swapped only when another file's command comes, which shows in nothing but the time;
//! a file is one program here, not one TCTI context; an unknown virtual handle gets TPM_RC_HANDLE, where the kernel's
//! write() fails.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};

use super::codes;
use super::upstream::Upstream;
use super::wire::{self, Command, Fields, response_code};

/// TPM_HT_TRANSIENT; the first virtual handle: tpm2_map_to_phandle().
const TRANSIENT: u32 = 0x80;
const FIRST_VIRTUAL: u32 = 0x80FF_FFFF;
/// TPM_HT_HMAC_SESSION, TPM_HT_POLICY_SESSION: TPM 2.0 Part 2, §7.2.
const SESSIONS: [u32; 2] = [0x02, 0x03];
/// TPM_RC_HANDLE for the first handle; bits 8 to 10 have the handle's number: Part 2, §6.6.2.
const RC_HANDLE: u32 = 0x18B;
/// TPM_RC_COMMAND_CODE, and TSS2_RESMGR_TPM_RC_LAYER, which the kernel adds.
const RC_COMMAND_CODE: u32 = 0x143;
const MANAGER: u32 = 11 << 16;
/// Length of the header of a command or response, bytes; handles follow.
const HANDLES: usize = 10;
/// TPM_CAP_HANDLES: Part 2, §6.12.
const CAP_HANDLES: u32 = 1;

/// Commands that return a handle: TPMA_CC.rHandle (Part 2, §8.9).
const MAKES_HANDLE: [u32; 8] = [
    codes::CREATE_PRIMARY,
    codes::LOAD,
    codes::HMAC_START,
    codes::CONTEXT_LOAD,
    codes::LOAD_EXTERNAL,
    codes::START_AUTH_SESSION,
    codes::HASH_SEQUENCE_START,
    codes::CREATE_LOADED,
];

/// Identifies an open file.
pub type FileId = usize;

#[derive(Default)]
pub struct Manager {
    files: BTreeMap<FileId, Space>,
    /// The file whose objects are in the TPM.
    current: Option<FileId>,
    opened: FileId,
}

/// The objects and sessions of one open file.
#[derive(Default)]
struct Space {
    /// Real handles by virtual ones, while loaded.
    objects: BTreeMap<u32, u32>,
    sessions: BTreeSet<u32>,
    /// Saved contexts, while other files' are loaded; objects with their virtual handles.
    saved: Vec<(Option<u32>, Vec<u8>)>,
}

impl Manager {
    pub fn open(&mut self) -> FileId {
        self.opened += 1;
        self.files.insert(self.opened, Space::default());
        self.opened
    }

    /// Forgets everything loaded or saved: the power cut has ended it.
    pub fn power_on(&mut self) {
        self.current = None;
        self.files
            .values_mut()
            .for_each(|space| *space = Space::default());
    }

    pub fn close(&mut self, file: FileId, tpm: &Upstream) -> Result<()> {
        let entered = self.enter(Some(file), tpm);
        self.current = None;
        let space = self.files.remove(&file).unwrap_or_default();
        entered?;
        for handle in space.objects.values().chain(&space.sessions) {
            // It may have ended already.
            tpm.exchange(&flush(*handle))?;
        }
        Ok(())
    }

    /// How many objects the file has.
    pub fn objects(&self, file: FileId) -> usize {
        self.files.get(&file).map_or(0, |space| space.objects.len())
    }

    /// Swaps in the file's objects and sessions; `None` stands for the bare TPM.
    pub fn enter(&mut self, file: Option<FileId>, tpm: &Upstream) -> Result<()> {
        if self.current == file {
            return Ok(());
        }
        if let Some(space) = self.current.and_then(|file| self.files.get_mut(&file)) {
            space.save(tpm)?;
        }
        self.current = file;
        if let Some(space) = file.and_then(|file| self.files.get_mut(&file)) {
            space.load(tpm)?;
        }
        Ok(())
    }

    /// The command with real handles, or a response code if a handle is unknown.
    pub fn map(&self, file: FileId, command: &Command) -> Result<Vec<u8>, u32> {
        let mut mapped = command.bytes.to_vec();
        let count = match command.code {
            // Its handle is a parameter, which the kernel maps like a handle.
            codes::FLUSH_CONTEXT => 1,
            code => codes::handle_count(code),
        };
        let area = mapped[HANDLES..].chunks_exact_mut(4).take(count);
        for (number, handle) in (0..).zip(area) {
            let given = Fields(handle).u32().unwrap_or_default();
            if given >> 24 == TRANSIENT {
                let real = self
                    .files
                    .get(&file)
                    .and_then(|space| space.objects.get(&given));
                let real = real.ok_or(RC_HANDLE + (number << 8))?;
                handle.copy_from_slice(&real.to_be_bytes());
            }
        }
        Ok(mapped)
    }

    /// Notes what the command created or removed. Returns the response with virtual handles.
    pub fn commit(&mut self, file: FileId, command: &Command, response: Vec<u8>) -> Vec<u8> {
        let Some(space) = self.files.get_mut(&file) else {
            return response;
        };
        match (response_code(&response), command.code) {
            (Some(RC_COMMAND_CODE), _) => wire::response(RC_COMMAND_CODE | MANAGER, &[]),
            (Some(0), codes::FLUSH_CONTEXT) => {
                let mut parameters = command.parameters;
                let flushed = parameters.u32().unwrap_or_default();
                space.objects.remove(&flushed);
                space.sessions.remove(&flushed);
                response
            }
            (Some(0), codes::SEQUENCE_COMPLETE) => {
                command
                    .handles
                    .first()
                    .map(|sequence| space.objects.remove(sequence));
                response
            }
            (Some(0), codes::GET_CAPABILITY) => space.listed(command).unwrap_or(response),
            (Some(0), code) if MAKES_HANDLE.contains(&code) => space.adopt(response),
            _ => response,
        }
    }
}

impl Space {
    fn adopt(&mut self, mut response: Vec<u8>) -> Vec<u8> {
        let Some(handle) = response.get_mut(HANDLES..HANDLES + 4) else {
            return response;
        };
        let real = Fields(handle).u32().unwrap_or_default();
        if SESSIONS.contains(&(real >> 24)) {
            self.sessions.insert(real);
        } else {
            let free = |number: &u32| !self.objects.contains_key(number);
            if let Some(given) = (0..=FIRST_VIRTUAL).rev().find(free) {
                self.objects.insert(given, real);
                handle.copy_from_slice(&given.to_be_bytes());
            }
        }
        response
    }

    /// A list of the file's own objects, if the command asks for transient handles.
    fn listed(&self, command: &Command) -> Option<Vec<u8>> {
        let mut asked = command.parameters;
        let (capability, first) = (asked.u32()?, asked.u32()?);
        if capability != CAP_HANDLES || first >> 24 != TRANSIENT {
            return None;
        }
        let handles: Vec<u32> = self
            .objects
            .range(first..)
            .map(|(handle, _)| *handle)
            .collect();
        let mut parameters = vec![0]; // no more data
        parameters.extend(
            [CAP_HANDLES, handles.len() as u32]
                .map(u32::to_be_bytes)
                .concat(),
        );
        parameters.extend(handles.iter().flat_map(|handle| handle.to_be_bytes()));
        Some(wire::response(0, &parameters))
    }

    /// Saves everything. What cannot be saved has ended by itself.
    fn save(&mut self, tpm: &Upstream) -> Result<()> {
        for (given, real) in std::mem::take(&mut self.objects) {
            if let Some(context) = save(real, tpm)? {
                self.saved.push((Some(given), context));
                tpm.exchange(&flush(real))?;
            }
        }
        for session in &self.sessions {
            self.saved
                .extend(save(*session, tpm)?.map(|context| (None, context)));
        }
        Ok(())
    }

    fn load(&mut self, tpm: &Upstream) -> Result<()> {
        self.sessions.clear();
        for (given, context) in self.saved.drain(..) {
            let command = wire::command(codes::CONTEXT_LOAD, &[], None, &context);
            let loaded = tpm.run(codes::CONTEXT_LOAD, &command)?;
            let real = Fields(&loaded)
                .u32()
                .context("ContextLoad without a handle")?;
            match given {
                Some(given) => drop(self.objects.insert(given, real)),
                None => drop(self.sessions.insert(real)),
            }
        }
        Ok(())
    }
}

fn save(handle: u32, tpm: &Upstream) -> Result<Option<Vec<u8>>> {
    let response = tpm.exchange(&wire::command(codes::CONTEXT_SAVE, &[handle], None, &[]))?;
    Ok((response_code(&response) == Some(0)).then(|| response[HANDLES..].to_vec()))
}

fn flush(handle: u32) -> Vec<u8> {
    wire::command(codes::FLUSH_CONTEXT, &[], None, &handle.to_be_bytes())
}
