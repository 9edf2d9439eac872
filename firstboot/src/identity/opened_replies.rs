//! What is known about wrapped replies, so that the TPM need not open them again at each start: the one that the
//! accepted certificate came in, and one whose certificate may not replace it.

use firstboot_formats::encoding::to_hex;
use firstboot_formats::files;
use firstboot_formats::x509::Chain;
use serde::{Deserialize, Serialize};

use super::{Identity, MAX_FILE, OPENED};
use crate::error::{ErrorKind, Result, ResultExt};

/// A note that is valid while the accepted certificate is the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenedReplies {
    /// Of the accepted certificate, without its issuers.
    certificate_sha256: String,
    /// SHA-256 of the reply that it came in, hexadecimal; none if it did not come in a reply.
    #[serde(default)]
    pub reply_sha256: Option<String>,
    /// A reply that was opened, and whose certificate may not replace the accepted one.
    #[serde(default)]
    pub superseded: Option<Superseded>,
}

/// A reply whose certificate may not replace the accepted one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Superseded {
    /// SHA-256 of the reply, hexadecimal.
    pub reply_sha256: String,
    /// Why it may not, in words.
    pub reason: String,
}

impl Identity {
    /// The note about the accepted certificate. A damaged note, or one about another certificate, does not count:
    /// replies are opened again.
    pub fn opened_replies(&self, accepted: &Chain) -> Result<OpenedReplies> {
        let text = files::read(&self.directory.join(OPENED), MAX_FILE)?;
        let noted: Option<OpenedReplies> = text.and_then(|text| serde_json::from_slice(&text).ok());
        let certificate_sha256 = to_hex(&accepted.fingerprint());
        Ok(noted
            .filter(|noted| noted.certificate_sha256 == certificate_sha256)
            .unwrap_or(OpenedReplies {
                certificate_sha256,
                ..OpenedReplies::default()
            }))
    }

    /// Notes the reply whose certificate has been accepted: afterwards, so that a power cut in between only has it
    /// opened again.
    pub fn note_opened_reply(&self, reply_sha256: &str, accepted: &Chain) -> Result<()> {
        self.note(&OpenedReplies {
            reply_sha256: Some(reply_sha256.to_owned()),
            ..self.opened_replies(accepted)?
        })
    }

    /// Notes the latest reply whose certificate may not replace the accepted one.
    pub fn note_superseded_reply(&self, superseded: Superseded, accepted: &Chain) -> Result<()> {
        self.note(&OpenedReplies {
            superseded: Some(superseded),
            ..self.opened_replies(accepted)?
        })
    }

    fn note(&self, replies: &OpenedReplies) -> Result<()> {
        let text = serde_json::to_vec(replies)
            .context(ErrorKind::Other, || format!("cannot encode {OPENED}"))?;
        self.write(OPENED, &text)
    }
}
