//! The crate's error: a sentence for the operator. Each program decides its exit status.

use std::fmt;

use crate::printable::printable;

/// What kind of thing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Something could not be written.
    CannotWrite,
    /// Anything else: something could not be read, or is not what it should be.
    Other,
}

/// What was being done, to what, and what went wrong.
#[derive(Clone, Debug)]
pub struct Error {
    /// What kind of thing it is.
    pub kind: Kind,
    message: String,
}

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with a [`printable`] message.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: printable(message.into()),
        }
    }

    /// [`Kind::Other`]
    pub fn other(message: impl Into<String>) -> Self {
        Self::new(Kind::Other, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// Adds to a library's error what was being done.
pub(crate) trait Context<T> {
    /// "`what`: the library's own words".
    fn context(self, kind: Kind, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, kind: Kind, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::new(kind, format!("{}: {e}", what())))
    }
}
