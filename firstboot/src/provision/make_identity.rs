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
/// in service signs the request, too, if it has a certificate.
pub(super) fn make_next(context: &mut Context) -> Result<()> {
    let Places { identity, next, .. } = &context.places;
    identity.refuse_other_tokens()?;
    let next = next.clone();
    make_beside(context, &next, Role::Next)
}

/// Makes the identity with the networks' own key, with a PIN of its own and below the same storage root key. If the
/// device's key has a certificate, it signs the request, too.
pub(super) fn make_for_networks(context: &mut Context) -> Result<()> {
    let network = context.places.network.clone();
    make_beside(context, &network, Role::Network)
}

/// What an identity is made for.
#[derive(Clone, Copy)]
enum Role {
    /// The device.
    First,
    /// To take the place of the one in service.
    Next,
    /// Networks, beside the one in service.
    Network,
}

fn make_beside(context: &mut Context, place: &Identity, role: Role) -> Result<()> {
    let srk_name = context.places.identity.srk_name()?;
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
    role: Role,
) -> Result<()> {
    let ek = context.tpm()?.ek_certificate()?;
    if let Err(why) = &ek {
        warn!("the request cannot prove that its key is in a TPM: {why}");
    }
    let entropy = Zeroizing::new(context.tpm()?.random(2 * secret::ENTROPY)?);
    let (for_user, for_officer) = entropy.split_at(entropy.len() / 2);
    let pins = Pins {
        user: match role {
            Role::Next => context.places.identity.pin()?,
            Role::First | Role::Network => Pin::generate(for_user)?,
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
    plan.in_service = request::in_service(places, place)?;
    let generation = match role {
        Role::Next => places.identity.generation()?.saturating_add(1),
        Role::First | Role::Network => 0,
    };
    let tpm = connections.tpm(places)?;
    place.make(&plan, tpm, srk_name, pins, generation)
}
