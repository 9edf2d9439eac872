//! A device node for a software TPM: a pseudo terminal, so that a program reaches the TPM by the TCTI that it has on a
//! device (`device:/dev/tpmrm0`), which costs less than the one for swtpm.
//!
//! For short responses only: the TCTI expects each response in one read, and a terminal splits long ones.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::Result;
use nix::pty::openpty;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::ttyname;

use super::Upstream;
use super::wire::read_frame;

/// The device node. It answers until it is dropped.
pub struct Terminal {
    path: PathBuf,
    /// Keeps the terminal open between two programs.
    _open: OwnedFd,
}

impl Terminal {
    pub fn open(tpm: Upstream) -> Result<Self> {
        let ends = openpty(None, None)?;
        let mut raw = tcgetattr(&ends.slave)?;
        cfmakeraw(&mut raw);
        tcsetattr(&ends.slave, SetArg::TCSANOW, &raw)?;
        let mut ours = File::from(ends.master);
        // `read_frame` fails once the other end is closed everywhere, which ends the thread.
        std::thread::spawn(move || -> Result<()> {
            while let Some(command) = read_frame(&mut ours)? {
                ours.write_all(&tpm.exchange(&command)?)?;
            }
            Ok(())
        });
        Ok(Self {
            path: ttyname(&ends.slave)?,
            _open: ends.slave,
        })
    }

    pub fn tcti(&self) -> String {
        format!("device:{}", self.path.display())
    }
}
