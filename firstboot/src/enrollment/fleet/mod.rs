//! AWS IoT fleet provisioning by claim, with the key in the TPM: AWS IoT Core issues a certificate for our
//! request (CreateCertificateFromCsr), and activates it when the template registers the thing
//! (RegisterThing).
//!
//! | file | what |
//! |---|---|
//! | `mqtt` | MQTT, with limits on time and size |
//! | `answers` | what is asked, and what may be answered |
//! | `failure` | what went wrong, and what the operator can do |
//! | `renewal` | the same for a device that has a certificate |
//!
//! Nothing here decides or keeps anything: the state is in the identity directory.

mod answers;
mod failure;
pub mod mqtt;
mod renewal;

use std::collections::BTreeMap;
use std::sync::Arc;

use firstboot_formats::public_key::{KeyType, PublicKey};
use firstboot_formats::x509::{Chain, Verdict};
use log::{debug, info};
use rustls::sign::CertifiedKey;

use super::network::{self, Connection, Server, TpmKey, certified, truncate};
use super::{Offer, claim};
use crate::boot_partition::BootPartition;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::identity::{Identity, Ownership};
use crate::progress;
use crate::settings::Settings;
use crate::token::OpenKey;

pub use answers::{Created, Registered};
pub use failure::{Failure, Rejection};
use mqtt::{Answer, Client};
pub use renewal::{Device, Renewal, Renewed, Wanted, beside_greengrass};

/// ALPN for MQTT with a client certificate on port 443 (AWS IoT Core developer guide, "Device communication
/// protocols").
const ALPN: &[u8] = b"x-amzn-mqtt-ca";
/// The port on which AWS IoT Core wants ALPN.
const ALPN_PORT: u16 = 443;
/// How often a connection may close without a reason before that counts as a refusal.
const CLOSINGS: usize = 3;
/// What a device without the time waits for.
const NO_CLOCK: &str = "the clock is not synchronised yet, so AWS IoT Core's certificate cannot be checked: can the \
     device reach a time server (timedatectl)? On a board with a battery-backed clock, set enrollment.trust_clock";

/// What fleet provisioning offers before a certificate is accepted. Looks at files only.
pub fn offer(
    settings: &Settings,
    boot: &BootPartition,
    identity: &Identity,
    key: &PublicKey,
) -> Offer {
    if let Ok(Some(registration)) = identity.registration()
        && let Some(chain) = registration.certificate(key)
    {
        return Offer::Certificate(Box::new(chain), None);
    }
    if !boot.has_claim() {
        return Offer::Pending(claim::missing(boot));
    }
    if !settings.enrollment.clock().synchronised {
        return Offer::Pending(NO_CLOCK.into());
    }
    if identity.has_ownership() {
        Offer::CanRegister
    } else {
        Offer::CanCreate
    }
}

/// What fleet provisioning offers in place of the certificate in service: one that is registered, or can be. Looks at
/// files only.
pub fn successor(
    settings: &Settings,
    identity: &Identity,
    key: &PublicKey,
    present: &Chain,
) -> Offer {
    let clock = settings.enrollment.clock();
    // The registration of the present certificate, or of one from before it, is none of a successor.
    let is_better = |chain: &Chain| {
        let name = &settings.thing_name;
        let verdict =
            chain.check_successor(Some(present), key, name, network::issuers_clock(settings));
        chain != present && !matches!(verdict, Verdict::Bad(_))
    };
    if let Ok(Some(registration)) = identity.registration()
        && let Some(chain) = registration.certificate(key).filter(is_better)
    {
        return Offer::Certificate(Box::new(chain), None);
    }
    if !clock.synchronised {
        return Offer::Pending(NO_CLOCK.into());
    }
    if identity.has_ownership() {
        Offer::CanRegister
    } else {
        Offer::CanCreate
    }
}

/// The account's IoT data endpoint.
fn server<'a>(settings: &'a Settings, root_ca: &'a [u8]) -> Server<'a> {
    let port = settings.enrollment.port;
    Server {
        host: &settings.greengrass.iot_data_endpoint,
        port,
        setting: "greengrass.iot_data_endpoint",
        protocol: (port == ALPN_PORT).then_some(ALPN),
        proxy: settings.enrollment.proxy(),
        roots: root_ca,
        roots_file: "root-ca.pem",
    }
}

/// A connection to AWS IoT Core, subscribed to the answers.
pub struct Session {
    client: Client<Connection>,
}

/// The result of RegisterThing.
pub enum Registering {
    /// The thing is registered, the certificate is active.
    Done(Registered),
    /// The ownership token is refused: it has been used, or it has expired.
    TokenRefused(Rejection),
}

