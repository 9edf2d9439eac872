//! A TPM of its own for each test: a real swtpm process, its state in a directory. Power can be cut and
//! come back. `tools` looks into it and puts it into the states that a provisioner may find.
//!
//! There is no resource manager: three transient slots are all that there is, as on a bare /dev/tpm0.

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
    /// What is between swtpm's death and the removal of its files: drop in this order.
    swtpm: Option<Background>,
    ports: PortPair,
    state: PathBuf,
    /// Contexts of the tools, swtpm's own messages and, by `start`, the state.
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

    /// The TPM whose state is in a directory, a new one if it is empty. The directory stays afterwards.
    pub fn start_in(state: &Path) -> Result<Self> {
        Self::with(workspace()?, state.to_path_buf())
    }

    /// A TPM in a state that was copied from another's directory, switched on.
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

    /// How tpm2-tss reaches it; the same before and after a power cycle.
    pub fn tcti(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.ports.first())
    }

    /// Where a proxy finds it.
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

    /// The power fails: no TPM2_Shutdown, the state stays as it is at this moment.
    pub fn pull_the_plug(&mut self) {
        self.swtpm = None;
    }

    /// An orderly power-off, which costs no try of the dictionary-attack counter.
    pub fn shut_down(&mut self) -> Result<()> {
        self.run(&["tpm2_shutdown", "-c"])?;
        self.swtpm.take().context("no TPM is running")?.terminate()
    }

    /// Power comes (again), and TPM2_Startup(CLEAR) has been done when this returns.
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

/// Copies a TPM's state, also of one that is running: swtpm replaces its file by a rename, and what it is
/// just writing is not the state yet.
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

/// Starts swtpm, and returns when it listens. It writes its process ID as soon as it does: into a FIFO, so that one can
/// wait for it.
pub fn start_swtpm(mut command: Command, messages: &Path, pid: &Path) -> Result<Background> {
    if pid.exists() {
        std::fs::remove_file(pid)?;
    }
    mkfifo(pid, Mode::S_IRUSR | Mode::S_IWUSR)?;
    let listening = File::options()
        .read(true)
        // Without it, opening a FIFO waits for who writes to it.
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(pid)?;
    let log = File::create(messages)?;
    command.arg("--pid").arg(format!("file={}", pid.display()));
    command.stdout(log.try_clone()?).stderr(log);
    let swtpm = Background::start(&mut command)
        .context("is swtpm installed? image-tests/host-packages does it")?;
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
