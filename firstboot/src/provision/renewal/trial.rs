//! Does AWS IoT Core accept a new certificate? It is asked before the certificate is put into service, beside a running
//! Greengrass: a connection with the certificate and its key.
//!
//! A refusal counts only if AWS IoT Core accepts what would stay in service: otherwise it says nothing about the new
//! certificate. If nobody answers, nothing changes while the present certificate is good. Once that one is near its end,
//! a certificate goes into service untried, on probation: it is tried as soon as somebody answers, and a refusal then
//! leads back to what was in service before.

use firstboot_formats::clock::Clock;
use firstboot_formats::x509::Chain;
use log::{info, warn};

use super::due::Renewal;
use super::next_key::Previous;
use super::{Tried, kind_of};
use crate::enrollment::fleet;
use crate::error::Result;
use crate::identity::{Identity, Trial};
use crate::provision::context::{Context, Places};
use crate::provision::inputs::Inputs;
use crate::provision::names;
use crate::provision::open_reply::Acceptance;
use crate::settings::Settings;
use crate::token::OpenKey;

/// The certificate in service has not been accepted by AWS IoT Core so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probation {
    /// What there is to go back to.
    pub back: Back,
    /// AWS IoT Core refuses it.
    pub is_refused: bool,
}

/// What was in service before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Back {
    /// A certificate for the same key.
    Certificate(Box<Chain>),
    /// The previous identity.
    Identity {
        /// It could not be put into service again.
        has_failed: bool,
    },
}

/// Looks whether the accepted certificate is on probation, and there is a way back.
pub(in crate::provision) fn probation(
    settings: &Settings,
    places: &Places,
    accepted: &Chain,
    previous: Previous,
) -> Option<Probation> {
    let identity = &places.identity;
    if !identity.is_on_probation(accepted) {
        return None;
    }
    let clock = Clock::read();
    let is_good =
        |chain: &Chain| chain.expired(clock).is_none() && chain.is_of(&settings.thing_name);
    let former = identity
        .former()
        .filter(|former| former.is_for(&accepted.key()) && former != accepted);
    let back = match former {
        Some(former) if is_good(&former) => Back::Certificate(Box::new(former)),
        _ if !previous.is_usable() => return None,
        _ => {
            let certificate = places.previous.certificate().ok().flatten();
            let certificate = certificate.filter(is_good)?;
            let has_failed = places.previous.trial(&certificate) == Some(Trial::Failed);
            Back::Identity { has_failed }
        }
    };
    Some(Probation {
        back,
        is_refused: identity.trial(accepted) == Some(Trial::Refused),
    })
}

/// Tries a certificate, and notes what came of it.
pub(super) fn take(context: &mut Context, which: Tried, chain: &Chain) -> Result<()> {
    let Places {
        identity,
        next,
        previous,
        ..
    } = &context.places;
    let holder = match which {
        Tried::Next => next,
        Tried::Offered | Tried::InService => identity,
    };
    let stays = match which {
        Tried::Offered | Tried::Next => Some(identity).zip(identity.certificate()?),
        Tried::InService => match identity.former().filter(|c| c.is_for(&chain.key())) {
            Some(former) => Some((identity, former)),
            None => Some(previous).zip(previous.certificate()?),
        },
    };
    let key = holder.prove(chain)?;
    let (mut result, why) = attempt(context, chain, key, stays);
    // A refusal stands until there is another answer.
    if result == Trial::Unanswered && holder.trial(chain) == Some(Trial::Refused) {
        result = Trial::Refused;
    }
    match (which, result) {
        (Tried::InService, Trial::Accepted) => identity.end_probation()?,
        (Tried::InService, Trial::Unanswered) => {}
        _ => holder.note_trial(chain, result)?,
    }
    match result {
        Trial::Accepted => info!("{why}"),
        _ => warn!("{why}"),
    }
    context.memory.note_tried(chain, why);
    Ok(())
}

/// What comes of connecting, and why.
fn attempt(
    context: &Context,
    chain: &Chain,
    key: OpenKey,
    stays: Option<(&Identity, Chain)>,
) -> (Trial, String) {
    match connects(context, chain, key) {
        Ok((true, host)) => (Trial::Accepted, format!("{host} accepts the certificate")),
        Err(e) => (
            Trial::Unanswered,
            format!("the certificate could not be tried: {e}"),
        ),
        Ok((false, host)) => {
            let control = stays.map(|(holder, chain)| {
                let key = holder.open_key()?;
                connects(context, &chain, key)
            });
            match control {
                Some(Ok((true, _))) => (
                    Trial::Refused,
                    format!(
                        "{host} does not accept a connection with it. It has to be registered and active, with a policy \
                         that lets the thing connect"
                    ),
                ),
                Some(Err(e)) => (
                    Trial::Unanswered,
                    format!("the certificate could not be tried: {e}"),
                ),
                _ => (
                    Trial::Unanswered,
                    format!(
                        "{host} accepts a connection neither with it nor with the one that it replaces: are they registered \
                         and active, and may the thing connect with a client ID that begins with its name?"
                    ),
                ),
            }
        }
    }
}

/// Whether the endpoint accepts a connection; and which one that is.
fn connects<'a>(context: &'a Context, chain: &Chain, key: OpenKey) -> Result<(bool, &'a str)> {
    let Inputs {
        settings, root_ca, ..
    } = context.inputs()?;
    let kind = kind_of(chain)?;
    let host = settings.greengrass.iot_data_endpoint.as_str();
    info!("connecting to {host} with {}", chain.describe());
    let identity = &context.places.identity;
    let thing_name = match identity.certificate()? {
        Some(present) => names::in_service(settings, identity, &present)?,
        None => settings.thing_name.clone(),
    };
    let client_id = fleet::beside_greengrass(&thing_name);
    let accepts = fleet::is_active(settings, root_ca, &client_id, chain, (key, kind))?;
    Ok((accepts, host))
}

/// Accepts a certificate that nobody has tried, in place of one that is near its end.
pub(super) fn accept_untried(identity: &Identity, chain: &Chain) -> Result<()> {
    let accepted = identity.certificate()?;
    // One that is on probation itself is not what to go back to. After a power cut between the two writes below, the
    // new one's probation is noted in place of its own.
    let is_known = |chain: &Chain| identity.is_on_probation(chain) && identity.former().is_some();
    let former = accepted.filter(|accepted| !(is_known(accepted) || is_known(chain)));
    identity.begin_probation(chain, former.as_ref())?;
    identity.accept(chain)
}

/// Tries a certificate that came in a reply, and accepts it if it may be: in place of one of this age. Whatever keeps it
/// from being tried, such as a full disk, says nothing about it.
pub(in crate::provision) fn try_opened(
    context: &mut Context,
    renewal: &Renewal,
    chain: &Chain,
) -> Result<Acceptance> {
    if let Err(e) = take(context, Tried::Offered, chain) {
        return Ok(Acceptance::Unanswered(e.to_string()));
    }
    let identity = &context.places.identity;
    let why = || context.memory.tried(chain).unwrap_or_default().to_owned();
    match identity.trial(chain) {
        Some(Trial::Accepted) => identity.accept(chain)?,
        Some(Trial::Unanswered) if renewal.is_urgent() => accept_untried(identity, chain)?,
        Some(Trial::Unanswered) => return Ok(Acceptance::Unanswered(why())),
        _ => return Ok(Acceptance::Refused(why())),
    }
    Ok(Acceptance::Accepted)
}
