//! One more certificate for a device that has one: it presents its own in place of a claim pair.
//!
//! AWS documents CreateCertificateFromCsr and RegisterThing for claim certificates, and does not say whether another
//! one may call them (AWS IoT Core developer guide, "Device provisioning MQTT API"). So each call may be denied, by an
//! answer that speaks of access or by several closed connections in a row: it is repeated with a claim pair, if there is
//! one. After any other answer, and without a claim pair, the device keeps what it has.

use std::collections::BTreeMap;
use std::sync::Arc;

use firstboot_formats::digest::sha256;
use firstboot_formats::encoding::to_hex;
use firstboot_formats::public_key::{KeyType, PublicKey};
use firstboot_formats::x509::{Chain, Verdict};
use log::{info, warn};
use rustls::sign::CertifiedKey;

use super::failure::Failure;
use super::{CLOSINGS, Registering, Rejection, Session, answered};
use crate::enrollment::network::{self, TpmKey, certified, waiting};
use crate::enrollment::no_gain;
use crate::error::{Error, Result};
use crate::identity::{Ownership, Registration};
use crate::settings::Settings;
use crate::token::OpenKey;

/// What the connection calls itself beside Greengrass's: two connections with one client ID would end each other (MQTT
/// 3.1.1 §3.1.4). AWS's policy for core devices lets client IDs begin with the thing's name (Greengrass developer guide,
/// "Minimal AWS IoT policy for core devices"); one that ties them to the name itself refuses this one.
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

/// What the broker answers, or why it does not.
type Answer<T> = std::result::Result<T, Failure>;

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
    key: Arc<TpmKey>,
    /// Finds the claim pair, to be presented where AWS IoT Core does not accept the device's own certificate. `None`
    /// once it is.
    claim: Option<C>,
    /// Opened when something is to be asked.
    session: Option<Session>,
}

impl<'a, C: FnOnce() -> Option<CertifiedKey>> Renewal<'a, C> {
    /// Waits for this device's turn. It will present its own certificate and its key, which is of this kind. `claim`
    /// finds the claim pair, if there is one.
    pub fn open(
        settings: &'a Settings,
        root_ca: &'a [u8],
        device: Device<'a>,
        (key, kind): (OpenKey, KeyType),
        claim: C,
    ) -> Result<Self> {
        network::spread(settings)?;
        Ok(Self {
            settings,
            root_ca,
            device,
            key: Arc::new(TpmKey::new(key, kind)),
            claim: Some(claim),
            session: None,
        })
    }

    /// Asks for a certificate. Whoever calls this keeps it before the next thing is asked for: a certificate that is not
    /// registered within an hour is deleted.
    pub fn create(&mut self, wanted: &Wanted<'_>) -> Result<Ownership> {
        let settings = self.settings;
        self.ask(|session| {
            session.create_certificate(settings, wanted.request, wanted.key, wanted.common_name)
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
        if let Some(session) = self.session {
            session.close();
        }
    }

    /// Asks; where AWS IoT Core refuses that to the device's own certificate, once more with the claim pair.
    fn ask<T>(&mut self, ask: impl Fn(&mut Session) -> Answer<T>) -> Result<T> {
        let Some(claim) = self.claim.take() else {
            return Ok(self.try_once(&ask)?);
        };
        let refusal = match self.ask_as_device(&ask) {
            Err(Failure::Refused(e)) => {
                format!("AWS IoT Core does not accept the device's own certificate for this: {e}")
            }
            Err(Failure::Closed(e)) => format!(
                "AWS IoT Core does not accept the device's own certificate for this, or the network fails: {CLOSINGS} \
                 connections ended without an answer: {e}"
            ),
            answer => {
                self.claim = Some(claim);
                return Ok(answer?);
            }
        };
        let Some(pair) = claim() else {
            return Err(waiting(format!(
                "{refusal}. The device keeps its certificate. If AWS IoT Core does not let it request one with that, \
                 allow it in its policy, or save a claim pair on the boot partition"
            )));
        };
        warn!("{refusal}. Using the claim pair");
        self.session = Some(self.connect(pair)?);
        Ok(self.try_once(&ask)?)
    }

    /// Asks with the device's own certificate. AWS IoT Core closes a connection on which something is not allowed, and
    /// the network may do so, too: only several in a row say something.
    fn ask_as_device<T>(&mut self, ask: &impl Fn(&mut Session) -> Answer<T>) -> Answer<T> {
        let mut closings = 0;
        loop {
            match self.try_once(ask) {
                Err(Failure::Closed(_)) if closings + 1 < CLOSINGS => closings += 1,
                other => return other,
            }
        }
    }

    /// Asks on the open connection, or else on a new one. One that has failed is not used again.
    fn try_once<T>(&mut self, ask: &impl Fn(&mut Session) -> Answer<T>) -> Answer<T> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => {
                info!(
                    "connecting to {} with the certificate that is to be renewed",
                    self.settings.greengrass.iot_data_endpoint
                );
                self.connect(certified(self.device.certificate, self.key.clone()))?
            }
        };
        let answer = ask(&mut session)?;
        self.session = Some(session);
        Ok(answer)
    }

    fn connect(&self, certificate: CertifiedKey) -> Answer<Session> {
        let client_id = beside_greengrass(self.device.thing_name);
        Session::connect(self.settings, self.root_ca, certificate, &client_id)
    }
}

/// The client ID of a connection beside Greengrass's. The end of a very long name is left out, and the first bytes of
/// its SHA-256 tell it from others that begin like it.
pub fn beside_greengrass(thing_name: &str) -> String {
    let whole = format!("{thing_name}{CLIENT_ID_SUFFIX}");
    if whole.len() <= MAX_CLIENT_ID {
        return whole;
    }
    let hash = to_hex(&sha256(thing_name.as_bytes())[..4]);
    let most = MAX_CLIENT_ID - CLIENT_ID_SUFFIX.len() - hash.len();
    let beginning = thing_name.get(..most).unwrap_or_default();
    format!("{beginning}{hash}{CLIENT_ID_SUFFIX}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_id_fits_whatever_the_name() {
        assert_eq!(beside_greengrass("gw-1"), "gw-1-renewal");
        for length in 118..=128 {
            let ids = ["1", "2"].map(|end| {
                let name = format!("{}{end}", "x".repeat(length - 1));
                let id = beside_greengrass(&name);
                assert!(
                    id.len() <= MAX_CLIENT_ID && id.ends_with(CLIENT_ID_SUFFIX),
                    "{id}"
                );
                assert_ne!(id, name);
                id
            });
            assert_ne!(ids[0], ids[1]);
        }
    }
}
