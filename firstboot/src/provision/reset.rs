//! The way back: discards an identity, and everything that was written for it.

use log::info;

use super::context::Places;
use super::request;
use crate::eap_tls;
use crate::enrollment::claim;
use crate::error::{Error, Result};
use crate::greengrass;
use crate::identity::{Contents, Identity};
use crate::settings::Edition;

/// Discards the identity, and removes what was written for it. What nobody would remove after the identity goes before
/// it: the kept claim pair, the next identity, the previous one, the networks' own key. A power cut until then leaves a
/// device in service, to be reset again; after that, the reset has happened, and the next start finishes it.
pub fn reset(places: &Places, keep_pin: bool) -> Result<()> {
    let Places {
        identity,
        next,
        previous,
        network,
        layout,
        ..
    } = places;
    let contents = |identity: &Identity| match identity.exists()? {
        true => identity.contents(),
        false => Ok(Contents::Nothing),
    };
    // Before anything is changed.
    if let Contents::Both(what) = contents(network)? {
        return Err(shared(&what));
    }
    let is_ours = match contents(identity)? {
        Contents::Nothing => {
            info!("there is no identity");
            false
        }
        Contents::Others(what) => {
            info!("there is no identity: {what}");
            false
        }
        Contents::Both(what) => return Err(shared(&what)),
        Contents::Ours => true,
    };
    claim::forget(layout)?;
    identity.remove_staging()?;
    // They have the same PIN, and nothing without the identity.
    if next.has_generation() {
        request::withdraw_next(places);
    }
    next.destroy()?;
    previous.destroy()?;
    request::withdraw_own(places);
    if network.destroy_if_ours()? {
        info!("the networks' own key was destroyed");
    }
    if is_ours {
        request::withdraw(places);
        let aside = identity.give_up(keep_pin)?;
        info!("the old identity was set aside as {}", aside.display());
        info!(
            "its PIN was {}",
            if keep_pin { "kept" } else { "destroyed" }
        );
    }
    for edition in Edition::ALL {
        if greengrass::is_ours(layout, edition) {
            greengrass::remove(layout, edition)?;
            info!("removed the configuration for {edition}");
        }
    }
    eap_tls::remove(layout)?;
    Ok(())
}

fn shared(what: &str) -> Error {
    Error::other(format!(
        "{what}: nothing was changed. Remove or move what is not firstboot's (`tpm2_ptool rmtoken`), then run \
         `firstboot reset` again"
    ))
}
