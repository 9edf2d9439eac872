//! Who may do what: the policies that AWS IoT attaches to claim and device certificates.
//!
//! Source: AWS IoT Core developer guide, "Provisioning by claim" (the claim's policy), "Thing policy variables"
//! (`${iot:Connection.Thing.ThingName}` in a device's); Greengrass developer guide, "Minimal AWS IoT policy for core
//! devices" (client IDs that begin with the thing's name). Whether a device's certificate can be allowed
//! what a claim is, AWS does not say: a test chooses.

use super::event_log::Who;
use super::link::Verdict;
use super::misbehaviour::Call;
use super::topics;

/// What devices may do to get another certificate with the one that they have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Renewing {
    /// Nothing: their subscription is refused.
    #[default]
    Never,
    /// They may subscribe; this call closes the connection.
    Closed(Call),
    /// They may subscribe; this call is rejected.
    Rejected(Call),
    /// What a claim may.
    Allowed,
}

/// Under which client IDs a device may connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientIds {
    /// All that begin with its thing's name, as AWS recommends for core devices.
    #[default]
    Beginning,
    /// Its thing's name alone, as AWS recommends for other devices: with thing policy variables.
    Own,
}

/// The longest client ID, bytes (AWS IoT Core limits).
const MAX_CLIENT_ID: usize = 128;

pub fn may_connect(who: &Who, client: &str, allowed: ClientIds) -> Verdict {
    let sensible = (1..=MAX_CLIENT_ID).contains(&client.len());
    match who {
        Who::Claim if sensible => Verdict::GoOn,
        Who::Device { thing, .. } if sensible && allowed.include(client, thing) => Verdict::GoOn,
        // AWS closes the connection of an inactive certificate without an answer.
        Who::NotActive { .. } | Who::Unknown => Verdict::Close,
        Who::Claim | Who::Device { .. } => Verdict::Refuse,
    }
}

/// A PUBLISH that is not allowed closes the connection, as at AWS.
pub fn may_publish(who: &Who, topic: &str, renewing: Renewing) -> Verdict {
    let call = topics::call(topic);
    let allowed = match who {
        Who::Claim => call.is_some(),
        Who::Device { thing, .. } => {
            is_of(thing, topic)
                || call.is_some_and(|call| match renewing {
                    Renewing::Never => false,
                    Renewing::Closed(closed) => call != closed,
                    Renewing::Rejected(_) | Renewing::Allowed => true,
                })
        }
        Who::NotActive { .. } | Who::Unknown => false,
    };
    if allowed {
        Verdict::GoOn
    } else {
        Verdict::Close
    }
}

/// A SUBSCRIBE that is not allowed gets 0x80.
pub fn may_subscribe(who: &Who, filter: &str, renewing: Renewing) -> Verdict {
    let request = filter
        .strip_suffix("/accepted")
        .or_else(|| filter.strip_suffix("/rejected"))
        .or_else(|| filter.strip_suffix("/+"));
    let allowed = match (who, request) {
        (Who::Claim, Some(topic)) => topics::call(topic).is_some(),
        (Who::Device { thing, .. }, _) if is_of(thing, filter) => true,
        (Who::Device { .. }, Some(topic)) => {
            renewing != Renewing::Never && topics::call(topic).is_some()
        }
        _ => false,
    };
    if allowed {
        Verdict::GoOn
    } else {
        Verdict::Refuse
    }
}

impl ClientIds {
    fn include(self, client: &str, thing: &str) -> bool {
        match self {
            Self::Beginning => client.starts_with(thing),
            Self::Own => client == thing,
        }
    }
}

fn is_of(thing: &str, topic: &str) -> bool {
    [format!("$aws/things/{thing}/"), format!("devices/{thing}/")]
        .iter()
        .any(|prefix| topic.starts_with(prefix))
}
