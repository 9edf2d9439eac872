//! The networks that ask who the device is, and what each waits for.

use serde_json::{Value, json};

use crate::provision::{self, Complete, Context, IdentityState, OwnKey, Survey};
use crate::settings::{EapTls, Method, NetworkKey, Settings};

/// The networks that ask who the device is, and what each waits for. Nothing, where it is not known what the device has
/// for them.
pub(super) fn networks(
    context: &Context,
    settings: &Settings,
    survey: Option<&Survey>,
) -> Vec<Value> {
    let identity = match survey.map(|survey| &survey.identity) {
        Some(IdentityState::Complete(identity)) => Some(identity),
        Some(IdentityState::Absent) => None,
        _ => return Vec::new(),
    };
    let is_enrolled = identity.is_some_and(|identity| identity.certificate.is_some());
    let own_key = identity.map_or(&OwnKey::Absent, |identity| &identity.own_key);
    let describe = |entry: &EapTls| {
        let awaited = match entry.key {
            NetworkKey::Same => (!is_enrolled).then(|| waiting_for(settings).to_owned()),
            NetworkKey::Own => own_key.awaited(&context.memory),
        };
        let (state, reason) = match (awaited, identity) {
            (None, Some(identity)) => network(context, identity, entry),
            (awaited, _) => ("waiting", awaited),
        };
        let mut network = json!({ "interface": entry.interface, "state": state });
        if entry.is_wifi() {
            network["ssid"] = json!(entry.ssid);
        }
        if entry.key == NetworkKey::Own {
            network["key"] = json!(entry.key);
        }
        if let Some(reason) = reason {
            network["reason"] = json!(reason);
        }
        network
    };
    settings.network.eap_tls.iter().map(describe).collect()
}

/// How a network stands, once there is a certificate to show it; and why.
fn network(
    context: &Context,
    identity: &Complete,
    entry: &EapTls,
) -> (&'static str, Option<String>) {
    let found = &identity.network;
    let mut taken = found.taken.iter();
    if let Some(taken) = taken.find(|taken| taken.interface == entry.interface) {
        let path = taken.path.display();
        return (
            "taken",
            Some(format!("{path} was written by somebody else")),
        );
    }
    match provision::network_trouble(found, &context.memory) {
        Some(why) => ("trouble", Some(why.to_owned())),
        None if found.differs => ("to be written", None),
        None => ("configured", None),
    }
}

/// What has to come before a network.
fn waiting_for(settings: &Settings) -> &'static str {
    match settings.enrollment.method {
        Method::Offline => "needs the device's certificate",
        _ => {
            "needs the device's certificate, which it cannot fetch over this network: until then, connect it to one \
             that lets everybody in, or enroll it offline"
        }
    }
}
