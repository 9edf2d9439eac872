//! AWS IoT fleet provisioning by claim, with the key in the TPM: AWS IoT Core issues a certificate for our
//! request (CreateCertificateFromCsr), and activates it when the template registers the thing
//! (RegisterThing).
//!
//! | file | what |
//! |---|---|
//! | `claim` | the certificate pair on the boot partition that the whole fleet shows |
//! | `connection`, `mqtt` | TCP, TLS, MQTT: with limits on time and size |
//! | `server` | whether the other side is AWS IoT Core |
//! | `answers` | what is asked, and what may be answered |
//! | `failure` | what went wrong, and what the operator can do |
//! | `tpm_key` | TLS client authentication with our own key, to see whether a certificate is active |
//!
//! Nothing here decides or keeps anything: the state is in the identity directory.

mod answers;
pub mod claim;
mod connection;
mod failure;
pub mod mqtt;
mod server;
mod tpm_key;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use firstboot_formats::clock::Clock;
use firstboot_formats::public_key::{KeyType, PublicKey};
use firstboot_formats::x509::{Chain, Verdict};
use log::{debug, info};

use super::Offer;
use crate::boot_partition::BootPartition;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::identity::Identity;
use crate::progress;
use crate::settings::Settings;
use crate::token::OpenKey;

pub use answers::{Created, Registered};
pub use failure::Rejection;
use mqtt::{Answer, Client, NotConnected};

/// How far AWS IoT's clock may be ahead of ours at the start of a certificate's validity. Refusing the certificate
/// would only create another one.
const CLOCK_SKEW: Duration = Duration::from_secs(300);
/// How often a connection may close without a reason before that counts as a refusal.
const CLOSINGS: usize = 3;
/// What firstboot adds to the thing's name for a connection beside Greengrass's: of two with one client ID, the server
/// ends the older one (MQTT 3.1.1 §3.1.4). AWS's policy for core devices lets client IDs begin with the thing's name
/// (Greengrass developer guide, "Minimal AWS IoT policy for AWS IoT Greengrass V2 core devices").
const BESIDE: &str = "-renewal";
/// Maximum length of a client ID, bytes (AWS IoT Core endpoints and quotas, "Client ID size").
const MAX_CLIENT_ID: usize = 128;

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
        return Offer::Pending(
            "the clock is not synchronised yet, so AWS IoT Core's certificate cannot be checked: can the device reach \
             a time server (timedatectl)? On a board with a battery-backed clock, set enrollment.trust_clock"
                .into(),
        );
    }
    if identity.has_ownership() {
        Offer::CanRegister
    } else {
        Offer::CanCreate
    }
}

/// A connection to AWS IoT Core with the claim certificate, subscribed to the answers.
pub struct Session {
    client: Client<connection::Connection>,
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
        spread(settings)?;
        let host = &settings.greengrass.iot_data_endpoint;
        progress::status(&format!("connecting to {host} with the claim certificate"));
        info!("connecting to {host} with the claim certificate");
        let connection = connection::connect(settings, root_ca, claim)?;
        let mut client = Client::connect(connection, &settings.thing_name)?;
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
    ) -> Result<Created> {
        let what = "requesting a certificate from AWS IoT Core";
        let request = answers::create_request(csr_pem);
        let created = match self.client.request(answers::CREATE, &request, what)? {
            Answer::Rejected(payload) => return Err(Rejection::parse(&payload).error(what)),
            Answer::Accepted(payload) => {
                Created::parse(&payload).map_err(|why| answered(what, &why))?
            }
        };
        let chain = Chain::parse(created.certificate_pem.as_bytes(), key, &[])
            .map_err(|why| answered(what, &why))?;
        let clock = settings.enrollment.clock();
        let clock = Clock {
            now: clock.now + CLOCK_SKEW,
            ..clock
        };
        match chain.check(key, asked_for, clock) {
            Verdict::Good => Ok(created),
            Verdict::GoodBut(why) | Verdict::Bad(why) => Err(answered(what, &why)),
        }
    }

    /// RegisterThing.
    pub fn register_thing(
        &mut self,
        template: &str,
        token: &str,
        parameters: &BTreeMap<String, String>,
    ) -> Result<Registering> {
        let what = "registering the thing with AWS IoT Core";
        let request = answers::register_request(token, parameters)
            .context(ErrorKind::Other, || what.to_owned())?;
        let topic = answers::register_topic(template);
        match self.client.request(&topic, &request, what)? {
            Answer::Accepted(payload) => Registered::parse(&payload)
                .map(Registering::Done)
                .map_err(|why| answered(what, &why)),
            Answer::Rejected(payload) => {
                let rejection = Rejection::parse(&payload);
                if rejection.is_about_the_token() {
                    return Ok(Registering::TokenRefused(rejection));
                }
                Err(rejection.error(what))
            }
        }
    }

    /// Disconnects, ignoring errors.
    pub fn close(self) {
        self.client.disconnect();
    }
}

/// Whether AWS IoT Core accepts a connection with this certificate and our own key: then the certificate is active, and
/// its thing has been registered. An error if that cannot be determined.
pub fn is_active(
    settings: &Settings,
    root_ca: &[u8],
    chain: &Chain,
    key: OpenKey,
    kind: KeyType,
) -> Result<bool> {
    connects(settings, root_ca, chain, (key, kind), &settings.thing_name)
}

/// The same, while Greengrass may have a connection of its own.
pub fn is_active_beside_greengrass(
    settings: &Settings,
    root_ca: &[u8],
    chain: &Chain,
    key: OpenKey,
    kind: KeyType,
) -> Result<bool> {
    let mut client_id = settings.thing_name.clone() + BESIDE;
    if client_id.len() > MAX_CLIENT_ID {
        // Greengrass connects again at once.
        client_id.clone_from(&settings.thing_name);
    }
    connects(settings, root_ca, chain, (key, kind), &client_id)
}

fn connects(
    settings: &Settings,
    root_ca: &[u8],
    chain: &Chain,
    (key, kind): (OpenKey, KeyType),
    client_id: &str,
) -> Result<bool> {
    let key = Arc::new(tpm_key::TpmKey::new(key, kind));
    for _ in 0..CLOSINGS {
        let certified = connection::certified(chain, key.clone());
        let connection = connection::connect(settings, root_ca, certified)?;
        match Client::connect(connection, client_id) {
            Ok(client) => {
                client.disconnect();
                return Ok(true);
            }
            Err(NotConnected::Refused(e)) => {
                debug!("{e}");
                return Ok(false);
            }
            Err(NotConnected::Closed(e)) => debug!("{e}"),
            Err(NotConnected::Failed(e)) => return Err(e),
        }
    }
    Ok(false)
}

/// Waits a random part of `enrollment.spread_seconds`, at each try: devices that are powered on together, or lost the
/// network together, do not all connect at once.
fn spread(settings: &Settings) -> Result<()> {
    let most = Duration::from_secs(settings.enrollment.spread_seconds).as_millis() as u64;
    if most == 0 {
        return Ok(());
    }
    let random = getrandom::u64().context(ErrorKind::Other, || {
        "cannot get random bytes from the kernel".into()
    })?;
    let wait = Duration::from_millis(random % most);
    let what = format!(
        "waiting {:.1} s, so that devices powered on together do not all connect at once",
        wait.as_secs_f64()
    );
    info!("{what}");
    progress::status(&what);
    std::thread::sleep(wait);
    Ok(())
}

/// An answer that cannot be used.
fn answered(what: &str, why: &str) -> Error {
    Error::other(format!(
        "{what}: the answer cannot be used: {}",
        failure::truncate(why)
    ))
}
