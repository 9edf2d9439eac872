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
    make_at(context, &identity, &srk_name, tpm, Role::First)
}

/// Makes the identity with the next key, with the PIN of the one in service and below the same storage root key. The key
/// in service signs its request, too.
pub(super) fn make_next(context: &mut Context) -> Result<()> {
    let Places { identity, next, .. } = &context.places;
    let (identity, next) = (identity.clone(), next.clone());
    identity.refuse_other_tokens()?;
    make_beside(context, &next, &identity, Role::Next(&identity))
}

/// Makes the identity with the networks' own key, with a PIN of its own and below the same storage root key. If the
/// device's key has a certificate, it signs the request, too.
pub(super) fn make_for_networks(context: &mut Context) -> Result<()> {
    let Places {
        identity, network, ..
    } = &context.places;
    let (identity, network) = (identity.clone(), network.clone());
    make_beside(context, &network, &identity, Role::Network(&identity))
}

/// What an identity is made for.
#[derive(Clone, Copy)]
enum Role<'a> {
    /// The device.
    First,
    /// To take this one's place.
    Next(&'a Identity),
    /// Networks, beside this one.
    Network(&'a Identity),
}

fn make_beside(
    context: &mut Context,
    place: &Identity,
    identity: &Identity,
    role: Role<'_>,
) -> Result<()> {
    let srk_name = identity.srk_name()?;
    let tpm = context.tpm()?.identification()?;
    if let Some(why) = tpm.weak_key(context.settings()?.key) {
        return Err(Error::settings(why));
    }
    make_at(context, place, &srk_name, &tpm, role)
}

fn make_at(
    context: &mut Context,
    place: &Identity,
    srk_name: &str,
    tpm: &Identification,
    role: Role<'_>,
) -> Result<()> {
    let ek = context.tpm()?.ek_certificate()?;
    if let Err(why) = &ek {
        warn!("the request cannot prove that its key is in a TPM: {why}");
    }
    let entropy = Zeroizing::new(context.tpm()?.random(2 * secret::ENTROPY)?);
    let (for_user, for_officer) = entropy.split_at(entropy.len() / 2);
    let pins = Pins {
        user: match role {
            Role::Next(identity) => identity.pin()?,
            Role::First | Role::Network(_) => Pin::generate(for_user)?,
        },
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
    if let Role::Next(identity) | Role::Network(identity) = role {
        plan.in_service = identity.certificate()?.map(|chain| (identity, chain));
    }
    let generation = match role {
        Role::Next(identity) => identity.generation()?.saturating_add(1),
        Role::First | Role::Network(_) => 0,
    };
    let tpm = connections.tpm(places)?;
    place.make(&plan, tpm, srk_name, pins, generation)
}
