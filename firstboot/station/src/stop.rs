//! Why a request gets no reply.

use crate::error::Error;

/// The reason.
pub(crate) enum Stop {
    /// Because of this request: the others are done.
    Refused(String),
    /// Because of the station: the next request would fare no better.
    Failed(Error),
}

impl From<String> for Stop {
    fn from(reason: String) -> Self {
        Self::Refused(reason)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}
