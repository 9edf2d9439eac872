//! Programs measured, or counted, on an SLB 9670's profile, each with the TPM through a resource manager of its own.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::usage::{Calls, Usage, count, measure};
use crate::doubles::software_tpm::SoftwareTpm;
use crate::doubles::tpm_proxy::{DeviceNode, Firmware, Latency, OpenFile, Options, Proxy, Slb9670};

/// The chip that the commands' time is accounted for: the firmware that is sold today.
pub const FIRMWARE: Firmware = Firmware::V7_85;

/// A part of a first boot: before or after the operator's signature.
#[derive(Clone, Copy, Debug, Default)]
pub struct Part {
    pub usage: Usage,
    /// TPM commands
    pub commands: usize,
    /// of them TestParms, by which tpm2-pkcs11 finds out for each slot and at each C_Initialize what the TPM can do
    pub probes: usize,
    /// measured: from the command's arrival at the proxy to the software TPM's answer
    pub in_tpm: Duration,
    /// accounted: what an SLB 9670 would take for these commands
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

    /// Programs, libraries, storage and this machine's proxy: all that is not the TPM.
    pub fn outside(&self) -> Duration {
        self.usage.wall.saturating_sub(self.in_tpm)
    }
}

/// A TPM behind its proxy, with the chip's time accounted and not spent.
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

    /// Programs in their order, measured.
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

    /// The same, counted.
    pub fn count(&self, steps: Vec<Program>, root: &Path) -> Result<Calls> {
        let mut calls = Calls::default();
        for step in steps {
            let (file, node) = (self.proxy.open()?, self.proxy.device_node()?);
            calls = calls.then(count(&step(&Reached::new(&file, &node))?, root)?.0);
        }
        Ok(calls)
    }
}

/// How the TPM is reached: by this one process, or by each process of a program that starts others.
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

/// A program, once it is known how the TPM is reached.
pub type Program<'a> = Box<dyn FnOnce(&Reached) -> Result<Command> + 'a>;
