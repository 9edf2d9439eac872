//! Mounts and network interfaces that only one test has. Both need root.

use std::process::Command;
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, unshare};

use crate::process::succeed;

/// Does the work in a mount namespace of its own.
pub fn among_private_mounts(work: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    isolated(CloneFlags::CLONE_NEWNS, work)
}

/// The same in a network namespace of its own, too, with nothing but a loopback: interfaces that the work makes go with
/// its programs.
pub fn in_a_private_network(work: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    isolated(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET, || {
        ip(&["link", "set", "lo", "up"])?;
        work()
    })
}

fn isolated(of_its_own: CloneFlags, work: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    ensure!(
        nix::unistd::getuid().is_root(),
        "this test mounts file systems or makes network interfaces: run it as root"
    );
    thread::scope(|scope| {
        let working = scope.spawn(|| {
            // For this thread and what it starts (unshare(2)).
            unshare(of_its_own).context("no namespace")?;
            mount(&["--make-rprivate", "/"])?;
            work()
        });
        working.join().unwrap_or_else(|_| bail!("a panic"))
    })
}

/// mount(8)
pub fn mount(arguments: &[&str]) -> Result<()> {
    succeed(Command::new("mount").args(arguments))?;
    Ok(())
}

/// ip(8)
pub fn ip(arguments: &[&str]) -> Result<()> {
    succeed(Command::new("ip").args(arguments))?;
    Ok(())
}
