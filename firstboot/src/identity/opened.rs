//! The wrapped reply that the accepted certificate came in. As long as the same one lies on the boot partition, it
//! need not be opened again.

use serde::{Deserialize, Serialize};

use super::{Identity, MAX_FILE, OPENED};
use crate::error::{Doing, Exit, Result};
use crate::files;
use crate::public_key::hexadecimal;
use crate::x509::Chain;

#[derive(Serialize, Deserialize)]
struct Opened {
    reply_sha256: String,
    /// Of the certificate that was in it, without its issuers.
    certificate_sha256: String,
}

impl Identity {
    /// SHA-256 of the reply that the accepted certificate came in. A note of another certificate, or one that is
    /// damaged, is none: the reply is opened again.
    pub fn opened_reply(&self, accepted: &Chain) -> Result<Option<String>> {
        let text = files::read(&self.directory.join(OPENED), MAX_FILE)?;
        let opened: Option<Opened> = text.and_then(|text| serde_json::from_slice(&text).ok());
        Ok(opened
            .filter(|opened| opened.certificate_sha256 == hexadecimal(&accepted.fingerprint()))
            .map(|opened| opened.reply_sha256))
    }

    /// Notes the reply whose certificate has been accepted: afterwards, so that a power cut in between has it opened
    /// once more.
    pub fn note_opened_reply(&self, reply_sha256: &str, accepted: &Chain) -> Result<()> {
        let opened = Opened {
            reply_sha256: reply_sha256.to_owned(),
            certificate_sha256: hexadecimal(&accepted.fingerprint()),
        };
        let text =
            serde_json::to_vec(&opened).doing(Exit::Other, || format!("cannot encode {OPENED}"))?;
        self.write(OPENED, &text)
    }
}
