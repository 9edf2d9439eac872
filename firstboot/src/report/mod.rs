//! What people are shown: `firstboot status`, `firstboot tpm`, and the same as JSON.
//!
//! Each is one JSON object, and the text is rendered from it: both forms have the same content. Names are stable; new
//! ones may be added.

mod certificates;
mod networks;
mod print;

use std::path::Path;

use firstboot_formats::encoding::to_hex;
use serde::Serialize;
use serde_json::{Value, json};

use crate::error::Result;
use crate::greengrass;
use crate::layout::{IDENTITY, Layout};
use crate::provision::{self, Context, IdentityState, State, Step, Survey};
use crate::tpm::Tpm;
use certificates::{enrollment, refused, renewal};
use networks::networks;

pub use print::print;

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
