//! What people are shown: `firstboot status`, `firstboot tpm`, and the same as JSON.
//!
//! Each is one JSON object, and the text is rendered from it: both forms have the same content. Names are stable; new
//! ones may be added.

use std::path::{Path, PathBuf};

use firstboot_formats::card::MAX_CERTIFICATE;
use firstboot_formats::clock::{Clock, rfc3339};
use firstboot_formats::encoding::to_hex;
use firstboot_formats::output;
use firstboot_formats::record::Record;
use firstboot_formats::text;
use firstboot_formats::thing_name::next_name;
use firstboot_formats::x509::Chain;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::enrollment::est::{self, Which};
use crate::enrollment::{Offer, Refusal};
use crate::error::Result;
use crate::greengrass;
use crate::identity::{Identity, Trial};
use crate::layout::{IDENTITY, Layout};
use crate::provision::{
    self, Complete, Context, IdentityState, Next, OwnKey, Places, State, Step, Survey,
};
use crate::settings::{EapTls, Method, NetworkKey, Settings};
use crate::tpm::Tpm;

/// The version of `firstboot status --json` and `status.json`. Changed names make a new version; additional names do
/// not.
const VERSION: u32 = 1;

/// What is there, and what is next. Never fails: it names what it cannot look at.
pub fn status(layout: Layout, tcti: Option<&str>) -> Value {
    let mut context = Context::open(layout, tcti);
    let mut report = match Survey::take(&mut context, None) {
        Ok(survey) => describe(&context, &survey),
        Err(e) => {
            let mut report = summary(&context, None, State::Error);
            report["next"] = json!(e.to_string());
            report
        }
    };
    add(
        &mut report,
        "obstacles",
        obstacles(&context.places.layout, tcti),
    );
    report
}

/// Reports on the boot partition how things stand, from the last survey.
pub fn publish(context: &Context, survey: Option<&Survey>, state: State, message: &str) {
    let mut status = summary(context, survey, state);
    status["message"] = json!(message);
    context.places.boot.publish_status(&status);
}

/// What both the command and the file on the boot partition say.
fn summary(context: &Context, survey: Option<&Survey>, state: State) -> Value {
    let settings = context.wanted().ok();
    let mut report = json!({
        "version": VERSION,
        "firstboot": env!("CARGO_PKG_VERSION"),
        "thing_name": provision::thing_name(context),
        "state": state,
        "in_service": survey.is_some_and(|survey| survey.is_enrolled() && is_service(state)),
    });
    if let Some(settings) = settings {
        report["enrollment"] = enrollment(&context.places, settings);
        add(&mut report, "networks", networks(context, settings, survey));
    }
    let remarks = settings
        .map(|settings| settings.remarks.clone())
        .unwrap_or_default();
    let tpm = survey.and_then(|survey| survey.tpm.as_ref()?.as_ref().ok());
    let identity = match survey.map(|survey| &survey.identity) {
        Some(IdentityState::Complete(identity)) => Some(identity),
        _ => None,
    };
    let warnings = remarks
        .into_iter()
        .chain(identity.and_then(|identity| identity.renewal.warning.clone()))
        .chain(identity.and_then(|identity| identity.own_key.warning().map(str::to_owned)))
        .chain(tpm.and_then(|tpm| tpm.lockout.warning()));
    add(&mut report, "warnings", warnings.collect());
    let aside = context
        .places
        .identity
        .orphans()
        .into_iter()
        .map(|(_, path)| path);
    let aside = aside.chain(greengrass::files_set_aside(&context.places.layout));
    add(&mut report, "set_aside", aside.collect());
    let Some(identity) = identity else {
        return report;
    };
    if let Some(accepted) = &identity.certificate {
        let certificate = accepted.summary();
        report["certificate"] = json!(certificate);
        report["renewal"] = renewal(context, identity, accepted, &certificate.not_after);
    }
    if let Some(certificate) = identity.own_key.certificate() {
        report["network_certificate"] = json!(certificate.summary());
    }
    if identity.is_for_another_name.is_some() {
        report["wanted_thing_name"] = json!(settings.map(|settings| &settings.thing_name));
    }
    add(&mut report, "refused", refused(context, identity));
    report
}

