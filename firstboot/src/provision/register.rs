//! Fleet provisioning's two steps, with everything that they need of the device. Each result is durable before the next
//! is asked for.

use std::collections::BTreeMap;

use firstboot_formats::digest::sha256;
use firstboot_formats::encoding::{to_base64, to_hex};
use firstboot_formats::record::Record;
use firstboot_formats::x509::{Chain, Request};
use log::{info, warn};

use super::context::Context;
use super::inputs::Inputs;
use crate::enrollment::fleet::{self, Registering, Session};
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::identity::{Identity, Ownership, Registration};
use crate::settings::{Settings, check_parameter, expand};

/// Requests a certificate from AWS IoT Core, and keeps it with the proof that it is ours.
pub(super) fn create_certificate(context: &mut Context, record: &Record) -> Result<()> {
    let [request, _] = context.places.identity.request_files()?;
    let key = Request::parse(&request)?.public_key()?;
    let request = String::from_utf8(request).context(ErrorKind::Other, || {
        "cannot read the certificate request".into()
    })?;
    // First whatever can fail here: an unregistered certificate is one too many.
    template_parameters(context.settings()?, record)?;
    let mut session = session(context)?;
    let ownership =
        session.create_certificate(context.settings()?, &request, &key, &record.thing_name)?;
    context.places.identity.keep_ownership(&ownership)?;
    context.connections.session = Some(session);
    context.memory.has_created = true;
    Ok(())
}

/// Has AWS IoT Core register the thing with the kept certificate, and keeps the answer.
///
/// If the ownership token is refused, the registration may have happened and only its answer been lost, in a power cut.
/// AWS does not document the answer to a repeated RegisterThing. So the certificate is tried: an active one has been
/// registered. Otherwise it is worthless (AWS IoT deletes it after an hour), and another one is requested.
pub(super) fn register_thing(context: &mut Context, record: &Record) -> Result<()> {
    let Some((ownership, chain)) = kept(&context.places.identity)? else {
        context.places.identity.forget_ownership()?;
        return may_create_another(
            context,
            Error::other(
                "the certificate kept for registration is damaged: requesting another one",
            ),
        );
    };
    let parameters = template_parameters(context.settings()?, record)?;
    let mut session = session(context)?;
    let registering = session.register_thing(
        &context.settings()?.enrollment.template_name,
        &ownership.certificate_ownership_token,
        &parameters,
    )?;
    let (thing_name, device_configuration) = match registering {
        Registering::Done(registered) => (registered.thing_name, registered.device_configuration),
        Registering::TokenRefused(rejection) => {
            session.close();
            if !is_active(context, &chain, record)? {
                context.places.identity.forget_ownership()?;
                return may_create_another(
                    context,
                    rejection.error("registering the thing with AWS IoT Core"),
                );
            }
            keep(context, ownership, None, None)?;
            return Ok(());
        }
    };
    keep(context, ownership, thing_name, device_configuration)?;
    session.close();
    Ok(())
}

/// Permits another certificate in place of a useless one: only once per process, because each is one more in the
/// account.
fn may_create_another(context: &Context, why: Error) -> Result<()> {
    if context.memory.has_created {
        return Err(why);
    }
    warn!("{why}");
    Ok(())
}

fn keep(
    context: &Context,
    ownership: Ownership,
    thing_name: Option<String>,
    device_configuration: Option<serde_json::Map<String, serde_json::Value>>,
) -> Result<()> {
    let thing_name_is_assumed = thing_name.is_none();
    let wanted = &context.settings()?.thing_name;
    let thing_name = thing_name.unwrap_or_else(|| {
            warn!(
                "certificate {} is registered, but AWS IoT Core's answer with the thing's name was lost: assuming \
                 {wanted}, from the settings",
                ownership.certificate_id
            );
            wanted.clone()
        });
    info!("registered as {thing_name}");
    context.places.identity.keep_registration(&Registration {
        thing_name,
        thing_name_is_assumed,
        certificate_id: ownership.certificate_id,
        certificate_pem: ownership.certificate_pem,
        device_configuration: device_configuration.unwrap_or_default(),
    })
}

fn is_active(context: &Context, chain: &Chain, record: &Record) -> Result<bool> {
    info!("checking whether the certificate is already active");
    let key = context.places.identity.open_key()?;
    let Inputs {
        settings, root_ca, ..
    } = context.inputs()?;
    // Greengrass, whose client ID this is, does not run before there is a certificate.
    let client_id = &settings.thing_name;
    fleet::is_active(settings, root_ca, client_id, chain, (key, record.key))
}

/// The kept certificate, if it is whole and for our key.
pub(super) fn kept(identity: &Identity) -> Result<Option<(Ownership, Chain)>> {
    let [request, _] = identity.request_files()?;
    let key = Request::parse(&request)?.public_key()?;
    Ok(identity.ownership()?.and_then(|ownership| {
        let chain = Chain::parse(ownership.certificate_pem.as_bytes(), &key, &[]).ok()?;
        Some((ownership, chain))
    }))
}

/// The open session, or a new one. Callers put it back after success.
fn session(context: &mut Context) -> Result<Session> {
    match context.connections.session.take() {
        Some(session) => Ok(session),
        None => {
            let Inputs {
                settings, root_ca, ..
            } = context.inputs()?;
            Session::open(settings, &context.places.boot, root_ca)
        }
    }
}

/// The template's parameters, with what is only known now.
pub(super) fn template_parameters(
    settings: &Settings,
    record: &Record,
) -> Result<BTreeMap<String, String>> {
    let evidence = record.evidence.clone().ok_or_else(|| {
        Error::other(
            "the request's record has no evidence about the TPM: run `firstboot provision` to write it again",
        )
    })?;
    let ek = || {
        evidence.ek_certificate.as_deref().ok_or_else(|| {
            let why = evidence.unattested.as_deref().unwrap_or_default();
            Error::settings(format!(
                "enrollment.template_parameters uses the EK certificate, but there is none: {why}"
            ))
        })
    };
    let wanted = &settings.enrollment.template_parameters;
    wanted
        .iter()
        .map(|(key, value)| {
            let path = format!("enrollment.template_parameters.{key}");
            let value = expand(value, &path, |placeholder| {
                Ok(match placeholder {
                    "tpm" => Some(record.tpm.clone()),
                    "key_sha256" => Some(record.key_sha256.clone()),
                    "key_public" => Some(to_base64(&evidence.key_public)),
                    "ek_sha256" => Some(to_hex(&sha256(ek()?))),
                    "ek_certificate" => Some(to_base64(ek()?)),
                    _ => None,
                })
            })?;
            check_parameter(key, &value)?;
            Ok((key.clone(), value))
        })
        .collect()
}
