//! What a broken connection says about its reason. Foreign text is hostile: it is truncated, and shown without control
//! characters.

use std::io;

use rustls::{AlertDescription, CertificateError, Error as TlsError, OtherError};

use super::verifier::UnknownRoot;
use crate::error::{Error, ErrorKind};

/// Maximum length of an error message from elsewhere, in characters.
const MAX_QUOTED: usize = 300;

/// What TLS failed for.
pub enum TlsTrouble {
    /// The server has refused us, in most cases our certificate.
    Refused(AlertDescription),
    /// We have refused the server.
    Untrusted(Distrust),
    /// Anything else, in rustls's words.
    Other(String),
}

/// Why the server cannot be trusted.
pub enum Distrust {
    /// Its certificate leads up to nobody that we know.
    Root {
        /// Whom it leads up to.
        theirs: String,
        /// Whom we would believe.
        ours: String,
    },
    /// Its certificate is for another name.
    Name,
    /// Anything else, in rustls's words.
    Other(String),
}

/// What TLS failed for, if it was TLS that failed.
pub fn tls(error: &io::Error) -> Option<TlsTrouble> {
    let error: &TlsError = error.get_ref()?.downcast_ref()?;
    Some(match error {
        TlsError::AlertReceived(alert) => TlsTrouble::Refused(*alert),
        TlsError::InvalidCertificate(why) => TlsTrouble::Untrusted(distrust(why)),
        other => TlsTrouble::Other(truncate(&other.to_string())),
    })
}

fn distrust(why: &CertificateError) -> Distrust {
    match why {
        CertificateError::Other(OtherError(why)) => match why.downcast_ref() {
            Some(UnknownRoot { theirs, ours }) => Distrust::Root {
                theirs: truncate(theirs),
                ours: truncate(&ours.join("; ")),
            },
            None => Distrust::Other(truncate(&why.to_string())),
        },
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Distrust::Name
        }
        why => Distrust::Other(truncate(&why.to_string())),
    }
}

/// Whether the time for it was over.
pub fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
    )
}

/// Whether the other side ended the connection without saying why.
pub fn is_closing(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
    )
}

/// The beginning of foreign text; [`Error`] escapes control characters.
pub fn truncate(text: &str) -> String {
    match text.char_indices().nth(MAX_QUOTED) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// [`ErrorKind::Waiting`]
pub fn waiting(message: String) -> Error {
    Error::new(ErrorKind::Waiting, message)
}
