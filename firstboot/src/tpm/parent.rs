//! What only a try can tell: whether the storage root key accepts an empty authorization value, and whether a stored
//! object is below it. Both load something; nothing stays in the TPM.

use tss_esapi::constants::response_code::Tss2ResponseCodeKind as Kind;
use tss_esapi::handles::KeyHandle;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{Private, Public};
use tss_esapi::traits::UnMarshall;

use super::activate_credential::{Stored, content};
use super::{Tpm, failed, srk};
use crate::error::{Error, ErrorKind, Result};

impl Tpm {
    /// Whether the key at 0x81000001 accepts an empty authorization value: tries to load an invalid object below it.
    /// The TPM checks the authorization (Part 3, §5.6) before the parameters (§5.8), so its error tells. Two TPM
    /// commands; if the key has an authorization value and not noDA, one dictionary-attack try.
    pub fn srk_has_empty_auth(&mut self) -> Result<bool> {
        let what = "cannot test the storage root key's authorization value";
        let key = self.open_srk()?.ok_or_else(|| gone(what))?;
        let nothing = Private::try_from(vec![0; 64]).map_err(|e| failed(what, e))?;
        let public = srk::template(true).map_err(|e| failed(what, e))?;
        match self.try_to_load(key, nothing, public) {
            Ok(()) => Err(Error::new(
                ErrorKind::NoTpm,
                "the TPM loaded something that is not an object: it cannot be trusted with a key",
            )),
            Err(e) => match kind(&e) {
                Some(Kind::AuthFail | Kind::BadAuth) => Ok(false),
                Some(_) if is_about_the_object(&e) => Ok(true),
                _ => Err(failed(what, e)),
            },
        }
    }

    /// Whether an object is below the key at 0x81000001 or, if there is none, below one of those that this TPM makes.
    /// `false` only if the object is malformed, or the TPM has looked at it and refused it; any other failure is an
    /// error.
    pub fn loads(&mut self, object: Stored<'_>) -> Result<bool> {
        let parse = || -> Option<(Private, Public)> {
            let private = Private::try_from(content(object.private).ok()?).ok()?;
            let public = Public::unmarshall(content(object.public).ok()?).ok()?;
            Some((private, public))
        };
        let is_below = |tpm: &mut Self, key| {
            let Some((private, public)) = parse() else {
                return Ok(false);
            };
            match tpm.try_to_load(key, private, public) {
                Ok(()) => Ok(true),
                Err(e) if is_about_the_object(&e) => Ok(false),
                Err(e) => Err(failed(
                    "cannot test whether the TPM loads the token's key",
                    e,
                )),
            }
        };
        if let Some(key) = self.open_srk()? {
            return is_below(self, key);
        }
        for no_da in srk::TEMPLATES {
            if self.with_primary(no_da, is_below)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn try_to_load(
        &mut self,
        parent: KeyHandle,
        private: Private,
        public: Public,
    ) -> tss_esapi::Result<()> {
        let loaded = self
            .context
            .execute_with_session(Some(AuthSession::Password), |context| {
                context.load(parent, private, public)
            })?;
        let _ = self.context.flush_context(loaded.into());
        Ok(())
    }
}

fn gone(what: &str) -> Error {
    Error::other(format!("{what}: the key is no longer there"))
}

fn kind(error: &tss_esapi::Error) -> Option<Kind> {
    match error {
        tss_esapi::Error::Tss2Error(code) => code.kind(),
        tss_esapi::Error::WrapperError(_) => None,
    }
}

/// Whether the TPM refused the object because of its content (Part 3, §12.2, and errors of unmarshalling), not because
/// of the caller or its own state.
fn is_about_the_object(error: &tss_esapi::Error) -> bool {
    matches!(
        kind(error),
        Some(
            Kind::Integrity
                | Kind::Asymmetric
                | Kind::Binding
                | Kind::Hash
                | Kind::Insufficient
                | Kind::Kdf
                | Kind::KeySize
                | Kind::Scheme
                | Kind::Size
                | Kind::Symmetric
                | Kind::Value
        )
    )
}
