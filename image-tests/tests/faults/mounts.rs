//! File systems that are mounted where only their test sees them.

use std::path::Path;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, bail};
use image_tests::device::Device;
use image_tests::process::succeed;
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

/// Does the work in a mount namespace of its own.
pub fn among_private_mounts(work: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    assert!(
        nix::unistd::getuid().is_root(),
        "this test mounts filesystems: run it as root"
    );
    thread::scope(|scope| {
        let working = scope.spawn(|| {
            // For this thread and what it starts (unshare(2)).
            unshare(CloneFlags::CLONE_NEWNS).context("no mount namespace")?;
            mount(&["--make-rprivate", "/"])?;
            work()
        });
        working.join().unwrap_or_else(|_| bail!("a panic"))
    })
}

pub fn mount(arguments: &[&str]) -> Result<()> {
    succeed(Command::new("mount").args(arguments))?;
    Ok(())
}

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
