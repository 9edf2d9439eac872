//! What came of trying a certificate at AWS IoT Core, and the way back from one that nobody has tried.

use firstboot_formats::encoding::to_hex;
use firstboot_formats::files;
use firstboot_formats::x509::Chain;
use serde::{Deserialize, Serialize};

use super::{FORMER, Identity, MAX_FILE, PROBATION, TRIED};
use crate::error::{ErrorKind, Result, ResultExt};

/// What came of a connection with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trial {
    /// It was accepted.
    Accepted,
    /// Nobody answered, or the answer says nothing about the certificate.
    Unanswered,
    /// It was refused, while one with the certificate in service was accepted.
    Refused,
    /// Whatever came of it, the certificate's identity could not be put into service.
    Failed,
}

/// The latest trial.
#[derive(Serialize, Deserialize)]
struct Note {
    /// The certificate that was tried, without its issuers.
    certificate_sha256: String,
    result: Trial,
}

impl Identity {
    /// What came of trying this certificate. A note that is damaged, or about another certificate, is none: it is tried
    /// again.
    pub fn trial(&self, chain: &Chain) -> Option<Trial> {
        let text = files::read(&self.directory.join(TRIED), MAX_FILE).ok()??;
        let note: Note = serde_json::from_slice(&text).ok()?;
        (note.certificate_sha256 == to_hex(&chain.fingerprint())).then_some(note.result)
    }

    /// Notes what came of trying this certificate; writes only what is new.
    pub fn note_trial(&self, chain: &Chain, result: Trial) -> Result<()> {
        if self.trial(chain) == Some(result) {
            return Ok(());
        }
        let note = Note {
            certificate_sha256: to_hex(&chain.fingerprint()),
            result,
        };
        let text = serde_json::to_vec(&note)
            .context(ErrorKind::Other, || format!("cannot encode {TRIED}"))?;
        self.write(TRIED, &text)
    }

    /// Forgets it: the certificate counts as never tried.
    pub fn forget_trial(&self) -> Result<()> {
        Ok(files::remove(&self.directory.join(TRIED))?)
    }

    /// Notes, before this certificate is put into service, that AWS IoT Core has not accepted it so far. One for the same
    /// key takes the place of the former one, which is kept.
    pub fn begin_probation(&self, chain: &Chain, former: Option<&Chain>) -> Result<()> {
        if let Some(former) = former {
            self.write(FORMER, former.pem().as_bytes())?;
        }
        self.write(PROBATION, to_hex(&chain.fingerprint()).as_bytes())
    }

    /// Whether this certificate was put into service without AWS IoT Core's having accepted it, then or since.
    pub fn is_on_probation(&self, accepted: &Chain) -> bool {
        let noted = files::read(&self.directory.join(PROBATION), MAX_FILE);
        let sha256 = to_hex(&accepted.fingerprint());
        matches!(noted, Ok(Some(noted)) if noted == sha256.as_bytes())
    }

    /// The certificate for the same key that was in service before the one on probation.
    pub fn former(&self) -> Option<Chain> {
        let pem = files::read(&self.directory.join(FORMER), MAX_FILE).ok()??;
        Chain::stored(&pem)
    }

    /// Ends the probation: the certificate in service has been accepted, or another one has taken its place.
    pub fn end_probation(&self) -> Result<()> {
        files::remove(&self.directory.join(PROBATION))?;
        Ok(files::remove(&self.directory.join(FORMER))?)
    }
}
