//! A new certificate over the network, for the key in service or for the next one: the device presents the certificate
//! that is to be renewed, to AWS IoT Core or to an EST server. What comes is kept, and offered by the next survey.

use firstboot_formats::public_key::{PublicKey, Scheme};
use firstboot_formats::x509::{Chain, Request};
use log::{info, warn};

use super::kind_of;
use crate::enrollment::est::{Credentials, Which};
use crate::enrollment::fleet::{Device, Renewal, Renewed, Wanted};
use crate::enrollment::network::waiting;
use crate::enrollment::{claim, est, fleet};
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::identity::{Identity, Ownership, Registration};
use crate::provision::context::{Context, Places};
use crate::provision::inputs::Inputs;
use crate::provision::{est as est_step, names, register};
use crate::settings::Method;

/// Requests it with the key of `identity`, in place of the certificate in service.
pub(super) fn request(context: &mut Context, identity: &Identity, accepted: &Chain) -> Result<()> {
    match context.settings()?.enrollment.method {
        Method::Offline => Ok(()),
        Method::Est => by_est(context, identity, accepted),
        Method::FleetProvisioning => by_fleet(context, identity, accepted),
    }
}

/// Its request, PEM, and the key in it.
fn own_request(identity: &Identity) -> Result<(String, Request, PublicKey)> {
    let [request, _] = identity.request_files()?;
    let parsed = Request::parse(&request)?;
    let key = parsed.public_key()?;
    let request = String::from_utf8(request).context(ErrorKind::Other, || "the request".into())?;
    Ok((request, parsed, key))
}

fn by_est(context: &Context, identity: &Identity, accepted: &Chain) -> Result<()> {
    let settings = context.settings()?;
    let (mut request, parsed, key) = own_request(identity)?;
    let wanted = est::Wanted {
        key: &key,
        thing_name: &settings.thing_name,
        which: Which::InPlaceOf(accepted),
    };
    // A server may recognise the request that it has answered before. The library is opened once at a time: for the
    // request, and then for TLS.
    if !parsed.renews(accepted.leaf()) || wanted.noted(identity).unusable > 0 {
        let signing = identity.open_key()?;
        let again = Request::renewing(accepted.leaf(), &key, |message| {
            signing.sign(Scheme::X509, message)
        })?;
        request = again.pem()?;
    }
    let own = context.places.identity.open_key()?;
    let credentials = Credentials::of_device(accepted, own, kind_of(accepted)?);
    let boot = &context.places.boot;
    est_step::ask(settings, boot, identity, &wanted, &request, &credentials)
}

/// Each answer is durable before the next is asked for, so that a later run goes on with the same certificate.
fn by_fleet(context: &mut Context, identity: &Identity, accepted: &Chain) -> Result<()> {
    // Another one in place of one that was kept and is worthless by now, but only once.
    match register_with(context, identity, accepted, register::kept(identity)?)? {
        None => Ok(()),
        Some(why) => {
            warn!("{why}");
            match register_with(context, identity, accepted, None)? {
                None => Ok(()),
                Some(why) => Err(why),
            }
        }
    }
}

/// Registers the kept certificate, or a new one; if that is worthless, it is forgotten, and this is why.
fn register_with(
    context: &Context,
    identity: &Identity,
    accepted: &Chain,
    kept: Option<(Ownership, Chain)>,
) -> Result<Option<Error>> {
    let Places {
        identity: in_service,
        boot,
        layout,
        ..
    } = &context.places;
    let Inputs {
        settings, root_ca, ..
    } = context.inputs()?;
    let (request, _, key) = own_request(identity)?;
    let record = identity
        .record()
        .ok_or_else(|| Error::other("the request's record is damaged"))?;
    let parameters = register::template_parameters(settings, &record)?;
    let wanted = Wanted {
        request: &request,
        key: &key,
        common_name: &settings.thing_name,
        parameters: &parameters,
    };
    let thing_name = names::in_service(settings, in_service, accepted)?;
    let device = Device {
        thing_name: &thing_name,
        certificate: accepted,
    };
    let was_kept = kept.is_some();
    let own = (in_service.open_key()?, kind_of(accepted)?);
    let claim = || claim::for_renewal(boot, layout);
    let mut renewal = Renewal::open(settings, root_ca, device, own, claim)?;
    let ownership = match kept {
        Some((ownership, _)) => ownership,
        None => {
            let ownership = renewal.create(&wanted)?;
            identity.keep_ownership(&ownership)?;
            ownership
        }
    };
    let renewed = renewal.register(&wanted, &ownership)?;
    renewal.close();
    let worthless = |why: Error| {
        identity.forget_ownership()?;
        if was_kept { Ok(Some(why)) } else { Err(why) }
    };
    let registration = match renewed {
        Renewed::Registered(registration) => *registration,
        Renewed::Useless(why) => return worthless(why),
        // The registration may have happened, and only its answer been lost.
        Renewed::TokenRefused(rejection) => {
            let chain = Chain::parse(ownership.certificate_pem.as_bytes(), &key, &[]);
            let chain = chain.map_err(Error::other)?;
            let client_id = fleet::beside_greengrass(&thing_name);
            let own = (identity.open_key()?, record.key);
            if !fleet::is_active(settings, root_ca, &client_id, &chain, own)? {
                // The certificate in service shows whether that says anything.
                let own = (in_service.open_key()?, kind_of(accepted)?);
                if !fleet::is_active(settings, root_ca, &client_id, accepted, own)? {
                    return Err(waiting(format!(
                        "it cannot be told whether the new certificate is registered: AWS IoT Core accepts no connection \
                         as {client_id}, not even with the certificate in service. Does the policy allow client IDs \
                         that begin with the thing's name?"
                    )));
                }
                return worthless(rejection.error("registering the new certificate"));
            }
            Registration {
                thing_name: thing_name.clone(),
                thing_name_is_assumed: true,
                certificate_id: ownership.certificate_id,
                certificate_pem: ownership.certificate_pem,
                device_configuration: Default::default(),
            }
        }
    };
    info!("certificate {} is registered", registration.certificate_id);
    identity.keep_registration(&registration)?;
    identity.forget_ownership()?;
    Ok(None)
}
