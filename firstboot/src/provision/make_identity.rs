//! Making the identity: below the storage root key, and that, too, where there is none.

use log::warn;
use zeroize::Zeroizing;

use super::context::Context;
use super::{request, root_key};
use crate::error::Result;
use crate::secret;
use crate::tpm::{Identification, Srk};

/// Makes the identity.
pub(super) fn make(context: &mut Context, srk: &Srk, tpm: &Identification) -> Result<()> {
    let srk_name = match srk {
        Srk::Present { name, .. } => name.clone(),
        _ => root_key::make(context)?,
    };
    let ek = context.tpm()?.ek_certificate()?;
    if let Err(why) = &ek {
        warn!("nothing will show that the key is in a TPM: {why}");
    }
    let entropy = Zeroizing::new(context.tpm()?.random(2 * secret::ENTROPY)?);
    let plan = request::plan(context.settings()?, &context.places, tpm.to_string(), ek);
    context.places.identity.make(&plan, &srk_name, &entropy)
}
