//! EST (RFC 7030): an operator's own CA issues a certificate for our request over HTTPS.
//!
//! | file | what |
//! |---|---|
//! | `credentials` | what the device presents: the fleet's claim, or its own certificate |
//! | `answers` | what is asked, and what may be answered |
//! | `http` | HTTP/1.1, with limits on time and size |
//! | `failure` | what went wrong, and what the operator can do |
//!
//! Nothing here decides or keeps anything. Nobody is trusted at first sight (RFC 7030 §4.1.1): `est-ca.pem` on the boot
//! partition says who the server and the CA are. firstboot does not ask which attributes the CA wants in a request
//! (§4.5), nor for a key made by the server (§4.4).

pub mod answers;
mod credentials;
mod failure;
pub mod http;

use std::time::{Duration, Instant};

use firstboot_formats::clock::{Clock, rfc3339};
use firstboot_formats::digest::{Fingerprint, sha256};
use firstboot_formats::encoding::to_hex;
use firstboot_formats::public_key::PublicKey;
use firstboot_formats::x509::{self, Chain, Verdict};
use log::info;
use serde_json::json;

use super::network::{self, Connection, Server};
use super::{Offer, Refusal, claim};
use crate::boot_partition::BootPartition;
use crate::error::{Error, Result};
use crate::identity::{EstAnswer, EstNote, Identity, Trial};
use crate::progress;
use crate::settings::Settings;

use answers::Operation;
pub use credentials::{Credentials, Password};

/// How long the CA's certificates may take, the TLS handshake included.
const GREETING: Duration = Duration::from_secs(20);
/// How long a certificate may take: a server may have its CA behind it, and somebody's hook.
const ANSWERING: Duration = Duration::from_secs(60);
/// A server that cannot answer now says when with one of these (RFC 7030 §4.2.3, RFC 6585 §4, RFC 9110 §15.6.4).
const NOT_NOW: [u16; 3] = [202, 429, 503];
/// With these, the server has failed, or a proxy has no answer of the one behind it: it may have issued a certificate
/// before (RFC 9110 §15.6.1, §15.6.3, §15.6.5).
const FAILED: [u16; 3] = [500, 502, 504];

/// The certificate that is asked for.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// The key that it is to be for.
    pub key: &'a PublicKey,
    /// Its thing's name.
    pub thing_name: &'a str,
    /// Which of the key's certificates it is.
    pub which: Which<'a>,
}

/// A first certificate, or a newer one.
#[derive(Clone, Copy)]
pub enum Which<'a> {
    /// The device's first.
    First {
        /// SHA-256 of the identity's certificate request, hexadecimal.
        csr_sha256: &'a str,
    },
    /// One in place of this one.
    InPlaceOf(&'a Chain),
}

impl<'a> Which<'a> {
    /// The certificate that is renewed, if one is.
    pub fn renews(self) -> Option<&'a Chain> {
        match self {
            Self::First { .. } => None,
            Self::InPlaceOf(old) => Some(old),
        }
    }

    /// What was noted in this identity about a request for it, for the key with this SHA-256 (hexadecimal); otherwise
    /// only the last certificate, which may be one for this key all the same.
    pub fn noted(self, identity: &Identity, key_sha256: &str) -> EstNote {
        let note = identity.est_note().unwrap_or_default();
        // A renewal's request is signed anew each time, so its hash would not tell it from others.
        let about = match self {
            Self::First { csr_sha256 } => csr_sha256.to_owned(),
            Self::InPlaceOf(old) => format!("{} {key_sha256}", to_hex(&old.fingerprint())),
        };
        if note.about == about {
            return note;
        }
        EstNote {
            about,
            answer: note.answer.filter(|answer| self.may_be_answered_by(answer)),
            ..EstNote::default()
        }
    }

    /// Whether the answer to another request may be one to this: not if it is the certificate that is renewed, or one
    /// from before that.
    fn may_be_answered_by(self, answer: &EstAnswer) -> bool {
        let EstAnswer::Certificates(pem) = answer else {
            return false;
        };
        let begins = |chain: &Chain| chain.lifetime()[0];
        self.renews().is_none_or(|old| {
            // One for another key than the old one's is that of the next identity.
            let earlier = Chain::parse(pem.as_bytes(), &old.key(), &[]);
            earlier.map_or(true, |earlier| begins(&earlier) > begins(old))
        })
    }
}

impl Wanted<'_> {
    /// What was noted in this identity about a request for it.
    pub fn noted(&self, identity: &Identity) -> EstNote {
        self.which.noted(identity, &self.key.fingerprint())
    }
}

/// What an operator can change to have a server asked again at once: what the settings say about the server and the
/// issuers, and what lies on the boot partition.
pub fn circumstances(settings: &Settings, boot: &BootPartition) -> String {
    let enrollment = &settings.enrollment;
    let est = &enrollment.est;
    let issuers: Vec<String> = enrollment.issuers.iter().map(|i| to_hex(i)).collect();
    // This is kept across updates, which may bring other settings.
    let wanted = json!([
        est.server,
        est.label,
        est.username,
        enrollment.http_proxy,
        issuers,
    ]);
    let wanted = sha256(wanted.to_string().as_bytes());
    format!("{} {}", to_hex(&wanted), boot.est_state())
}

