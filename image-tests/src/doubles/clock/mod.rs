//! A clock for one program: ahead of this host's, and synchronised or not.

use std::ffi::OsString;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use tempfile::TempDir;

use crate::directory::readable_directory;
use crate::process::succeed;

/// For clocks that are some days ahead.
pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The library that makes the difference.
#[derive(Debug)]
pub struct ClockDouble {
    library: TempDir,
    ahead: Duration,
    synchronised: bool,
}

impl ClockDouble {
    /// Synchronised, and ahead by this much.
    pub fn ahead(ahead: Duration) -> Result<Self> {
        Self::new(ahead, true)
    }

    /// With this host's time, but nobody has set it.
    pub fn unset() -> Result<Self> {
        Self::new(Duration::ZERO, false)
    }

    fn new(ahead: Duration, synchronised: bool) -> Result<Self> {
        let library = readable_directory("clock-")?;
        let source = library.path().join("ahead.c");
        std::fs::write(&source, include_str!("ahead.c"))?;
        let mut compile = Command::new("cc");
        compile.args(["-Wall", "-Werror", "-shared", "-fPIC", "-o"]);
        succeed(compile.arg(library.path().join("ahead.so")).arg(source))?;
        Ok(Self {
            library,
            ahead,
            synchronised,
        })
    }

    /// What a program with this clock needs in its environment.
    pub fn environment(&self) -> [(&'static str, OsString); 3] {
        [
            ("LD_PRELOAD", self.library.path().join("ahead.so").into()),
            ("CLOCK_AHEAD", self.ahead.as_secs().to_string().into()),
            (
                "CLOCK_SYNCHRONISED",
                u8::from(self.synchronised).to_string().into(),
            ),
        ]
    }
}
