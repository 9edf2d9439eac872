//! File systems that are mounted where only their test sees them.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use image_tests::device::Device;
use image_tests::namespaces::mount;
use image_tests::process::succeed;
use tempfile::TempDir;

/// Puts the device's whole tree into memory, until the returned directory is dropped.
pub fn in_memory(device: &Device) -> Result<TempDir> {
    let memory = TempDir::new()?;
    mount(&["-t", "tmpfs", "none", text(memory.path())?])?;
    replace_tree(device, memory.path())?;
    Ok(memory)
}

/// The same onto a disk.
pub fn on_disk(device: &Device) -> Result<TempDir> {
    let disk = tempfile::tempdir_in("/var/tmp")?;
    replace_tree(device, disk.path())?;
    Ok(disk)
}

fn replace_tree(device: &Device, with: &Path) -> Result<()> {
    succeed(
        Command::new("cp")
            .arg("-a")
            .arg(device.root().join("."))
            .arg(with),
    )?;
    mount(&["--bind", text(with)?, text(device.root())?])
}

pub fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is no text")
}
