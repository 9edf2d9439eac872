//! One more certificate for a device that has one: it presents its own in place of a claim pair.
//!
//! AWS documents CreateCertificateFromCsr and RegisterThing for claim certificates, and does not say whether another one
//! may call them (AWS IoT Core developer guide, "Device provisioning MQTT API"). So each call may be refused, by an answer
//! or by a closed connection: it is repeated with a claim pair, if there is one, and otherwise the device keeps what it
//! has.

use std::collections::BTreeMap;
use std::sync::Arc;

use firstboot_formats::public_key::{KeyType, PublicKey};
use firstboot_formats::x509::{Chain, Verdict};
use log::{info, warn};
use rustls::sign::CertifiedKey;

use super::mqtt::Failure;
use super::{CLOSINGS, Registering, Rejection, Session, answered};
use crate::enrollment::network::{self, TpmKey, certified, waiting};
use crate::enrollment::no_gain;
use crate::error::{Error, Result};
use crate::identity::{Ownership, Registration};
use crate::settings::Settings;
use crate::token::OpenKey;

/// What the connection calls itself beside Greengrass's: two connections with one client ID would end each other (MQTT
/// 3.1.1 §3.1.4). AWS's policy for core devices lets client IDs begin with the thing's name (Greengrass developer guide,
/// "Minimal AWS IoT policy for core devices").
const CLIENT_ID_SUFFIX: &str = "-renewal";
/// Maximum size of a client ID, bytes (AWS IoT Core quotas, "Client ID size").
const MAX_CLIENT_ID: usize = 128;

/// The certificate that is asked for.
pub struct Wanted<'a> {
    /// The request for it, PEM.
    pub request: &'a str,
    /// The key in the request.
    pub key: &'a PublicKey,
    /// The common name in the request.
    pub common_name: &'a str,
    /// What the template is given.
    pub parameters: &'a BTreeMap<String, String>,
}

/// The device as AWS IoT Core knows it.
#[derive(Clone, Copy)]
pub struct Device<'a> {
    /// Its thing, by the name under which that is registered.
    pub thing_name: &'a str,
    /// Its certificate, which is to be renewed.
    pub certificate: &'a Chain,
}

/// What a renewal has come to.
pub enum Renewed {
    /// Both certificates are active and attached to the thing.
    Registered(Box<Registration>),
    /// The kept certificate cannot be registered any more: its ownership token has been used, or has expired. It may be
    /// active all the same ([`super::is_active`]): the answer to an earlier registration may have been lost.
    TokenRefused(Rejection),
    /// The kept certificate is of no use to this device; why.
    Useless(Error),
}

/// A conversation with AWS IoT Core about another certificate.
pub struct Renewal<'a, C> {
    settings: &'a Settings,
    root_ca: &'a [u8],
    device: Device<'a>,
    session: Session,
    /// The claim pair, to be presented where AWS IoT Core does not accept the device's own certificate.
    claim: Option<C>,
}

impl<'a, C: FnOnce() -> Option<CertifiedKey>> Renewal<'a, C> {
    /// Waits for this device's turn, and connects with the device's own certificate and its key, which is of this kind.
    /// `claim` finds the claim pair, if there is one.
    pub fn open(
        settings: &'a Settings,
        root_ca: &'a [u8],
        device: Device<'a>,
        (key, kind): (OpenKey, KeyType),
        claim: C,
    ) -> Result<Self> {
        network::spread(settings)?;
        info!(
            "connecting to {} with the certificate that is to be renewed",
            settings.greengrass.iot_data_endpoint
        );
        let key = Arc::new(TpmKey::new(key, kind));
        let own = || certified(device.certificate, Arc::clone(&key) as _);
        let (session, claim) = match as_device(settings, root_ca, device.thing_name, own) {
            Ok(session) => (session, Some(claim)),
            Err(Failure::Failed(e)) => return Err(e),
            Err(Failure::Refused(e) | Failure::Closed(e)) => {
                (with_claim(settings, root_ca, device, claim, &e)?, None)
            }
        };
        Ok(Self {
            settings,
            root_ca,
            device,
            session,
            claim,
        })
    }

    /// Asks for a certificate. Whoever calls this keeps it before the next thing is asked for: a certificate that is not
    /// registered within an hour is deleted.
    pub fn create(&mut self, wanted: &Wanted<'_>) -> Result<Ownership> {
        let settings = self.settings;
        let created = self.ask(|session| {
            session.create_certificate(settings, wanted.request, wanted.key, wanted.common_name)
        })?;
        info!(
            "AWS IoT Core has issued certificate {}",
            created.certificate_id
        );
        Ok(Ownership {
            certificate_id: created.certificate_id,
            certificate_pem: created.certificate_pem,
            certificate_ownership_token: created.certificate_ownership_token,
        })
    }

