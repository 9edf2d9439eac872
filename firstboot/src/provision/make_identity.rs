//! Creating the identity below the storage root key, and that key, too, if there is none.

use log::warn;
use zeroize::Zeroizing;

use super::context::{Context, Places};
use super::{request, root_key};
use crate::error::{Error, Result};
use crate::identity::{Identity, Pins};
use crate::secret::{self, Pin};
use crate::tpm::{Identification, Srk};

/// Creates the identity.
pub(super) fn make(context: &mut Context, srk: &Srk, tpm: &Identification) -> Result<()> {
    let srk_name = match srk {
        Srk::Present { name, .. } => name.clone(),
        _ => root_key::make(context)?,
    };
    let identity = context.places.identity.clone();
    make_at(context, &identity, &srk_name, tpm, None)
}

/// Makes the identity with the next key, with the PIN of the one in service and below the same storage root key. The key
/// in service signs its request, too.
pub(super) fn make_next(context: &mut Context) -> Result<()> {
    let Places { identity, next, .. } = &context.places;
    let (identity, next) = (identity.clone(), next.clone());
    identity.refuse_other_tokens()?;
    let srk_name = identity.srk_name()?;
    let tpm = context.tpm()?.identification()?;
    if let Some(why) = tpm.weak_key(context.settings()?.key) {
        return Err(Error::settings(why));
    }
    make_at(context, &next, &srk_name, &tpm, Some(&identity))
}

fn make_at(
    context: &mut Context,
    place: &Identity,
    srk_name: &str,
    tpm: &Identification,
    in_service: Option<&Identity>,
) -> Result<()> {
    let ek = context.tpm()?.ek_certificate()?;
    if let Err(why) = &ek {
        warn!("the request cannot prove that its key is in a TPM: {why}");
    }
    let entropy = Zeroizing::new(context.tpm()?.random(2 * secret::ENTROPY)?);
    let (for_user, for_officer) = entropy.split_at(entropy.len() / 2);
    let pins = Pins {
        user: in_service.map_or_else(|| Pin::generate(for_user), Identity::pin)?,
        officer: Pin::generate(for_officer)?,
    };
    let Context {
        places,
        connections,
        inputs,
        ..
    } = context;
    let settings = &inputs.as_ref().map_err(Clone::clone)?.settings;
    let mut plan = request::plan(settings, places, tpm.to_string(), ek);
    let mut generation = 0;
    if let Some(identity) = in_service {
        plan.in_service = identity.certificate()?.map(|chain| (identity, chain));
        generation = identity.generation()?.saturating_add(1);
    }
    let tpm = connections.tpm(places)?;
    place.make(&plan, tpm, srk_name, pins, generation)
}
