//! The exit status, decided only here. docs/status.md documents it.
//!
//! The numbers are those of sysexits(3), so that a unit file or a factory script can tell "there is no TPM" from "still
//! waiting for the certificate" without reading the log.

use std::process::ExitCode;

use crate::error::ErrorKind;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Everything asked for was done.
    Done = 0,
    /// EX_USAGE: the command line is wrong.
    Usage = 64,
    /// EX_UNAVAILABLE: no TPM, or one that fails its self-test.
    NoTpm = 69,
    /// EX_SOFTWARE: anything else.
    Other = 70,
    /// EX_CANTCREAT: something could not be written.
    CannotWrite = 73,
    /// EX_TEMPFAIL: waiting for a certificate, the network, the clock, or the end of a lockout.
    Waiting = 75,
    /// EX_CONFIG: the settings are missing or invalid.
    Settings = 78,
}

impl From<ErrorKind> for Exit {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Settings => Self::Settings,
            ErrorKind::NoTpm => Self::NoTpm,
            ErrorKind::CannotWrite => Self::CannotWrite,
            ErrorKind::Waiting => Self::Waiting,
            ErrorKind::TpmRefuses | ErrorKind::Other => Self::Other,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
