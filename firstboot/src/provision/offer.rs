//! What enrollment offers an identity.

use firstboot_formats::clock::Clock;
use firstboot_formats::public_key::PublicKey;
use firstboot_formats::record::Record;
use firstboot_formats::x509::Chain;

use super::context::Places;
use crate::enrollment::offline::{self, Wanted};
use crate::enrollment::{Offer, est, fleet};
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
    is_due: bool,
) -> Result<Offer> {
    let Places { identity, boot, .. } = places;
    let name = &settings.thing_name;
    Ok(match (settings.enrollment.method, accepted) {
        (Method::Offline, _) => offline(settings, places, identity, name, key, record, accepted)?,
        (_, Some(present)) if settings.renew.is_some() => {
            let card = offline(settings, places, identity, name, key, record, accepted)?;
            if is_due {
                successor(settings, places, identity, key, accepted, present, card)
            } else {
                card
            }
        }
        (Method::FleetProvisioning, None) => fleet::offer(settings, boot, identity, key),
        (Method::Est, None) => {
            let wanted = est::Wanted {
                key,
                thing_name: &settings.thing_name,
                which: est::Which::First {
                    csr_sha256: &record.csr_sha256,
                },
            };
            est::offer(settings, boot, identity, &wanted)
        }
        (Method::FleetProvisioning | Method::Est, Some(_)) => {
            Offer::Pending("a newer certificate".into())
        }
    })
}

/// What there is for a key in place of the certificate in service, which is due for renewal: what an operator has put
/// onto the boot partition, or else what the network has given, or can be asked for.
pub(super) fn successor(
    settings: &Settings,
    places: &Places,
    identity: &Identity,
    key: &PublicKey,
    accepted: Option<&Chain>,
    present: &Chain,
    card: Offer,
) -> Offer {
    if matches!(card, Offer::Certificate(..) | Offer::Reply(_)) {
        return card;
    }
    let network = match settings.enrollment.method {
        Method::Offline => return card,
        Method::FleetProvisioning => fleet::successor(settings, identity, key, present),
        Method::Est => {
            let wanted = est::Wanted {
                key,
                thing_name: &settings.thing_name,
                which: est::Which::InPlaceOf(present),
            };
            est::offer(settings, &places.boot, identity, &wanted)
        }
    };
    match network {
        Offer::Certificate(chain, _) if accepted == Some(&chain) => card,
        Offer::Pending(why) => match card {
            Offer::Pending(_) => Offer::Pending(why),
            card => card,
        },
        network => network,
    }
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
