//! Greengrass's configuration: whether it is what it should be, and the step that writes it.

use firstboot_formats::x509::Chain;

use super::context::{Context, Places};
use super::inputs::Inputs;
use super::names;
use crate::error::{Error, Result};
use crate::greengrass::{self, ConfigValues};

/// Whether the configuration for this certificate is written as it should be. `slot` is the token's, if the edition
/// reads the certificate there.
pub(super) fn is_written(
    inputs: &Inputs,
    places: &Places,
    chain: &Chain,
    slot: Option<u64>,
) -> Result<bool> {
    with_values(inputs, places, chain, slot, |values| {
        Ok(values.configured.as_ref() == Some(&values.mark())
            && greengrass::is_written(&places.layout, values)?)
    })
}

/// Writes it, and notes what the identity is configured as.
pub(super) fn write(context: &Context, chain: &Chain) -> Result<()> {
    let Places {
        identity, layout, ..
    } = &context.places;
    let inputs = context.inputs()?;
    let slot = if greengrass::reads_token_certificate(inputs.settings.greengrass.edition) {
        let verified = identity.verified();
        Some(
            verified
                .ok_or_else(|| Error::other("the token has changed in the meantime"))?
                .slot,
        )
    } else {
        None
    };
    with_values(inputs, &context.places, chain, slot, |values| {
        greengrass::write(layout, values)?;
        identity.keep_configured(&values.mark())
    })
}

/// Calls `work` with the values of the configuration.
fn with_values<T>(
    inputs: &Inputs,
    places: &Places,
    chain: &Chain,
    slot: Option<u64>,
    work: impl FnOnce(&ConfigValues<'_>) -> Result<T>,
) -> Result<T> {
    let certificate = chain.pem();
    let Inputs {
        settings, root_ca, ..
    } = inputs;
    let identity = &places.identity;
    work(&ConfigValues {
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
