//! Programs, measured or counted on an SLB 9670's profile. Each reaches the TPM through a resource manager.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::usage::{Calls, Usage, count, measure};
use crate::doubles::software_tpm::SoftwareTpm;
use crate::doubles::tpm_proxy::{DeviceNode, Firmware, Latency, OpenFile, Options, Proxy, Slb9670};

/// The firmware whose times are added up: the one sold today.
pub const FIRMWARE: Firmware = Firmware::V7_85;

/// A part of a first boot: before or after the operator's signature.
#[derive(Clone, Copy, Debug, Default)]
pub struct Part {
    pub usage: Usage,
    /// TPM commands.
    pub commands: usize,
    /// How many of them are TestParms, by which tpm2-pkcs11 finds out at each C_Initialize, for each slot, what the TPM
    /// can do.
    pub probes: usize,
    /// Measured from the command's arrival at the proxy to the software TPM's response.
    pub in_tpm: Duration,
    /// The time that an SLB 9670 would take for these commands.
    pub chip: Duration,
}

impl Part {
    pub fn then(self, next: Self) -> Self {
        Self {
            usage: self.usage.then(next.usage),
            commands: self.commands + next.commands,
            probes: self.probes + next.probes,
            in_tpm: self.in_tpm + next.in_tpm,
            chip: self.chip + next.chip,
        }
    }

    /// Time outside the TPM: programs, libraries, storage and the proxy.
    pub fn outside(&self) -> Duration {
        self.usage.wall.saturating_sub(self.in_tpm)
    }
}

/// A TPM behind a proxy that adds up the chip's time without spending it.
pub struct Meter {
    proxy: Proxy,
}

impl Meter {
    pub fn new(tpm: &SoftwareTpm, seed: u64) -> Result<Self> {
        let options = Options {
            chip: Some(Slb9670::new(FIRMWARE)),
            latency: Some(Latency::new(FIRMWARE, seed)),
        };
        let proxy = Proxy::start(tpm.upstream(), options)?;
        Ok(Self { proxy })
    }

    /// Runs programs one after another, and measures them.
    pub fn measure(&self, steps: Vec<Program>) -> Result<Part> {
        let mut part = Part::default();
        for step in steps {
            let (file, node) = (self.proxy.open()?, self.proxy.device_node()?);
            self.proxy.take_commands();
            let (usage, _) = measure(&step(&Reached::new(&file, &node))?)?;
            let log = self.proxy.take_commands();
            part = part.then(Part {
                usage,
                commands: log.0.len(),
                probes: log.count("TestParms"),
                in_tpm: log.0.iter().map(|command| command.elapsed).sum(),
                chip: log.chip_time(),
            });
        }
        Ok(part)
    }

    /// The same, but counts their system calls.
    pub fn count(&self, steps: Vec<Program>, root: &Path) -> Result<Calls> {
        let mut calls = Calls::default();
        for step in steps {
            let (file, node) = (self.proxy.open()?, self.proxy.device_node()?);
            calls = calls.then(count(&step(&Reached::new(&file, &node))?, root)?.0);
        }
        Ok(calls)
    }
}

/// TCTIs for a single process, and for each process of a program that starts others.
pub struct Reached {
    pub by_one: String,
    pub by_each: String,
}

impl Reached {
    fn new(file: &OpenFile, node: &DeviceNode) -> Self {
        Self {
            by_one: file.tcti(),
            by_each: node.tcti(),
        }
    }
}

/// Makes a program's command, given the TCTIs.
pub type Program<'a> = Box<dyn FnOnce(&Reached) -> Result<Command> + 'a>;
