//! The thing's name: the one that is wanted, the one that a certificate is for, and the one that AWS IoT Core has
//! registered.

use firstboot_formats::x509::Chain;

use super::context::Context;
use crate::error::Result;
use crate::identity::Identity;
use crate::settings::Settings;

/// The name under which a certificate is in service: the one that AWS IoT Core has registered, or else the one in the
/// certificate. If the certificate names none, it is for the wanted one.
pub(super) fn in_service(
    settings: &Settings,
    identity: &Identity,
    chain: &Chain,
) -> Result<String> {
    let registered = registered(settings, identity, Some(chain))?;
    Ok(registered
        .or_else(|| chain.thing_name())
        .unwrap_or_else(|| settings.thing_name.clone()))
}

/// The name that the certificate is for, if the thing is now to have another one.
pub(super) fn outdated(
    settings: &Settings,
    identity: &Identity,
    chain: &Chain,
) -> Result<Option<String>> {
    if registered(settings, identity, Some(chain))?.is_some() {
        return Ok(None);
    }
    Ok(chain
        .thing_name()
        .filter(|name| *name != settings.thing_name))
}

/// The known name: the certificate's, or else the wanted one, or else the request's.
pub fn known(context: &Context) -> Option<String> {
    let identity = &context.places.identity;
    let certificate = identity.certificate().ok().flatten();
    let named = match (&certificate, context.wanted()) {
        (Some(chain), Ok(settings)) => in_service(settings, identity, chain).ok(),
        (Some(chain), Err(_)) => chain.thing_name(),
        (None, Ok(settings)) => Some(match registered(settings, identity, None) {
            Ok(Some(name)) => name,
            _ => settings.thing_name.clone(),
        }),
        (None, Err(_)) => None,
    };
    named.or_else(|| identity.record().map(|record| record.thing_name))
}

/// The name that the template has made, if this is the registered certificate. With fleet provisioning there is no
/// other.
fn registered(
    settings: &Settings,
    identity: &Identity,
    chain: Option<&Chain>,
) -> Result<Option<String>> {
    let registration = if settings.enrollment.is_fleet() {
        identity.registration()?
    } else {
        let kept = identity.registration().ok().flatten();
        kept.filter(|kept| chain.is_some_and(|chain| kept.is_of(chain)))
    };
    Ok(registration.map(|registration| registration.thing_name))
}
