//! The one error type: a sentence for the operator and the exit status that goes with it.
//!
//! Exit statuses follow sysexits(3), so that a unit file or a factory script can tell "there is no
//! TPM" from "still waiting for the certificate" without reading the log.

use std::fmt;

use firstboot_formats::error as formats;
use firstboot_formats::printable::printable;

/// Why `firstboot` ends other than well. The numbers are those of sysexits(3) and are documented
/// in docs/status.md; 0 (done) and 64 (usage, EX_USAGE) belong to `main`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// EX_UNAVAILABLE: no TPM, or one that fails its self-test.
    NoTpm = 69,
    /// EX_SOFTWARE: anything else.
    Other = 70,
    /// EX_CANTCREAT: something could not be written.
    CannotWrite = 73,
    /// EX_TEMPFAIL: waiting for a certificate, the network, or the end of a lockout.
    Waiting = 75,
    /// EX_CONFIG: the settings are missing or invalid.
    Settings = 78,
}

/// What was being done, to what, what went wrong, and what can be done about it.
#[derive(Clone, Debug)]
pub struct Error {
    /// The process's exit status.
    pub exit: Exit,
    message: String,
}

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error that ends the program with `exit`.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: printable(message.into()),
        }
    }

    /// [`Exit::Other`]
    pub fn other(message: impl Into<String>) -> Self {
        Self::new(Exit::Other, message)
    }

    /// [`Exit::Settings`]
    pub fn settings(message: impl Into<String>) -> Self {
        Self::new(Exit::Settings, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<formats::Error> for Error {
    fn from(error: formats::Error) -> Self {
        let exit = match error.kind {
            formats::Kind::CannotWrite => Exit::CannotWrite,
            formats::Kind::Other => Exit::Other,
        };
        Self::new(exit, error.to_string())
    }
}

/// Says what was being done when a library's error came up.
pub trait Doing<T> {
    /// "`what`: the library's own words", with this exit status.
    fn doing(self, exit: Exit, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: fmt::Display> Doing<T> for std::result::Result<T, E> {
    fn doing(self, exit: Exit, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::new(exit, format!("{}: {e}", what())))
    }
}
