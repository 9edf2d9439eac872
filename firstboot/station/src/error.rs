//! The program's error: a sentence for the operator and the exit status that goes with it, of sysexits(3).

use std::fmt;
use std::process::ExitCode;

use firstboot_formats::error as formats;
use firstboot_formats::printable::printable;

/// Why `firstboot-station` fails. The numbers are those of sysexits(3) and are documented in its `--help` and in
/// docs/status.md; 0 (done) and 64 (usage, EX_USAGE) belong to `cli`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// EX_DATAERR: some requests were refused.
    Refused = 65,
    /// EX_NOINPUT: a named file is missing.
    NoInput = 66,
    /// EX_SOFTWARE: anything else.
    Other = 70,
    /// EX_CANTCREAT: something could not be written.
    CannotWrite = 73,
    /// EX_CONFIG: CA, key, PIN or list cannot be used.
    Settings = 78,
}

/// What was being done, to what, what went wrong, and what can be done about it.
#[derive(Clone, Debug)]
pub(crate) struct Error {
    exit: Exit,
    message: String,
}

/// `Result` with this crate's [`Error`].
pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error that ends the program with `exit`.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: printable(message.into()),
        }
    }

    /// [`Exit::Settings`]
    pub(crate) fn settings(message: impl Into<String>) -> Self {
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

impl From<Error> for ExitCode {
    fn from(error: Error) -> Self {
        Self::from(error.exit as u8)
    }
}

/// Adds to a library's error what was being done.
pub(crate) trait Context<T> {
    /// "`what`: the library's own words", with this exit status.
    fn context(self, exit: Exit, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, exit: Exit, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::new(exit, format!("{}: {e}", what())))
    }
}
