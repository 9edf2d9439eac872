//! The certificate request: signed again, published on the boot partition, withdrawn from it.

use firstboot_formats::digest::sha256;
use firstboot_formats::encoding::to_hex;
use firstboot_formats::public_key::PublicKey;
use firstboot_formats::record::{RECORD_VERSION, Record};
use firstboot_formats::thing_name::{check_thing_name, eap_name, next_name};
use firstboot_formats::x509::{Chain, Request};
use log::warn;

use super::context::{Context, Places};
use crate::board;
use crate::error::Result;
use crate::identity::{Identity, Plan};
use crate::settings::Settings;

/// Requests the certificate again, and withdraws a request under another name, so that nobody certifies that, too. The
/// boot partition comes first: while the identity has the old record, all of this is repeated after a power cut.
pub(super) fn renew(context: &mut Context, in_service: bool, record: &Record) -> Result<()> {
    let identity = context.places.identity.clone();
    renew_of(context, &identity, own_name, in_service, record)
}

/// The same for the networks' own key, without which a device can be in service.
pub(super) fn renew_own(context: &mut Context, record: &Record) -> Result<()> {
    let network = context.places.network.clone();
    renew_of(context, &network, eap_name, true, record)
}

fn renew_of(
    context: &mut Context,
    identity: &Identity,
    file_name: fn(&str) -> String,
    in_service: bool,
    record: &Record,
) -> Result<()> {
    let new = sign(context, identity, record)?;
    let [csr, text] = &new;
    let thing_name = context.settings()?.thing_name.clone();
    publish_as(context, in_service, &file_name(&thing_name), [csr, text])?;
    if record.thing_name != thing_name {
        withdraw_of(&context.places, identity, file_name);
    }
    identity.keep_request(&new)
}

/// Under which name the files of the device's own request are.
fn own_name(thing_name: &str) -> String {
    thing_name.to_owned()
}

/// Publishes a request and its record on the boot partition. If the device is in service, a card that cannot be written
/// is no reason to take it out of service.
pub(super) fn publish(
    context: &mut Context,
    in_service: bool,
    [request, record]: &[Vec<u8>; 2],
) -> Result<()> {
    let file_name = context.settings()?.thing_name.clone();
    publish_as(context, in_service, &file_name, [request, record])
}

/// The same under another name.
pub(super) fn publish_as(
    context: &mut Context,
    in_service: bool,
    file_name: &str,
    [request, record]: [&[u8]; 2],
) -> Result<()> {
    let boot = &context.places.boot;
    match boot.publish_request(file_name, [request, record]) {
        Err(e) if in_service => {
            warn!("{e}");
            context.memory.request_stays = Some(e.to_string());
            Ok(())
        }
        done => done,
    }
}

/// Whether a request and its record say what is wanted now.
pub(super) fn is_current(
    settings: &Settings,
    request: &Request,
    pem: &[u8],
    record: &Record,
    key: &PublicKey,
) -> bool {
    let wanted = settings.subject.with_common_name(&settings.thing_name);
    firstboot_formats::x509::name(&wanted).is_ok_and(|name| *request.subject() == name)
        && record.evidence.is_some()
        && record.thing_name == settings.thing_name
        && record.csr_sha256 == to_hex(&sha256(pem))
        && record.key_sha256 == key.fingerprint()
}

/// Removes this identity's request from the boot partition: it is no longer wanted. A card that cannot be written is no
/// reason to stop.
pub(super) fn withdraw(places: &Places) {
    withdraw_of(places, &places.identity, own_name);
}

/// The same for the next identity's.
pub(super) fn withdraw_next(places: &Places) {
    withdraw_of(places, &places.next, next_name);
}

/// The same for the request of the networks' own key.
pub(super) fn withdraw_own(places: &Places) {
    withdraw_of(places, &places.network, eap_name);
}

fn withdraw_of(places: &Places, identity: &Identity, file_name: fn(&str) -> String) {
    let Ok([request, record]) = identity.request_files() else {
        return;
    };
    let Ok(Record { thing_name, .. }) = serde_json::from_slice(&record) else {
        return;
    };
    // The name in a damaged record could be a path to anywhere.
    if check_thing_name(&thing_name).is_err() {
        return;
    }
    if let Err(e) = places
        .boot
        .withdraw_request(&file_name(&thing_name), [&request, &record])
    {
        warn!("cannot remove the old request from the boot partition: {e}");
    }
}

/// Signs another request: under the name that is wanted now, with what an older firstboot left out, or in place of a
/// damaged one.
fn sign(context: &mut Context, identity: &Identity, record: &Record) -> Result<[Vec<u8>; 2]> {
    let ek = match &record.evidence {
        Some(evidence) => evidence.ek_certificate.clone().ok_or_else(|| {
            let why = evidence.unattested.clone();
            why.unwrap_or_else(|| "this TPM had no EK certificate".into())
        }),
        // An older firstboot has made the request, or its record is lost.
        None => context.tpm()?.ek_certificate()?,
    };
    let tpm = if record.tpm.is_empty() {
        context.tpm()?.identification()?.to_string()
    } else {
        record.tpm.clone()
    };
    let Context {
        places,
        connections,
        inputs,
        ..
    } = context;
    let settings = &inputs.as_ref().map_err(Clone::clone)?.settings;
    let mut plan = plan(settings, places, tpm, ek);
    plan.key = record.key;
    plan.in_service = in_service(places, identity)?;
    identity.sign_request(&plan, connections.tpm(places)?)
}

/// The identity in service with its certificate, if there is one, to vouch for the key of another identity of the device.
pub(super) fn in_service<'a>(
    places: &'a Places,
    other: &Identity,
) -> Result<Option<(&'a Identity, Chain)>> {
    let identity = &places.identity;
    if identity.certificate_path() == other.certificate_path() {
        return Ok(None);
    }
    Ok(identity.certificate()?.map(|chain| (identity, chain)))
}

/// The contents of a request, before its key is known.
pub(super) fn plan<'a>(
    settings: &'a Settings,
    places: &Places,
    tpm: String,
    ek: std::result::Result<Vec<u8>, String>,
) -> Plan<'a> {
    Plan {
        key: settings.key,
        subject: settings.subject.with_common_name(&settings.thing_name),
        record: Record {
            version: RECORD_VERSION,
            thing_name: settings.thing_name.clone(),
            serial: board::serial(&places.layout).unwrap_or_default(),
            tpm,
            key: settings.key,
            key_sha256: String::new(),
            csr_sha256: String::new(),
            evidence: None,
            countersignature: None,
        },
        ek,
        in_service: None,
    }
}
