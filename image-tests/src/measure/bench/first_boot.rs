//! A first boot, ours or the peer's, from an unprovisioned TPM to the certificate in the token.

use std::path::PathBuf;

use anyhow::Result;
use tempfile::TempDir;

use super::meter::{Meter, Part, Program, Reached};
use super::recipe::Recipe;
use super::usage::Calls;
use crate::clients::KeyType;
use crate::device::{Device, offline_settings};
use crate::doubles::pki::Authority;
use crate::doubles::software_tpm::SoftwareTpm;

/// A first boot up to the request, and as a whole.
#[derive(Clone, Copy, Debug)]
pub struct FirstBoot<P> {
    pub request: P,
    pub all: P,
}

/// What provisions: firstboot or the tutorial.
pub trait Side {
    /// An unprovisioned TPM, and a directory for files.
    fn start(key: KeyType) -> Result<Self>
    where
        Self: Sized;
    fn tpm(&self) -> &SoftwareTpm;
    /// The directory of its files.
    fn root(&self) -> PathBuf;
    fn to_request(&self) -> Vec<Program<'_>>;
    fn sign(&self, authority: &Authority) -> Result<()>;
    fn to_certificate(&self) -> Vec<Program<'_>>;

    fn measured(key: KeyType, seed: u64) -> Result<FirstBoot<Part>>
    where
        Self: Sized,
    {
        let side = Self::start(key)?;
        let meter = Meter::new(side.tpm(), seed)?;
        let request = meter.measure(side.to_request())?;
        side.sign(&Authority::new()?)?;
        let all = request.then(meter.measure(side.to_certificate())?);
        Ok(FirstBoot { request, all })
    }

    fn counted(key: KeyType) -> Result<FirstBoot<Calls>>
    where
        Self: Sized,
    {
        let side = Self::start(key)?;
        let meter = Meter::new(side.tpm(), 1)?;
        let request = meter.count(side.to_request(), &side.root())?;
        side.sign(&Authority::new()?)?;
        let all = request.then(meter.count(side.to_certificate(), &side.root())?);
        Ok(FirstBoot { request, all })
    }
}

/// firstboot, for the nucleus, which has its certificate in the token, as the peer does.
pub struct Firstboot {
    device: Device,
    _run: TempDir,
}

/// Puts the device's /run into memory, where it is on a device.
pub fn run_in_memory(device: &Device) -> Result<TempDir> {
    let memory = tempfile::tempdir_in("/dev/shm")?;
    std::fs::remove_dir_all(device.path("/run"))?;
    std::os::unix::fs::symlink(memory.path(), device.path("/run"))?;
    Ok(memory)
}

impl Side for Firstboot {
    fn start(key: KeyType) -> Result<Self> {
        let device = Device::unprovisioned()?;
        device.settings(&offline_settings("nucleus", key))?;
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
