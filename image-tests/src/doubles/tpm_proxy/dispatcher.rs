//! A command's way from a program to the TPM and back.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::command_log::{CommandLog, Exchange};
use super::cut::{Cut, When};
use super::resource_manager::{FileId, Manager};
use super::upstream::Upstream;
use super::wire::{self, Command};
use super::{Options, codes};

/// Shared by all connections.
pub struct Dispatcher {
    /// Locked by the one command that runs.
    pub bus: Mutex<Bus>,
    pub log: Mutex<CommandLog>,
}

pub struct Bus {
    pub upstream: Upstream,
    pub powered: bool,
    pub options: Options,
    pub cut: Option<Cut>,
    pub manager: Manager,
}

impl Dispatcher {
    pub fn bus(&self) -> MutexGuard<'_, Bus> {
        self.bus.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn log(&self) -> MutexGuard<'_, CommandLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn upstream(&self) -> Upstream {
        self.bus().upstream
    }

    /// Runs one command, of an open file or on the bare TPM. An error means that it gets no response.
    pub fn run(&self, bytes: &[u8], file: Option<FileId>) -> Result<Vec<u8>> {
        let command = Command::parse(bytes).context("a malformed TPM command")?;
        let mut bus = self.bus();
        if !bus.powered {
            return Err(io::Error::from(io::ErrorKind::ConnectionAborted).into());
        }
        let index = self.enter(&command);
        bus.at(When::Before)?;
        let begin = Instant::now();
        let (response, chip_time) = bus.managed(&command, file)?;
        // The log may have been taken in the meantime.
        if let Some(entry) = self.log().0.get_mut(index) {
            entry.response_code = wire::response_code(&response);
            entry.response.clone_from(&response);
            entry.elapsed = begin.elapsed();
            entry.chip_time = chip_time;
        }
        bus.at(When::After)?;
        Ok(response)
    }

    /// Closes an open file of the resource manager.
    pub fn close(&self, file: FileId) {
        let mut bus = self.bus();
        let Bus {
            manager, upstream, ..
        } = &mut *bus;
        // If the TPM is gone, so are the objects.
        let _ = manager.close(file, upstream);
    }

    fn enter(&self, command: &Command) -> usize {
        let mut log = self.log();
        log.0.push(Exchange {
            code: command.code,
            name: codes::name(command.code),
            handles: command.handles.clone(),
            bytes: command.bytes.to_vec(),
            response: Vec::new(),
            response_code: None,
            elapsed: Duration::ZERO,
            chip_time: Duration::ZERO,
        });
        log.0.len() - 1
    }
}

impl Bus {
    pub fn power_on(&self) -> Result<()> {
        match &self.options.chip {
            Some(chip) => chip
                .power_on(&self.upstream)
                .context("the TPM as an SLB 9670"),
            None => Ok(()),
        }
    }

    /// The response and the chip's time for it; through the resource manager, if the command comes from an open file.
    fn managed(&mut self, command: &Command, file: Option<FileId>) -> Result<(Vec<u8>, Duration)> {
        self.manager.enter(file, &self.upstream)?;
        let Some(file) = file else {
            return self.answer(command, 0);
        };
        let bytes = match self.manager.map(file, command) {
            Ok(bytes) => bytes,
            Err(code) => return Ok((wire::response(code, &[]), Duration::ZERO)),
        };
        let mapped = Command::parse(&bytes).context("a malformed TPM command")?;
        let (response, chip_time) = self.answer(&mapped, self.manager.objects(file))?;
        Ok((self.manager.commit(file, command, response), chip_time))
    }

    /// The response and the chip's time for it, which includes loading and saving `swapped` objects.
    fn answer(&mut self, command: &Command, swapped: usize) -> Result<(Vec<u8>, Duration)> {
        let begin = Instant::now();
        let response = match &self.options.chip {
            Some(chip) => chip.answer(command, &self.upstream)?,
            None => self.upstream.exchange(command.bytes)?,
        };
        let Some(latency) = &mut self.options.latency else {
            return Ok((response, Duration::ZERO));
        };
        let succeeded = wire::response_code(&response) == Some(0);
        let chip_time = latency.of(command, succeeded, swapped, &self.upstream);
        // The software TPM has used up some of it.
        std::thread::sleep(latency.wait(chip_time).saturating_sub(begin.elapsed()));
        Ok((response, chip_time))
    }

    /// Cuts the power if this is the moment.
    fn at(&mut self, moment: When) -> io::Result<()> {
        if let Some(cut) = self.cut.take_if(|cut| cut.is_due(moment)) {
            self.powered = false;
            cut.kill();
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }
}
