//! The certificate request: signed again, published on the boot partition, withdrawn from it.

use firstboot_formats::record::{RECORD_VERSION, Record};
use firstboot_formats::thing_name::check_thing_name;
use log::warn;

use super::context::{Context, Places};
use crate::board;
use crate::error::Result;
use crate::identity::Plan;
use crate::settings::Settings;

/// Requests the certificate again, and withdraws a request under another name, so that nobody certifies that, too. The
/// boot partition comes first: while the identity has the old record, all of this is repeated after a power cut.
pub(super) fn renew(context: &mut Context, in_service: bool, record: &Record) -> Result<()> {
    let new = sign(context, record)?;
    publish(context, in_service, &new)?;
    if record.thing_name != context.settings()?.thing_name {
        withdraw(&context.places);
    }
    context.places.identity.keep_request(&new)
}

/// Publishes a request and its record on the boot partition. If the device is in service, a card that cannot be written
/// is no reason to take it out of service.
pub(super) fn publish(
    context: &mut Context,
    in_service: bool,
    [request, record]: &[Vec<u8>; 2],
) -> Result<()> {
    let boot = &context.places.boot;
    match boot.publish_request(&context.settings()?.thing_name, [request, record]) {
        Err(e) if in_service => {
            warn!("{e}");
            context.memory.request_stays = Some(e.to_string());
            Ok(())
        }
        done => done,
    }
}

/// Removes this identity's request from the boot partition: it is no longer wanted. A card that cannot be written is no
/// reason to stop.
pub(super) fn withdraw(places: &Places) {
    let Ok([request, record]) = places.identity.request_files() else {
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
        .withdraw_request(&thing_name, [&request, &record])
    {
        warn!("cannot remove the old request from the boot partition: {e}");
    }
}

/// Signs another request: under the name that is wanted now, with what an older firstboot left out, or in place of a
/// damaged one.
fn sign(context: &mut Context, record: &Record) -> Result<[Vec<u8>; 2]> {
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
    let mut plan = plan(context.settings()?, &context.places, tpm, ek);
    plan.key = record.key;
    context.places.identity.sign_request(&plan)
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
    }
}