/// The certificates that are there and refused: by the device, or by AWS IoT Core.
fn refused(context: &Context, identity: &Complete) -> Vec<Refusal> {
    let (places, name) = (&context.places, &identity.record.thing_name);
    let judged = |offer| match context.memory.judge(offer).into_owned() {
        Offer::Refused(refusal) => Some(refusal),
        _ => None,
    };
    let untrusted = |holder, name: &str, chain: &Chain| Refusal {
        path: file_with(context, holder, name, chain),
        reason: "AWS IoT Core did not accept a connection with it".into(),
    };
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
    let for_networks = match &identity.own_key {
        OwnKey::Made(made) => judged(&made.offer),
        _ => None,
    };
    own.into_iter().chain(next).chain(for_networks).collect()
}

/// Where a certificate for this identity is: where an operator has saved it, or where the identity keeps it.
fn file_with(context: &Context, holder: &Identity, name: &str, chain: &Chain) -> PathBuf {
    let on_card = context.places.boot.certificate_path(name);
    let is_it = |pem: &[u8]| Chain::parse(pem, &chain.key(), &[]).as_ref() == Ok(chain);
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
fn renewal(context: &Context, identity: &Complete, accepted: &Chain, valid_until: &str) -> Value {
    let renewal = &identity.renewal;
    let mut report = json!({ "valid_until": valid_until });
    if let Some(due_from) = &renewal.due_from {
        report["due_from"] = json!(due_from);
        report["due"] = json!(renewal.due.is_some());
    }
    if let Some(asked) = &renewal.asked {
        let result = if renewal.is_asked_for {
            match refused(context, identity).is_empty() {
                true => "waiting",
                false => "refused",
            }
        } else {
            match &identity.probation {
                None => "renewed",
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

/// Whether Greengrass can run in this state, if nothing is missing.
fn is_service(state: State) -> bool {
    matches!(
        state,
        State::Done
            | State::AwaitingCertificate
            | State::Unconfigured
            | State::Error
            // A next identity was being made.
            | State::Interrupted
    )
}

/// Adds a list, unless it is empty.
fn add<T: Serialize>(report: &mut Value, name: &str, list: Vec<T>) {
    if !list.is_empty() {
        report[name] = json!(list);
    }
}

fn describe(context: &Context, survey: &Survey) -> Value {
    let step = provision::next(context.wanted(), survey, &context.memory);
    let mut report = summary(context, Some(survey), step.state());
    report["next"] = json!(match step {
        Step::Done(None) => "nothing".to_owned(),
        ref other => other.describe(),
    });
    match &survey.tpm {
        Some(Ok(tpm)) => {
            report["failed_tries"] = json!(tpm.lockout.counter);
            report["max_tries"] = json!(tpm.lockout.max_tries);
        }
        Some(Err(_)) => {}
        None => report["tpm_looked_at"] = json!(false),
    }
    let IdentityState::Complete(identity) = &survey.identity else {
        return report;
    };
    let record = &identity.record;
    report["tpm"] = json!(record.tpm);
    report["key"] = json!(record.key);
    report["key_sha256"] = json!(record.key_sha256);
    if let Some(evidence) = &record.evidence {
        match evidence.ek_sha256() {
            Some(ek) => report["ek_sha256"] = json!(to_hex(&ek)),
            None => report["unattested"] = json!(evidence.unattested),
        }
    }
    let [request, _] = context.places.boot.request_paths(&record.thing_name);
    report["request"] = json!(request);
    if identity.certificate.is_some() {
        if let Ok(settings) = context.wanted() {
            report["edition"] = json!(settings.greengrass.edition);
        }
        report["configuration"] = json!(if identity.configuration_is_written {
            "written"
        } else {
            "to be written"
        });
    }
    report
}

/// How the device gets its certificate, and how far that has got. Never the ownership token itself.
fn enrollment(places: &Places, settings: &Settings) -> Value {
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

/// The networks that ask who the device is, and what each waits for.
fn networks(context: &Context, settings: &Settings, survey: Option<&Survey>) -> Vec<Value> {
    let identity = match survey.map(|survey| &survey.identity) {
        Some(IdentityState::Complete(identity)) => Some(identity),
        _ => None,
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

/// What keeps the calling user from using the token. OpenSSL reports all of these as "No such
/// file or directory" for the PKCS#11 URI.
fn obstacles(layout: &Layout, tcti: Option<&str>) -> Vec<String> {
    let identity = layout.at(IDENTITY);
    let mut obstacles = Vec::new();
    let mut try_open = |path: &Path, why: &str| {
        if let Err(e) = std::fs::File::open(path) {
            obstacles.push(format!("{}: {e} ({why})", path.display()));
        }
    };
    if identity.symlink_metadata().is_ok() {
        try_open(
            &identity.join(crate::token::DATABASE),
            "the token's store: is this user in its group?",
        );
        try_open(
            &identity.join("pin"),
            "the token's PIN: is this user in its group?",
        );
    }
    if let Some(device) = tcti.and_then(|tcti| tcti.strip_prefix("device:")) {
        try_open(Path::new(device), "the TPM: is this user in the group tss?");
    }
    if let Some(locks) = std::env::var_os("PKCS11_SQL_LOCK") {
        try_open(
            Path::new(&locks),
            "PKCS11_SQL_LOCK: the library creates its lock file there",
        );
    }
    obstacles
}

/// What the TPM is, its state, and what is persistent in it.
pub fn tpm(tpm: &mut Tpm) -> Result<Value> {
    let identification = tpm.identification()?;
    let (limits, lockout) = tpm.limits()?;
    let handles = tpm.persistent_handles()?;
    let (major, minor) = identification.firmware;
    let mut report = json!({
        "manufacturer": identification.manufacturer,
        "model": identification.model,
        "firmware": format!("{major}.{minor}"),
        "firmware_build": format!("{:#x}", identification.firmware_build),
        "revision": format!("{}.{:02}", identification.revision / 100, identification.revision % 100),
        "limits": limits,
        "lockout": lockout,
        "persistent": handles,
    });
    if identification.has_roca_flaw() {
        report["warning"] = json!(
            "RSA keys generated by this firmware can be factored (ROCA, CVE-2017-15361): use ECC keys, or update the \
             firmware to 7.62 or later"
        );
    }
    Ok(report)
}

/// Prints a report on standard output, for a program or for a person.
pub fn print(report: &Value, as_json: bool) -> Result<()> {
    if as_json {
        return Ok(output::print_json(report)?);
    }
    let mut lines = Vec::new();
    if let Value::Object(object) = report {
        render(object, 0, &mut lines);
    }
    Ok(output::print_lines(lines)?)
}

fn render(object: &Map<String, Value>, depth: usize, lines: &mut Vec<String>) {
    let width = object.keys().map(String::len).max().unwrap_or(0);
    let indent = "  ".repeat(depth);
    for (key, value) in object {
        let label = key.replace('_', " ");
        match value {
            Value::Object(inner) => {
                lines.push(format!("{indent}{label}"));
                render(inner, depth + 1, lines);
            }
            Value::Array(items) => {
                lines.push(format!("{indent}{label}"));
                for item in items {
                    lines.push(format!("{indent}  {}", inline(item)));
                }
            }
            plain => lines.push(format!("{indent}{label:width$}  {}", inline(plain))),
        }
    }
}

fn inline(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(object) => object.values().map(inline).collect::<Vec<_>>().join("  "),
        other => other.to_string(),
    }
}