impl Session {
    /// Waits for this device's turn, connects and subscribes.
    pub fn open(settings: &Settings, boot: &BootPartition, root_ca: &[u8]) -> Result<Self> {
        let claim = claim::read(boot)?;
        network::spread(settings)?;
        let host = &settings.greengrass.iot_data_endpoint;
        progress::status(&format!("connecting to {host} with the claim certificate"));
        info!("connecting to {host} with the claim certificate");
        Ok(Self::connect(
            settings,
            root_ca,
            claim,
            &settings.thing_name,
        )?)
    }

    /// Connects with this certificate, and subscribes.
    fn connect(
        settings: &Settings,
        root_ca: &[u8],
        certificate: CertifiedKey,
        client_id: &str,
    ) -> std::result::Result<Self, Failure> {
        let connection = network::connect(&server(settings, root_ca), Some(certificate))
            .map_err(Failure::Failed)?;
        let mut client = Client::connect(connection, client_id)?;
        let topics = [
            answers::CREATE.to_owned(),
            answers::register_topic(&settings.enrollment.template_name),
        ];
        let topics: Vec<String> = topics
            .iter()
            .flat_map(|topic| ["accepted", "rejected"].map(|answer| format!("{topic}/{answer}")))
            .collect();
        client.subscribe(&topics)?;
        Ok(Self { client })
    }

    /// CreateCertificateFromCsr, and the check of what comes back: for this key, valid now.
    pub fn create_certificate(
        &mut self,
        settings: &Settings,
        csr_pem: &str,
        key: &PublicKey,
        asked_for: &str,
    ) -> std::result::Result<Ownership, Failure> {
        let what = "requesting a certificate from AWS IoT Core";
        let unusable = |why: String| Failure::Failed(answered(what, &why));
        let request = answers::create_request(csr_pem);
        let created = match self.client.request(answers::CREATE, &request, what)? {
            Answer::Rejected(payload) => return Err(Rejection::parse(&payload).failure(what)),
            Answer::Accepted(payload) => Created::parse(&payload).map_err(unusable)?,
        };
        let chain = Chain::parse(created.certificate_pem.as_bytes(), key, &[]).map_err(unusable)?;
        match chain.check(key, asked_for, network::issuers_clock(settings)) {
            Verdict::Good => {}
            Verdict::GoodBut(why) | Verdict::Bad(why) => return Err(unusable(why)),
        }
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

    /// RegisterThing.
    pub fn register_thing(
        &mut self,
        template: &str,
        token: &str,
        parameters: &BTreeMap<String, String>,
    ) -> std::result::Result<Registering, Failure> {
        let what = "registering the thing with AWS IoT Core";
        let request = answers::register_request(token, parameters)
            .context(ErrorKind::Other, || what.to_owned())
            .map_err(Failure::Failed)?;
        let topic = answers::register_topic(template);
        match self.client.request(&topic, &request, what)? {
            Answer::Accepted(payload) => Registered::parse(&payload)
                .map(Registering::Done)
                .map_err(|why| Failure::Failed(answered(what, &why))),
            Answer::Rejected(payload) => {
                let rejection = Rejection::parse(&payload);
                if rejection.is_about_the_token() {
                    return Ok(Registering::TokenRefused(rejection));
                }
                Err(rejection.failure(what))
            }
        }
    }

    /// Disconnects, ignoring errors.
    pub fn close(self) {
        self.client.disconnect();
    }
}

/// Whether AWS IoT Core accepts a connection with this certificate and our own key, under this client ID: then the
/// certificate is active, and its thing has been registered. An error if that cannot be determined. A connection under
/// the client ID of another one ends that one (MQTT 3.1.1 §3.1.4).
pub fn is_active(
    settings: &Settings,
    root_ca: &[u8],
    client_id: &str,
    chain: &Chain,
    (key, kind): (OpenKey, KeyType),
) -> Result<bool> {
    let key = Arc::new(TpmKey::new(key, kind));
    for _ in 0..CLOSINGS {
        let certified = certified(chain, key.clone());
        let connection = network::connect(&server(settings, root_ca), Some(certified))?;
        match Client::connect(connection, client_id) {
            Ok(client) => {
                client.disconnect();
                return Ok(true);
            }
            Err(Failure::Refused(e)) => {
                debug!("{e}");
                return Ok(false);
            }
            Err(Failure::Closed(e)) => debug!("{e}"),
            Err(Failure::Failed(e)) => return Err(e),
        }
    }
    Ok(false)
}

/// An answer that cannot be used.
fn answered(what: &str, why: &str) -> Error {
    Error::other(format!(
        "{what}: the answer cannot be used: {}",
        truncate(why)
    ))
}