/// The moment (since the epoch) before which the server is not asked again, if that is still to come.
pub fn again_after(
    settings: &Settings,
    boot: &BootPartition,
    note: &EstNote,
    now: Duration,
) -> Option<Duration> {
    note.again_after(now)
        .filter(|_| note.circumstances == circumstances(settings, boot))
}

/// What EST offers. Looks at files only.
pub fn offer(
    settings: &Settings,
    boot: &BootPartition,
    identity: &Identity,
    wanted: &Wanted<'_>,
) -> Offer {
    let noted = wanted.noted(identity);
    let clock = settings.enrollment.clock();
    let has_changed = noted.circumstances != circumstances(settings, boot);
    let refused = match &noted.answer {
        None => None,
        Some(EstAnswer::Unreadable(why)) => Some(why.clone()),
        // A clock that has lost its time since must not make good what was refused.
        Some(EstAnswer::Certificates(_)) if noted.unusable > 0 && !clock.synchronised => {
            Some("it was refused, and the clock is not synchronised now".into())
        }
        Some(EstAnswer::Certificates(pem)) => match check(settings, boot, pem, wanted) {
            // AWS IoT Core does not accept it, and somebody wants another try.
            Ok(chain) if has_changed && identity.trial(&chain) == Some(Trial::Refused) => {
                Some("AWS IoT Core did not accept it".into())
            }
            Ok(chain) => return Offer::Certificate(Box::new(chain), None),
            Err(why) => Some(why),
        },
    };
    if let Some(again) = again_after(settings, boot, &noted, clock.now) {
        return match refused {
            None => Offer::Pending(later(again)),
            Some(why) => Offer::Refused(Refusal {
                path: identity.est_path(),
                reason: format!(
                    "{why}. firstboot asks again after {}, or when its settings or the boot partition change",
                    rfc3339(again)
                ),
            }),
        };
    }
    if wanted.which.renews().is_none() && !boot.has_claim() && !boot.has_claim_password() {
        return Offer::Pending(claim::missing_for_est(boot));
    }
    if !boot.has_est_ca() {
        return Offer::Pending(format!(
            "save the certificate of the CA that issues, and that of the EST server's CA, as {}",
            boot.est_ca_path().display()
        ));
    }
    if !clock.synchronised {
        return Offer::Pending(
            "the clock is not synchronised yet, so the EST server's certificate cannot be checked: can the device reach \
             a time server (timedatectl)? On a board with a battery-backed clock, set enrollment.trust_clock"
                .into(),
        );
    }
    Offer::CanRequest
}

/// What is waited for until this moment (since the epoch).
fn later(again: Duration) -> String {
    format!(
        "the EST server has not given a certificate yet: firstboot asks again after {}, or when its settings or the boot \
         partition change",
        rfc3339(again)
    )
}

/// What a request has come to.
pub enum Answer {
    /// The server has issued something: the certificate and its CA's, to be [checked](check), or something unreadable.
    Issued(EstAnswer),
    /// It has not, and says why; it is not to be asked again before this time has passed, if it named one.
    NotNow(Option<Duration>, Error),
    /// No whole answer came, or one of somebody on the way: it may have issued a certificate.
    Lost(Error),
}

/// Waits for this device's turn, gets the CA's certificates, and asks for a certificate, or for a newer one (RFC 7030
/// §4.2), with this request, PEM. `before` is called when nothing else can keep the server from issuing one.
pub fn request(
    settings: &Settings,
    boot: &BootPartition,
    credentials: &Credentials,
    wanted: &Wanted<'_>,
    csr: &str,
    before: impl FnOnce() -> Result<()>,
) -> Result<Answer> {
    let operation = match wanted.which {
        Which::First { .. } => Operation::Enroll,
        Which::InPlaceOf(_) => Operation::Reenroll,
    };
    let site = Site {
        settings,
        credentials,
        pinned: pinned(boot).map_err(Error::settings)?,
    };
    network::spread(settings)?;
    let server = &settings.enrollment.est.server;
    progress::status(&format!("connecting to the EST server {server}"));
    info!("connecting to the EST server {server}");
    let connection = site.connect()?;
    let answer = site.exchange_on(connection, Operation::CaCertificates, "", GREETING)?;
    if let Some(later) = not_now(Operation::CaCertificates, &answer) {
        return Ok(later);
    }
    let authorities = answers::certificates(&answer)
        .map_err(|why| failure::unusable(Operation::CaCertificates, &why))?;
    if !leads_to_issuers(settings, &authorities, &site.pinned).map_err(Error::settings)? {
        return Err(failure::no_issuer(!settings.enrollment.issuers.is_empty()));
    }
    before()?;
    let connection = site.connect()?;
    let answer = match site.exchange_on(connection, operation, &answers::body(csr), ANSWERING) {
        Ok(answer) if FAILED.contains(&answer.status.as_u16()) => {
            return Ok(Answer::Lost(failure::refused(operation, &answer)));
        }
        Ok(answer) => answer,
        Err(why) => return Ok(Answer::Lost(why)),
    };
    if let Some(later) = not_now(operation, &answer) {
        return Ok(later);
    }
    Ok(Answer::Issued(match answers::certificates(&answer) {
        Ok(issued) => EstAnswer::Certificates(issued + &authorities),
        Err(why) => EstAnswer::Unreadable(format!("the answer cannot be used: {why}")),
    }))
}

