//! The TPM itself. Every use of tss-esapi is in this folder.
//!
//! `missing` says why there is none, `probe` what it is and in which state; `endorsement` reads its manufacturer's
//! certificate, `srk` manages the storage root key, `parent` tries that key and what is below it, `handles` explains
//! what is persistent, `lockout` ends a dictionary-attack lockout, `activate_credential` opens what was encrypted for a
//! key in this TPM, `sign` signs once with one.

mod activate_credential;
mod endorsement;
mod handles;
mod lockout;
mod missing;
mod parent;
mod probe;
mod sign;
mod srk;

use std::str::FromStr;

use tss_esapi::constants::response_code::Tss2ResponseCodeKind;
use tss_esapi::tcti_ldr::{DeviceConfig, NetworkTPMConfig, TabrmdConfig};
use tss_esapi::{Context, TctiNameConf};

use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::layout::Layout;

pub use activate_credential::{Channel, Credential, Stored};
pub use handles::PersistentHandle;
pub use lockout::reset as reset_lockout;
pub use probe::{Identification, Limits, Lockout};
pub use srk::{HANDLE as SRK_HANDLE, Srk};

/// A connection to one TPM. Closing it flushes what it loaded.
pub struct Tpm {
    context: Context,
}

impl Tpm {
    /// Opens the TPM behind a TCTI such as `device:/dev/tpmrm0` or `swtpm:host=localhost,port=2321`. Sends no command.
    /// If the device's TPM cannot be opened, the error says what the kernel knows about the board.
    pub fn connect(tcti: &str, layout: &Layout) -> Result<Self> {
        let context = Context::new(parse_tcti(tcti)?).map_err(|e| {
            let advice = if tcti.starts_with("device:") {
                missing::advice(layout)
            } else {
                "Is somebody listening there?".into()
            };
            Error::new(
                ErrorKind::NoTpm,
                format!("cannot open the TPM at {tcti}: {e}. {advice}"),
            )
            .caused_by(e)
        })?;
        Ok(Self { context })
    }

    /// Random bytes from the TPM; at most 32 at a time on an SLB 9670.
    pub fn random(&mut self, count: usize) -> Result<Vec<u8>> {
        let bytes = self
            .context
            .get_random(count)
            .map_err(|e| failed("cannot get random bytes from the TPM", e))?;
        Ok(bytes.as_slice().to_vec())
    }
}

/// tss-esapi's own parser is not used: it compiles four regular expressions at each start.
fn parse_tcti(tcti: &str) -> Result<TctiNameConf> {
    let (kind, configuration) = tcti.split_once(':').unwrap_or((tcti, ""));
    let parsed = match kind {
        "device" => DeviceConfig::from_str(configuration).map(TctiNameConf::Device),
        "swtpm" => NetworkTPMConfig::from_str(configuration).map(TctiNameConf::Swtpm),
        "mssim" => NetworkTPMConfig::from_str(configuration).map(TctiNameConf::Mssim),
        "tabrmd" => TabrmdConfig::from_str(configuration).map(TctiNameConf::Tabrmd),
        _ => {
            return Err(Error::settings(format!(
                "the TCTI {tcti:?} is not supported: use device:…, swtpm:…, mssim:… or tabrmd:…"
            )));
        }
    };
    parsed.context(ErrorKind::Settings, || {
        format!("the TCTI {tcti:?} is malformed")
    })
}

/// The one place where a TPM response code becomes a sentence and a kind.
fn failed(what: &str, error: tss_esapi::Error) -> Error {
    use Tss2ResponseCodeKind as Kind;
    let code = match error {
        tss_esapi::Error::Tss2Error(code) => code,
        // tss-esapi could not make sense of its input or of the TPM's response: this is not the transport's fault.
        tss_esapi::Error::WrapperError(_) => {
            return Error::other(format!("{what}: {error}")).caused_by(error);
        }
    };
    let (kind, advice) = match code.kind() {
        Some(Kind::Failure) => (
            ErrorKind::NoTpm,
            " (the TPM is in failure mode: its self-test failed. Switch the power off and on; if \
             that does not help, the chip is broken)",
        ),
        Some(Kind::Lockout) => (
            ErrorKind::Waiting,
            " (dictionary-attack lockout; `firstboot tpm` says when it ends)",
        ),
        Some(Kind::BadAuth | Kind::AuthFail) => (
            ErrorKind::TpmRefuses,
            " (somebody set an authorization value that firstboot does not know)",
        ),
        Some(Kind::NvSpace) => (
            ErrorKind::TpmRefuses,
            " (the TPM has no room left for a persistent object; `firstboot tpm` lists them)",
        ),
        Some(Kind::ObjectMemory | Kind::SessionMemory) => (
            ErrorKind::TpmRefuses,
            " (the TPM's memory is taken by another program: use the resource manager, \
             device:/dev/tpmrm0)",
        ),
        // The transport broke: nothing answers any more.
        None => (ErrorKind::NoTpm, ""),
        Some(_) => (ErrorKind::TpmRefuses, ""),
    };
    Error::new(kind, format!("{what}: {error}{advice}")).caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tss_esapi::WrapperErrorKind;

    #[test]
    fn unreadable_data_is_not_a_missing_tpm() {
        let garbled = tss_esapi::Error::WrapperError(WrapperErrorKind::WrongParamSize);
        assert_eq!(failed("loading the key", garbled).kind, ErrorKind::Other);
    }
}
