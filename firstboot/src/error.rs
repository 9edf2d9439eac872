//! The program's error: what kind of thing went wrong, a sentence for the operator, and what caused it.
//!
//! Decisions read the kind. [`crate::exit`] alone turns it into an exit status.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use firstboot_formats::error as formats;
use firstboot_formats::printable::printable;

/// What kind of thing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Settings, root certificates or claim pair are missing or invalid.
    Settings,
    /// There is no TPM, it does not answer, or its self-test fails.
    NoTpm,
    /// The TPM refuses.
    TpmRefuses,
    /// Something could not be written.
    CannotWrite,
    /// Time or somebody else has to fix it: a certificate, the network, the clock, AWS IoT Core, the end of a lockout.
    Waiting,
    /// Anything else.
    Other,
}

/// What was being done, to what, what went wrong, and what can be done about it.
#[derive(Clone, Debug)]
pub struct Error {
    /// What kind of thing went wrong.
    pub kind: ErrorKind,
    message: String,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with a [`printable`] message.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: printable(message.into()),
            source: None,
        }
    }

    /// [`ErrorKind::Other`]
    pub fn other(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Other, message)
    }

    /// [`ErrorKind::Settings`]
    pub fn settings(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Settings, message)
    }

    /// Keeps the error that caused this one. The message for the operator already has its words.
    pub fn caused_by(self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            source: Some(source.into().into()),
            ..self
        }
    }
}

/// The message alone: one sentence, including the cause.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let source = self.source.as_deref()?;
        Some(source)
    }
}

impl From<formats::Error> for Error {
    fn from(error: formats::Error) -> Self {
        let kind = match error.kind {
            formats::Kind::CannotWrite => ErrorKind::CannotWrite,
            formats::Kind::Other => ErrorKind::Other,
        };
        Self::new(kind, error.to_string()).caused_by(error)
    }
}

/// Turns a library's error into an [`Error`].
pub trait ResultExt<T> {
    /// "`what`: the library's own words".
    fn context(self, kind: ErrorKind, what: impl FnOnce() -> String) -> Result<T>;

    /// The library's own words, if they say enough.
    fn of_kind(self, kind: ErrorKind) -> Result<T>;
}

impl<T, E: Into<Box<dyn StdError + Send + Sync>>> ResultExt<T> for std::result::Result<T, E> {
    fn context(self, kind: ErrorKind, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| {
            let source = e.into();
            Error::new(kind, format!("{}: {source}", what())).caused_by(source)
        })
    }

    fn of_kind(self, kind: ErrorKind) -> Result<T> {
        self.map_err(|e| {
            let source = e.into();
            Error::new(kind, source.to_string()).caused_by(source)
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn the_cause_is_in_the_message_and_behind_it() {
        let refused = || Err::<(), _>(io::Error::from(io::ErrorKind::PermissionDenied));
        let error = refused()
            .context(ErrorKind::CannotWrite, || "cannot write /x".into())
            .unwrap_err();
        assert_eq!(error.kind, ErrorKind::CannotWrite);
        assert_eq!(error.to_string(), "cannot write /x: permission denied");
        let cause = error.source().unwrap().downcast_ref::<io::Error>().unwrap();
        assert_eq!(cause.kind(), io::ErrorKind::PermissionDenied);
        let error = refused().of_kind(ErrorKind::Settings).unwrap_err();
        assert_eq!(error.to_string(), "permission denied");
    }
}
