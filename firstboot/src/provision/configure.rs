//! Greengrass's configuration: whether it is what it should be, and the step that writes it.

use firstboot_formats::x509::Chain;

use super::context::{Context, Places};
use super::inputs::Inputs;
use super::names;
use crate::error::{Error, Result};
use crate::greengrass::{self, Facts};

/// Whether the configuration for this certificate, in that slot of the token, is written as it should be.
pub(super) fn is_written(
    inputs: &Inputs,
    places: &Places,
    chain: &Chain,
    slot: u64,
) -> Result<bool> {
    with_facts(inputs, places, chain, slot, |facts| {
        Ok(facts.configured.as_ref() == Some(&facts.mark())
            && greengrass::is_written(&places.layout, facts)?)
    })
}

/// Writes it, and notes as what the identity is configured.
pub(super) fn write(context: &Context, chain: &Chain) -> Result<()> {
    let Places {
        identity, layout, ..
    } = &context.places;
    let slot = identity
        .verified()
        .ok_or_else(|| Error::other("the token changed meanwhile"))?
        .slot;
    with_facts(context.inputs()?, &context.places, chain, slot, |facts| {
        greengrass::write(layout, facts)?;
        identity.keep_configured(&facts.mark())
    })
}

/// Calls `work` with everything that a configuration is made of.
fn with_facts<T>(
    inputs: &Inputs,
    places: &Places,
    chain: &Chain,
    slot: u64,
    work: impl FnOnce(&Facts<'_>) -> Result<T>,
) -> Result<T> {
    let certificate = chain.pem();
    let Inputs {
        settings, root_ca, ..
    } = inputs;
    let identity = &places.identity;
    work(&Facts {
        settings: &settings.greengrass,
        platform: &settings.platform,
        thing_name: &names::in_service(settings, identity, chain)?,
        slot,
        pin: &identity.pin()?,
        certificate: &certificate,
        root_ca,
        configured: identity.configured(),
    })
}
