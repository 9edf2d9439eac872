//! What enrollment offers an identity.

use firstboot_formats::clock::Clock;
use firstboot_formats::public_key::PublicKey;
use firstboot_formats::record::Record;
use firstboot_formats::x509::Chain;

use super::context::Places;
use crate::enrollment::offline::{self, Wanted};
use crate::enrollment::{Offer, fleet};
use crate::error::Result;
use crate::identity::{Identity, OpenedReplies};
use crate::settings::{Method, Settings};

/// What enrollment offers beside the accepted certificate.
pub(super) fn offer(
    settings: &Settings,
    places: &Places,
    key: &PublicKey,
    record: &Record,
    accepted: Option<&Chain>,
) -> Result<Offer> {
    let Places { identity, boot, .. } = places;
    Ok(match (settings.enrollment.method, accepted) {
        (Method::Offline, _) => {
            let name = &settings.thing_name;
            offline(settings, places, identity, name, key, record, accepted)?
        }
        (Method::FleetProvisioning, None) => fleet::offer(settings, boot, identity, key),
        (Method::FleetProvisioning, Some(_)) => Offer::Pending("a newer certificate".into()),
    })
}

/// What the boot partition has for an identity, under this name.
pub(super) fn offline(
    settings: &Settings,
    places: &Places,
    identity: &Identity,
    file_name: &str,
    key: &PublicKey,
    record: &Record,
    accepted: Option<&Chain>,
) -> Result<Offer> {
    let clock = Clock::read();
    // If its certificate is gone, a reply is opened again; one that held a lesser certificate, as soon as the accepted
    // certificate is worthless.
    let opened = match accepted {
        Some(accepted) => identity.opened_replies(accepted)?,
        None => OpenedReplies::default(),
    };
    let in_force = |accepted: &Chain| {
        accepted.expired(clock).is_none() && accepted.is_of(&settings.thing_name)
    };
    let superseded = opened.superseded.filter(|_| accepted.is_some_and(in_force));
    let wanted = Wanted {
        thing_name: &settings.thing_name,
        file_name,
        key,
        evidence: record.evidence.as_ref(),
        issuers: &settings.enrollment.issuers,
        accepted,
        opened: opened.reply_sha256.as_deref(),
        superseded: superseded.as_ref(),
    };
    Ok(offline::offer(&places.boot, &wanted, clock))
}
