//! How the device gets its certificates, when the next one is due, and which are refused.

use std::path::PathBuf;

use firstboot_formats::card::MAX_CERTIFICATE;
use firstboot_formats::clock::{Clock, rfc3339};
use firstboot_formats::record::Record;
use firstboot_formats::text;
use firstboot_formats::thing_name::next_name;
use firstboot_formats::x509::Chain;
use serde_json::{Value, json};

use crate::enrollment::est::{self, Which};
use crate::enrollment::{Offer, Refusal};
use crate::identity::{Identity, Trial};
use crate::provision::{Complete, Context, Next, OwnKey, Places};
use crate::settings::{Method, Settings};

/// How the device gets its certificate, and how far that has got. Never the ownership token itself.
pub(super) fn enrollment(places: &Places, settings: &Settings) -> Value {
    let wanted = &settings.enrollment;
    let mut report = json!({ "method": wanted.method });
    if wanted.method == Method::Est {
        report["server"] = json!(wanted.est.server);
        if let (Ok(None), Some(record)) = (places.identity.certificate(), places.identity.record())
        {
            let csr_sha256 = &record.csr_sha256;
            let which = Which::First { csr_sha256 };
            let again = est_retry_after((settings, places), which, &places.identity, &record);
            if let Some(again) = again {
                report["retry_after"] = json!(again);
            }
        }
    }
    if wanted.is_fleet() {
        report["template_name"] = json!(wanted.template_name);
        report["ownership_token"] = json!(if places.identity.has_ownership() {
            "kept"
        } else {
            "none"
        });
        if let Ok(Some(registration)) = places.identity.registration() {
            report["registered_thing_name"] = json!(registration.thing_name);
            if registration.thing_name_is_assumed {
                report["thing_name_is_assumed"] = json!(true);
            }
            report["certificate_id"] = json!(registration.certificate_id);
        }
    }
    if wanted.is_by_network() {
        report["claim_on_boot_partition"] = json!(!places.boot.claim_files().is_empty());
    }
    report
}

/// The certificates that are there and refused: by the device, or by AWS IoT Core.
pub(super) fn refused(context: &Context, identity: &Complete) -> Vec<Refusal> {
    let in_service = match (&identity.certificate, &identity.probation) {
        (Some(chain), Some(probation)) if probation.is_refused => Some(untrusted(
            context,
            &context.places.identity,
            &identity.record.thing_name,
            chain,
        )),
        _ => None,
    };
    let for_networks = match &identity.own_key {
        OwnKey::Made(made) => judged(context, &made.offer),
        _ => None,
    };
    let successors = refused_successors(context, identity);
    in_service
        .into_iter()
        .chain(successors)
        .chain(for_networks)
        .collect()
}

/// Those that would take the place of the one in service.
fn refused_successors(context: &Context, identity: &Complete) -> Vec<Refusal> {
    let (places, name) = (&context.places, &identity.record.thing_name);
    let judged = |offer| judged(context, offer);
    let untrusted = |holder, name: &str, chain| untrusted(context, holder, name, chain);
    let own = judged(&identity.offer).or_else(|| match &identity.offer {
        Offer::Certificate(chain, _) if identity.offer_trial == Some(Trial::Refused) => {
            Some(untrusted(&places.identity, name, chain))
        }
        _ => None,
    });
    let next = match &identity.next {
        Next::Candidate(next) => judged(&next.offer).or_else(|| match &next.certificate {
            Some(chain) if next.trial == Some(Trial::Refused) => {
                Some(untrusted(&places.next, &next_name(name), chain))
            }
            _ => None,
        }),
        _ => None,
    };
    own.into_iter().chain(next).collect()
}

fn judged(context: &Context, offer: &Offer) -> Option<Refusal> {
    match context.memory.judge(offer).into_owned() {
        Offer::Refused(refusal) => Some(refusal),
        _ => None,
    }
}

fn untrusted(context: &Context, holder: &Identity, name: &str, chain: &Chain) -> Refusal {
    Refusal {
        path: file_with(context, holder, name, chain),
        reason: "AWS IoT Core did not accept a connection with it".into(),
    }
}

/// Where a certificate for this identity is: where an operator has saved it, or where the identity keeps it.
fn file_with(context: &Context, holder: &Identity, name: &str, chain: &Chain) -> PathBuf {
    let on_card = context.places.boot.certificate_path(name);
    // The issuers in the file may be others.
    let is_it = |pem: &[u8]| {
        let found = Chain::parse(pem, &chain.key(), &[]);
        found.is_ok_and(|found| found.fingerprint() == chain.fingerprint())
    };
    if matches!(text::read(&on_card, MAX_CERTIFICATE), Ok(Some(pem)) if is_it(&pem)) {
        return on_card;
    }
    match context.wanted() {
        Ok(settings) if holder.certificate().ok().flatten().as_ref() != Some(chain) => {
            match settings.enrollment.method {
                Method::Offline => on_card,
                Method::FleetProvisioning => holder.registration_path(),
                Method::Est => holder.est_path(),
            }
        }
        _ => holder.certificate_path(),
    }
}

/// The moment (RFC 3339) before which the EST server is not asked again for this certificate, for which the identity has
/// made the request with this record.
fn est_retry_after(
    (settings, places): (&Settings, &Places),
    which: Which<'_>,
    identity: &Identity,
    record: &Record,
) -> Option<String> {
    let note = which.noted(identity, &record.key_sha256);
    est::again_after(settings, &places.boot, &note, Clock::read().now).map(rfc3339)
}

/// Until when the certificate is valid, when the next one is to come, and what came of asking for one.
pub(super) fn renewal(
    context: &Context,
    identity: &Complete,
    accepted: &Chain,
    valid_until: &str,
) -> Value {
    let renewal = &identity.renewal;
    let mut report = json!({ "valid_until": valid_until });
    if let Some(due_from) = &renewal.due_from {
        report["due_from"] = json!(due_from);
        report["due"] = json!(renewal.due.is_some());
    }
    if let Some(asked) = &renewal.asked {
        let result = if renewal.is_asked_for {
            match refused_successors(context, identity).is_empty() {
                true => "waiting",
                false => "refused",
            }
        } else {
            match &identity.probation {
                None => "renewed",
                Some(probation) if probation.is_refused => "refused",
                Some(_) => "untried",
            }
        };
        report["last_request"] = json!({ "time": asked.time, "result": result });
    }
    if renewal.due.is_some()
        && let Ok(settings) = context.wanted()
        && settings.enrollment.method == Method::Est
    {
        let places = &context.places;
        let (holder, record) = match &identity.next {
            Next::Candidate(next) => (&places.next, &next.record),
            _ => (&places.identity, &identity.record),
        };
        let which = Which::InPlaceOf(accepted);
        if let Some(again) = est_retry_after((settings, places), which, holder, record) {
            report["retry_after"] = json!(again);
        }
    }
    report
}
