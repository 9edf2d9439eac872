//! One first boot, ours or the peer's, from an unprovisioned TPM to the certificate in the token: run on an SLB
//! 9670's profile, each program with the TPM through a resource manager of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use tempfile::TempDir;

use super::recipe::Recipe;
use super::usage::{Calls, Usage, count, measure};
use crate::clients::KeyType;
use crate::device::{Device, offline_settings};
use crate::doubles::pki::Authority;
use crate::doubles::software_tpm::SoftwareTpm;
use crate::doubles::tpm_proxy::{DeviceNode, Door, Firmware, Latency, Options, Proxy, Slb9670};

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

/// Up to the request, and all of it.
#[derive(Clone, Copy, Debug)]
pub struct FirstBoot<P> {
    pub request: P,
    pub all: P,
}

/// A TPM behind its proxy, with the chip's time accounted and not spent.
pub struct Bench {
    proxy: Proxy,
}

impl Bench {
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
            let (door, node) = (self.proxy.door()?, self.proxy.device_node()?);
            self.proxy.take_journal();
            let (usage, _) = measure(&step(&Reached::new(&door, &node))?)?;
            let journal = self.proxy.take_journal();
            part = part.then(Part {
                usage,
                commands: journal.0.len(),
                probes: journal.count("TestParms"),
                in_tpm: journal.0.iter().map(|command| command.elapsed).sum(),
                chip: journal.chip_time(),
            });
        }
        Ok(part)
    }

    /// The same, counted.
    pub fn count(&self, steps: Vec<Program>, root: &Path) -> Result<Calls> {
        let mut calls = Calls::default();
        for step in steps {
            let (door, node) = (self.proxy.door()?, self.proxy.device_node()?);
            calls = calls.then(count(&step(&Reached::new(&door, &node))?, root)?.0);
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
    fn new(door: &Door, node: &DeviceNode) -> Self {
        Self {
            by_one: door.tcti(),
            by_each: node.tcti(),
        }
    }
}

/// A program, once it is known how the TPM is reached.
pub type Program<'a> = Box<dyn FnOnce(&Reached) -> Result<Command> + 'a>;

/// Who provisions.
pub trait Side {
    /// An unprovisioned TPM, and room for files.
    fn start(key: KeyType) -> Result<Self>
    where
        Self: Sized;
    fn tpm(&self) -> &SoftwareTpm;
    /// Where its files go.
    fn root(&self) -> PathBuf;
    fn to_request(&self) -> Vec<Program<'_>>;
    fn sign(&self, authority: &Authority) -> Result<()>;
    fn to_certificate(&self) -> Vec<Program<'_>>;

    fn measured(key: KeyType, seed: u64) -> Result<FirstBoot<Part>>
    where
        Self: Sized,
    {
        let side = Self::start(key)?;
        let bench = Bench::new(side.tpm(), seed)?;
        let request = bench.measure(side.to_request())?;
        side.sign(&Authority::new()?)?;
        let all = request.then(bench.measure(side.to_certificate())?);
        Ok(FirstBoot { request, all })
    }

    fn counted(key: KeyType) -> Result<FirstBoot<Calls>>
    where
        Self: Sized,
    {
        let side = Self::start(key)?;
        let bench = Bench::new(side.tpm(), 1)?;
        let request = bench.count(side.to_request(), &side.root())?;
        side.sign(&Authority::new()?)?;
        let all = request.then(bench.count(side.to_certificate(), &side.root())?);
        Ok(FirstBoot { request, all })
    }
}

/// firstboot, for nucleus lite.
pub struct Firstboot {
    device: Device,
    _run: TempDir,
}

/// The device's /run, where it is on a device: in memory.
pub fn run_in_memory(device: &Device) -> Result<TempDir> {
    let memory = tempfile::tempdir_in("/dev/shm")?;
    std::fs::remove_dir_all(device.path("/run"))?;
    std::os::unix::fs::symlink(memory.path(), device.path("/run"))?;
    Ok(memory)
}

impl Side for Firstboot {
    fn start(key: KeyType) -> Result<Self> {
        let device = Device::unprovisioned()?;
        device.settings(&offline_settings("nucleus-lite", key))?;
        let _run = run_in_memory(&device)?;
        Ok(Self { device, _run })
    }

    fn tpm(&self) -> &SoftwareTpm {
        &self.device.tpm
    }

    fn root(&self) -> PathBuf {
        self.device.root().to_owned()
    }

    fn to_request(&self) -> Vec<Program<'_>> {
        vec![Box::new(|tpm| {
            self.device.firstboot_at(&tpm.by_one, &["provision"])
        })]
    }

    fn sign(&self, authority: &Authority) -> Result<()> {
        std::fs::write(
            self.device.boot_file("root-ca.pem"),
            authority.certificate_pem()?,
        )?;
        self.device
            .drop_certificate(&authority.sign(&self.device.request()?)?)?;
        Ok(())
    }

    fn to_certificate(&self) -> Vec<Program<'_>> {
        vec![Box::new(|tpm| {
            self.device.firstboot_at(&tpm.by_one, &["enroll"])
        })]
    }
}

/// The tutorial.
pub struct Tutorial {
    tpm: SoftwareTpm,
    recipe: Recipe,
}

impl Side for Tutorial {
    fn start(key: KeyType) -> Result<Self> {
        Ok(Self {
            tpm: SoftwareTpm::start()?,
            recipe: Recipe::new(key)?,
        })
    }

    fn tpm(&self) -> &SoftwareTpm {
        &self.tpm
    }

    fn root(&self) -> PathBuf {
        self.recipe.root().to_owned()
    }

    fn to_request(&self) -> Vec<Program<'_>> {
        programs(self.recipe.to_request())
    }

    fn sign(&self, authority: &Authority) -> Result<()> {
        self.recipe.sign(authority)
    }

    fn to_certificate(&self) -> Vec<Program<'_>> {
        programs(self.recipe.to_certificate())
    }
}

fn programs<'a>(steps: Vec<super::recipe::Step>) -> Vec<Program<'a>> {
    steps
        .into_iter()
        .map(|step| Box::new(move |tpm: &Reached| Ok(step.at(tpm))) as Program)
        .collect()
}
