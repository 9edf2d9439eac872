//! A TPM for each test: a real swtpm process with its state in a directory. Its power can be cut and come back. `tools`
//! inspects it, and puts it into states that a provisioner may find.
//!
//! There is no resource manager, only three transient slots, as on a bare /dev/tpm0.

mod endorsement;
mod tools;

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;

use crate::doubles::tpm_proxy::Upstream;
use crate::ports::PortPair;
use crate::process::Background;

pub use endorsement::Ek;

#[derive(Debug)]
pub struct SoftwareTpm {
    /// Dropped in this order: swtpm has to end before its files go.
    swtpm: Option<Background>,
    ports: PortPair,
    state: PathBuf,
    /// The tools' contexts, swtpm's messages and, after `start`, the state.
    workspace: TempDir,
}

impl SoftwareTpm {
    /// A TPM that has never been used, switched on.
    pub fn start() -> Result<Self> {
        let workspace = workspace()?;
        let state = workspace.path().join("state");
        std::fs::create_dir(&state)?;
        Self::with(workspace, state)
    }

    /// The TPM whose state is in a directory; a new one if it is empty. The directory is kept.
    pub fn start_in(state: &Path) -> Result<Self> {
        Self::with(workspace()?, state.to_path_buf())
    }

    /// A TPM with a copy of another's state, switched on.
    pub fn copy_of(state: &Path) -> Result<Self> {
        let workspace = workspace()?;
        let copy = workspace.path().join("state");
        std::fs::create_dir(&copy)?;
        copy_state(state, &copy)?;
        Self::with(workspace, copy)
    }

    fn with(workspace: TempDir, state: PathBuf) -> Result<Self> {
        let mut tpm = Self {
            swtpm: None,
            ports: PortPair::reserve()?,
            state,
            workspace,
        };
        tpm.power_on()?;
        Ok(tpm)
    }

    /// Its TCTI, which stays the same over power cycles.
    pub fn tcti(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.ports.first())
    }

    /// Where a proxy reaches it.
    pub fn upstream(&self) -> Upstream {
        let data = self.port();
        Upstream {
            data,
            control: data + 1,
        }
    }

    /// The TCP port of its commands; the control port is the next one.
    pub fn port(&self) -> u16 {
        self.ports.first()
    }

    /// The directory of its state.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Cuts the power: no TPM2_Shutdown, and the state stays as it is.
    pub fn pull_the_plug(&mut self) {
        self.swtpm = None;
    }

    /// Powers off in order, which does not count as a failed try.
    pub fn shut_down(&mut self) -> Result<()> {
        self.run(&["tpm2_shutdown", "-c"])?;
        self.swtpm.take().context("no TPM is running")?.terminate()
    }

    /// Powers on. When this returns, TPM2_Startup(CLEAR) is done.
    pub fn power_on(&mut self) -> Result<()> {
        if self.swtpm.is_some() {
            bail!("this TPM is on already");
        }
        let port = self.ports.first();
        let mut command = Command::new("swtpm");
        command
            .args(["socket", "--tpm2", "--tpmstate"])
            .arg(format!("dir={}", self.state.display()))
            .arg("--server")
            .arg(format!("type=tcp,port={port},bindaddr=127.0.0.1"))
            .arg("--ctrl")
            .arg(format!("type=tcp,port={},bindaddr=127.0.0.1", port + 1))
            .args(["--flags", "not-need-init,startup-clear"]);
        let swtpm = start_swtpm(command, &self.file("swtpm.log"), &self.file("swtpm.pid"))?;
        self.swtpm = Some(swtpm);
        Ok(())
    }
}

/// Copies a TPM's state, even while it runs: swtpm replaces its file by a rename, so a file that is being written is
/// not the state yet.
pub fn copy_state(from: &Path, to: &Path) -> Result<()> {
    for entry in std::fs::read_dir(from)? {
        let name = entry?.file_name();
        let passing = name.to_string_lossy();
        if passing.starts_with("TMP") || passing == ".lock" {
            continue;
        }
        std::fs::copy(from.join(&name), to.join(&name))
            .with_context(|| format!("cannot copy a TPM's state {passing}"))?;
    }
    Ok(())
}

/// Starts swtpm and waits until it listens. swtpm writes its process ID once it does; here, into a FIFO that can be
/// waited for.
pub fn start_swtpm(mut command: Command, messages: &Path, pid: &Path) -> Result<Background> {
    if pid.exists() {
        std::fs::remove_file(pid)?;
    }
    mkfifo(pid, Mode::S_IRUSR | Mode::S_IWUSR)?;
    let listening = File::options()
        .read(true)
        // Otherwise opening a FIFO waits for a writer.
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(pid)?;
    let log = File::create(messages)?;
    command.arg("--pid").arg(format!("file={}", pid.display()));
    command.stdout(log.try_clone()?).stderr(log);
    let swtpm = Background::start(&mut command)
        .context("is swtpm installed? Run image-tests/host-packages")?;
    swtpm
        .wait_readable("swtpm to listen", &listening)
        .with_context(|| format!("swtpm: {}", read_log(messages)))?;
    Ok(swtpm)
}

fn read_log(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| e.to_string())
}

fn workspace() -> Result<TempDir> {
    tempfile::Builder::new()
        .prefix("software-tpm-")
        .tempdir()
        .context("cannot make a directory for a TPM")
}