    /// Has the template attach the kept certificate to the thing, and activate it. Refuses what would leave the device
    /// with less than it has: another thing, or a certificate that may not take the accepted one's place.
    pub fn register(&mut self, wanted: &Wanted<'_>, ownership: &Ownership) -> Result<Renewed> {
        let what = "registering the new certificate with AWS IoT Core";
        let useless = |why: &str| Ok(Renewed::Useless(answered(what, why)));
        let pem = ownership.certificate_pem.as_bytes();
        let chain = match Chain::parse(pem, wanted.key, &[]) {
            Ok(chain) => chain,
            Err(why) => return useless(&why),
        };
        let clock = network::issuers_clock(self.settings);
        let Device {
            thing_name,
            certificate,
        } = self.device;
        match chain.check_successor(Some(certificate), wanted.key, wanted.common_name, clock) {
            Verdict::Good => {}
            Verdict::GoodBut(why) | Verdict::Bad(why) => return useless(&why),
        }
        if let Some(why) = no_gain(&chain, certificate, clock) {
            return useless(&why);
        }
        let template = &self.settings.enrollment.template_name;
        let registering = self.ask(|session| {
            session.register_thing(
                template,
                &ownership.certificate_ownership_token,
                wanted.parameters,
            )
        })?;
        let registered = match registering {
            Registering::TokenRefused(rejection) => return Ok(Renewed::TokenRefused(rejection)),
            Registering::Done(registered) => registered,
        };
        match &registered.thing_name {
            Some(name) if name != thing_name => {
                return Ok(Renewed::Useless(Error::other(format!(
                    "{what}: the template has attached it to \"{name}\", and this thing is \"{thing_name}\": the device \
                     keeps its certificate. Does the template take the thing's name from the parameters?"
                ))));
            }
            _ => {}
        }
        Ok(Renewed::Registered(Box::new(Registration {
            thing_name: thing_name.to_owned(),
            thing_name_is_assumed: registered.thing_name.is_none(),
            certificate_id: ownership.certificate_id.clone(),
            certificate_pem: ownership.certificate_pem.clone(),
            device_configuration: registered.device_configuration.unwrap_or_default(),
        })))
    }

    /// Disconnects, ignoring errors.
    pub fn close(self) {
        self.session.close();
    }

    /// Asks; where AWS IoT Core refuses that to the device's own certificate, once more with the claim pair. A connection
    /// that was closed may have been a refusal, as AWS IoT Core closes one on which something is not allowed.
    fn ask<T>(
        &mut self,
        ask: impl Fn(&mut Session) -> std::result::Result<T, Failure>,
    ) -> Result<T> {
        match (ask(&mut self.session), self.claim.take()) {
            (Err(Failure::Refused(e) | Failure::Closed(e)), Some(claim)) => {
                self.session = with_claim(self.settings, self.root_ca, self.device, claim, &e)?;
                Ok(ask(&mut self.session)?)
            }
            (answer, claim) => {
                self.claim = claim;
                Ok(answer?)
            }
        }
    }
}

/// The client ID of a connection beside Greengrass's: the end of a very long name is left out.
pub fn beside_greengrass(thing_name: &str) -> String {
    let most = MAX_CLIENT_ID - CLIENT_ID_SUFFIX.len();
    let name = thing_name.get(..most).unwrap_or(thing_name);
    format!("{name}{CLIENT_ID_SUFFIX}")
}

/// A session with the claim pair: the device's own certificate was refused, with this error.
fn with_claim(
    settings: &Settings,
    root_ca: &[u8],
    device: Device<'_>,
    claim: impl FnOnce() -> Option<CertifiedKey>,
    refusal: &Error,
) -> Result<Session> {
    let refused =
        format!("AWS IoT Core does not accept the device's own certificate for this: {refusal}");
    let Some(claim) = claim() else {
        return Err(waiting(format!(
            "{refused}. The device keeps its certificate. If AWS IoT Core does not let it request one with that, allow it \
             in its policy, or save a claim pair on the boot partition"
        )));
    };
    warn!("{refused}. Using the claim pair");
    let client_id = beside_greengrass(device.thing_name);
    Ok(Session::connect(settings, root_ca, claim, &client_id)?)
}

/// The device's own session. Where its certificate, or the policy of that, is refused, AWS IoT Core says so, or closes the
/// connection, which the network may do, too.
fn as_device(
    settings: &Settings,
    root_ca: &[u8],
    thing_name: &str,
    own: impl Fn() -> CertifiedKey,
) -> std::result::Result<Session, Failure> {
    let client_id = beside_greengrass(thing_name);
    let mut tries = 0;
    loop {
        tries += 1;
        match Session::connect(settings, root_ca, own(), &client_id) {
            Err(Failure::Closed(_)) if tries < CLOSINGS => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_id_fits_whatever_the_name() {
        assert_eq!(beside_greengrass("gw-1"), "gw-1-renewal");
        for length in 118..=128 {
            let name = "x".repeat(length);
            let id = beside_greengrass(&name);
            assert!(
                id.len() <= MAX_CLIENT_ID && id.ends_with(CLIENT_ID_SUFFIX),
                "{id}"
            );
            assert_ne!(id, name);
        }
    }
}
