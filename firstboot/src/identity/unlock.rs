//! The use of a stored key without the PKCS#11 library, which takes 33 TPM commands to open.

use zeroize::Zeroizing;

use super::Identity;
use crate::error::Result;
use crate::secret::Pin;
use crate::token::StoredKey;
use crate::tpm::{Channel, Tpm};

impl Identity {
    /// Opens a channel to the TPM for the use of its key, which comes with its authorization value. Five TPM commands.
    pub fn unlock<'a>(
        &self,
        tpm: &'a mut Tpm,
    ) -> Result<(Channel<'a>, StoredKey, Zeroizing<Vec<u8>>)> {
        let stored = self.stored_key()?;
        let (channel, auth) = unlock(tpm, &self.srk_name()?, &stored, &self.pin()?)?;
        Ok((channel, stored, auth))
    }
}

/// Opens a channel to the TPM and gets the key's authorization value through it. The storage root key above the key has
/// this Name. Five TPM commands.
pub(super) fn unlock<'a>(
    tpm: &'a mut Tpm,
    srk_name: &str,
    stored: &StoredKey,
    pin: &Pin,
) -> Result<(Channel<'a>, Zeroizing<Vec<u8>>)> {
    let mut channel = tpm.channel(srk_name)?;
    let unsealed = channel.unseal((&stored.seal).into(), &stored.seal_auth(pin))?;
    Ok((channel, stored.key_auth(&unsealed)?))
}
