//! A device that is off, from which any number of tests can continue.

use anyhow::Result;
use tempfile::TempDir;

use super::Device;
use crate::directory::copy_tree;
use crate::doubles::software_tpm::copy_state;

#[derive(Debug)]
pub struct Checkpoint {
    tree: TempDir,
    tpm: TempDir,
}

impl Checkpoint {
    /// Shuts a device down, and copies its file tree and its TPM's state.
    pub fn take(mut device: Device) -> Result<Self> {
        device.tpm.shut_down()?;
        let (tree, tpm) = (TempDir::new()?, TempDir::new()?);
        copy_tree(device.root(), tree.path())?;
        copy_state(device.tpm.state(), tpm.path())?;
        Ok(Self { tree, tpm })
    }

    /// A copy of the device, with its TPM switched on.
    pub fn restore(&self) -> Result<Device> {
        Device::copy_of(self.tree.path(), self.tpm.path())
    }
}
