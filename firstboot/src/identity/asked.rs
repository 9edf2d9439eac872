//! When a successor of the accepted certificate was asked for: nothing else tells.

use firstboot_formats::encoding::to_hex;
use firstboot_formats::files;
use firstboot_formats::x509::Chain;
use serde::{Deserialize, Serialize};

use super::{ASKED, Identity};
use crate::error::{ErrorKind, Result, ResultExt};

/// A fingerprint and a moment.
const MAX_NOTE: usize = 1024;

/// A certificate's successor was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Of the certificate that was accepted then, without its issuers.
    certificate_sha256: String,
    /// When that was (RFC 3339, UTC).
    pub time: String,
}

impl Asked {
    /// Whether it is this certificate's successor that was asked for. If not, there has been one since.
    pub fn is_about(&self, accepted: &Chain) -> bool {
        self.certificate_sha256 == to_hex(&accepted.fingerprint())
    }
}

impl Identity {
    /// The latest note; one that is damaged is none.
    pub fn asked(&self) -> Option<Asked> {
        let text = files::read(&self.directory.join(ASKED), MAX_NOTE).ok()??;
        serde_json::from_slice(&text).ok()
    }

    /// Notes that the accepted certificate's successor was asked for at this time (RFC 3339).
    pub fn note_asked(&self, accepted: &Chain, time: String) -> Result<()> {
        let asked = Asked {
            certificate_sha256: to_hex(&accepted.fingerprint()),
            time,
        };
        let text = serde_json::to_vec(&asked)
            .context(ErrorKind::Other, || format!("cannot encode {ASKED}"))?;
        self.write(ASKED, &text)
    }
}