/// The issued certificate with its chain: for this key and this thing, valid now, from a CA that may issue it, and no
/// worse than what it renews. The error says what is wrong.
pub fn check(
    settings: &Settings,
    boot: &BootPartition,
    received: &str,
    wanted: &Wanted<'_>,
) -> std::result::Result<Chain, String> {
    let pinned = pinned(boot)?;
    let all = [received, &pinned].concat();
    let chain = Chain::parse(all.as_bytes(), wanted.key, &issuers(settings, &pinned)?)?;
    let clock = network::issuers_clock(settings);
    let Wanted {
        key,
        thing_name,
        which,
    } = *wanted;
    let renews = which.renews();
    match chain.check_successor(renews, key, thing_name, clock) {
        Verdict::Good => {}
        Verdict::GoodBut(why) | Verdict::Bad(why) => return Err(why),
    }
    match renews.and_then(|old| super::no_gain(&chain, old, clock)) {
        None => Ok(chain),
        Some(why) => Err(why),
    }
}

/// What is in `est-ca.pem`, PEM.
fn pinned(boot: &BootPartition) -> std::result::Result<String, String> {
    let wrong = |why: &str| format!("{}: {why}", boot.est_ca_path().display());
    let content = boot.est_ca().map_err(|e| e.to_string())?;
    x509::roots(&content.ok_or_else(|| wrong("it is missing"))?).map_err(|why| wrong(&why))
}

/// To whom the certificate has to lead up.
fn issuers(settings: &Settings, pinned: &str) -> std::result::Result<Vec<Fingerprint>, String> {
    let named = &settings.enrollment.issuers;
    if !named.is_empty() {
        return Ok(named.clone());
    }
    let pinned = x509::certificates(pinned.as_bytes())?;
    Ok(pinned.iter().map(|c| sha256(c.der())).collect())
}

/// Whether what the CA issues can be expected to lead up to them.
fn leads_to_issuers(
    settings: &Settings,
    authorities: &str,
    pinned: &str,
) -> std::result::Result<bool, String> {
    let these = x509::certificates(authorities.as_bytes())?;
    let others = x509::certificates(pinned.as_bytes())?;
    Ok(x509::any_leads_to(
        &these,
        &others,
        &issuers(settings, pinned)?,
    ))
}

/// A refusal, for now or for good; nothing if the server answers the question.
fn not_now(operation: Operation, answer: &http::Answer) -> Option<Answer> {
    let status = answer.status.as_u16();
    if status == 200 {
        return None;
    }
    let now = Clock::read().now;
    let wait = NOT_NOW
        .contains(&status)
        .then(|| answers::retry_after(&answer.headers, now))
        .flatten();
    let why = match (status, wait) {
        (202, _) => network::waiting(format!(
            "the EST server has not decided yet: firstboot asks again{}. Does somebody have to approve the request?",
            wait.map(|wait| format!(" after {}", rfc3339(now + wait)))
                .unwrap_or_default()
        )),
        _ => failure::refused(operation, answer),
    };
    Some(Answer::NotNow(wait, why))
}

/// An EST server, and what it is presented with.
struct Site<'a> {
    settings: &'a Settings,
    credentials: &'a Credentials,
    /// What is in `est-ca.pem`, PEM.
    pinned: String,
}

impl Site<'_> {
    fn connect(&self) -> Result<Connection> {
        network::connect(&self.server(), self.credentials.certificate.clone())
    }

    /// One request and its answer, on a connection of their own.
    fn exchange_on(
        &self,
        mut connection: Connection,
        operation: Operation,
        body: &str,
        patience: Duration,
    ) -> Result<http::Answer> {
        let est = &self.settings.enrollment.est;
        // Everybody may have the CA's certificates (§4.1).
        let password = self.credentials.password.as_ref();
        let password = password.filter(|_| operation != Operation::CaCertificates);
        let request = answers::request(est, operation, password, body.len())
            .map_err(|e| Error::other(format!("{}: {e}", operation.what())))?;
        let deadline = Instant::now() + patience;
        http::exchange(&mut connection, request, body.as_bytes(), deadline)
            .map_err(|trouble| failure::broken(operation, &trouble))
    }

    fn server(&self) -> Server<'_> {
        let enrollment = &self.settings.enrollment;
        let (host, port) = enrollment.est.address();
        Server {
            host,
            port,
            setting: "enrollment.est.server",
            protocol: None,
            proxy: enrollment.proxy(),
            roots: self.pinned.as_bytes(),
            roots_file: "est-ca.pem",
        }
    }
}
