//! Creating the identity below the storage root key, and that key, too, if there is none.

use log::warn;
use zeroize::Zeroizing;

use super::context::Context;
use super::{request, root_key};
use crate::error::Result;
use crate::secret;
use crate::tpm::{Identification, Srk};

/// Creates the identity.
pub(super) fn make(context: &mut Context, srk: &Srk, tpm: &Identification) -> Result<()> {
    let srk_name = match srk {
        Srk::Present { name, .. } => name.clone(),
        _ => root_key::make(context)?,
    };
    let ek = context.tpm()?.ek_certificate()?;
    if let Err(why) = &ek {
        warn!("the request cannot prove that its key is in a TPM: {why}");
    }
    let entropy = Zeroizing::new(context.tpm()?.random(2 * secret::ENTROPY)?);
    let Context {
        places,
        connections,
        inputs,
        ..
    } = context;
    let settings = &inputs.as_ref().map_err(Clone::clone)?.settings;
    let plan = request::plan(settings, places, tpm.to_string(), ek);
    let tpm = connections.tpm(places)?;
    places.identity.make(&plan, tpm, &srk_name, &entropy)
}
