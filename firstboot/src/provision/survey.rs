//! What is there now: the TPM, the identity directory, the boot partition, the configuration.
//!
//! Looking changes nothing, loads no PKCS#11 library, logs in nowhere and authorizes nothing in the TPM. Where an
//! identity is committed, it costs three TPM commands.

use std::path::PathBuf;

use firstboot_formats::clock::Clock;
use firstboot_formats::digest::sha256;
use firstboot_formats::encoding::to_hex;
use firstboot_formats::public_key::PublicKey;
use firstboot_formats::record::Record;
use firstboot_formats::x509::{Chain, Request};

use super::context::{Context, Places};
use super::inputs::Inputs;
use super::{configure, names, root_key};
use crate::durability;
use crate::enrollment::offline::{self, Wanted};
use crate::enrollment::{Offer, fleet};
use crate::error::{ErrorKind, Result};
use crate::greengrass;
use crate::identity::{Contents, Identity, OpenedReplies};
use crate::settings::{Method, Settings};
use crate::tpm::{Identification, Lockout, Srk, Tpm};

/// What is there: what [`super::next()`] decides by, beside what is wanted and what this process remembers.
#[derive(Clone, Debug)]
pub struct Survey {
    /// The TPM, or why there is none. `None` where it was not looked at: nobody has said which TPM is this
    /// card's, or nothing would come of it.
    pub tpm: Option<std::result::Result<TpmState, String>>,
    /// The making of an identity was interrupted.
    pub interrupted: bool,
    /// The identity.
    pub identity: IdentityState,
    /// The Names of the storage root keys of identities that were set aside and can be taken back, and where they are.
    /// Looked for only where the identity does not fit the TPM.
    pub set_aside: Vec<(String, PathBuf)>,
    /// An earlier process has noted that the key at 0x81000001 has an authorization value. Looked for only where the
    /// identity does not fit the TPM.
    pub root_key_is_noted_with_auth: bool,
    /// Why an identity would not outlast the power; looked at only where there is none.
    pub volatile: Option<String>,
    /// The configuration names our key, but no identity that is there was ever configured: it is of an earlier one.
    pub configuration_is_ours: bool,
}

/// The TPM as it is.
#[derive(Clone, Debug)]
pub struct TpmState {
    /// Dictionary-attack protection.
    pub lockout: Lockout,
    /// What is at 0x81000001.
    pub srk: Srk,
    /// Vendor and firmware; asked for only where there is no identity yet.
    pub identification: Option<Identification>,
}

/// The identity directory as it is.
#[derive(Clone, Debug)]
pub enum IdentityState {
    /// There is none.
    Absent,
    /// What is there is not ours, or not ours alone; in words.
    Foreign(String),
    /// It cannot be used; why.
    Defective(String),
    /// tpm2-pkcs11 was interrupted while it upgraded the store.
    StoreUpgradeCut,
    /// It is complete.
    Complete(Box<Complete>),
}

/// A complete identity, and what has become of it.
#[derive(Clone, Debug)]
pub struct Complete {
    /// The Name of the storage root key that it needs.
    pub srk_name: String,
    /// Owner, group and modes are right.
    pub access_is_right: bool,
    /// The request asks for the thing and the subject that are wanted now.
    pub request_is_current: bool,
    /// Request and record are on the boot partition.
    pub request_is_published: bool,
    /// The record of the request.
    pub record: Record,
    /// The accepted certificate.
    pub certificate: Option<Chain>,
    /// What enrollment offers.
    pub offer: Offer,
    /// The token was seen to hold the accepted certificate, or the edition does not read it there.
    pub token_is_ready: bool,
    /// An ownership token is kept that has done its service.
    pub ownership_is_spent: bool,
    /// The name that the accepted certificate is for, where that is not the thing's any more.
    pub is_for_another_name: Option<String>,
    /// The configuration is what it should be; where nobody can tell how that is, some edition's is complete.
    pub configuration_is_written: bool,
    /// The fleet's claim certificate or its key lies on the boot partition, and is not needed any more.
    pub claim_is_spent: bool,
}

impl Survey {
    /// Looks. A TPM that is known from a look just before is not asked again. What the process remembers is left
    /// out: it is nothing that is there.
    pub fn take(context: &mut Context, known: Option<TpmState>) -> Result<Self> {
        let Context {
            inputs,
            places,
            connections,
            memory: _,
        } = context;
        let Places {
            layout, identity, ..
        } = &*places;
        let interrupted = identity.has_staging();
        let state = if !identity.exists()? {
            IdentityState::Absent
        } else if identity.has_cut_upgrade() {
            IdentityState::StoreUpgradeCut
        } else if let Some(defect) = identity.defect()? {
            defective(identity, defect)?
        } else {
            complete(inputs.as_ref().ok(), places)?
        };
        let blank = matches!(state, IdentityState::Absent);
        // Of interest only where there is nothing that a configuration could be about. Where only the certificate
        // is damaged, it is still this identity's, with all that Greengrass has made of it.
        let has_certificate =
            matches!(&state, IdentityState::Complete(c) if c.certificate.is_some());
        let configuration_is_ours = !has_certificate
            && identity.configured().is_none()
            && inputs.as_ref().is_ok_and(|inputs| {
                greengrass::is_ours(layout, inputs.settings.greengrass.edition)
            });
        let mut survey = Self {
            tpm: None,
            set_aside: Vec::new(),
            root_key_is_noted_with_auth: false,
            volatile: if blank {
                durability::objection(layout)
            } else {
                None
            },
            interrupted,
            identity: state,
            configuration_is_ours,
        };
        if places.tcti.is_none() || (inputs.is_err() && !survey.is_enrolled()) {
            return Ok(survey);
        }
        let looked = match known {
            Some(known) => Ok(known),
            None => connections
                .tpm(places)
                .and_then(|tpm| TpmState::take(tpm, blank)),
        };
        let srk = match &looked {
            Ok(tpm) => Some(&tpm.srk),
            Err(_) => None,
        };
        let fits = matches!((&survey.identity, srk), (IdentityState::Complete(c), Some(srk)) if srk.is(&c.srk_name));
        if !fits {
            survey.set_aside = identity.returnable();
            survey.root_key_is_noted_with_auth = matches!(srk, Some(Srk::Present { name, .. })
                if root_key::is_noted_with_auth(layout, name));
        }
        survey.tpm = Some(match looked {
            Ok(state) => Ok(state),
            Err(e) if e.kind == ErrorKind::NoTpm => Err(e.to_string()),
            Err(e) => return Err(e),
        });
        Ok(survey)
    }

    /// Whether nothing is missing for Greengrass to run: identity, accepted certificate, a token that holds it where
    /// the edition reads it there, and a configuration.
    pub fn is_enrolled(&self) -> bool {
        matches!(&self.identity, IdentityState::Complete(identity) if identity.certificate.is_some()
            && identity.token_is_ready
            && identity.configuration_is_written)
    }

    /// Whether a new certificate may take the accepted one's place while Greengrass runs: the device is in service, under
    /// the name that it is to have.
    pub(super) fn takes_renewals(&self) -> bool {
        matches!(&self.identity, IdentityState::Complete(identity) if identity.is_for_another_name.is_none())
            && self.is_enrolled()
    }
}

impl TpmState {
    fn take(tpm: &mut Tpm, blank: bool) -> Result<Self> {
        Ok(Self {
            lockout: tpm.lockout()?,
            srk: tpm.srk()?,
            identification: if blank {
                Some(tpm.identification()?)
            } else {
                None
            },
        })
    }

    /// The same once an identity has been made below the storage root key of this Name, which has served for that.
    pub fn with_srk(self, name: String) -> Self {
        Self {
            srk: Srk::Present { name, no_da: true },
            ..self
        }
    }
}

/// What there is instead of an identity: what is not ours is not touched, whatever is wrong with it.
fn defective(identity: &Identity, defect: String) -> Result<IdentityState> {
    Ok(match identity.contents()? {
        Contents::Nothing => IdentityState::Absent,
        Contents::Ours => IdentityState::Defective(defect),
        Contents::Others(what) => IdentityState::Foreign(what),
        Contents::Both(what) => IdentityState::Foreign(format!("{what}; and of ours, {defect}")),
    })
}

/// An identity, as far as it is what is wanted; where nobody can tell what that is, as if it were.
fn complete(inputs: Option<&Inputs>, places: &Places) -> Result<IdentityState> {
    let Places {
        layout,
        identity,
        boot,
        ..
    } = places;
    let [request_pem, record_json] = identity.request_files()?;
    let request =
        Request::parse(&request_pem).and_then(|request| Ok((request.public_key()?, request)));
    let certificate = identity.certificate()?;
    // Request and record can be made anew: an identity is not given up for them. Whose key it is, the certificate
    // says, too, and the token's store.
    let (key, request) = match (request, &certificate) {
        (Ok((key, request)), _) => (key, Some(request)),
        (Err(_), Some(certificate)) => (certificate.key(), None),
        (Err(_), None) => match identity.stored_key().and_then(|stored| stored.public_key()) {
            Ok(key) => (key, None),
            Err(e) => return Ok(IdentityState::Defective(e.to_string())),
        },
    };
    let record: Record = serde_json::from_slice(&record_json)
        .unwrap_or_else(|_| Record::lost(key.key_type().unwrap_or_default()));
    let certificate = certificate.filter(|chain| chain.is_for(&key));
    let configured = greengrass::complete(layout);
    let edition = match inputs {
        Some(inputs) => Some(inputs.settings.greengrass.edition),
        None => configured,
    };
    let reads_token = edition.is_some_and(greengrass::reads_token_certificate);
    // The store is read for that at each boot.
    let verified = match certificate {
        Some(_) if reads_token => identity.verified(),
        _ => None,
    };
    let token_is_ready = certificate.is_some() && (verified.is_some() || !reads_token);
    // What stands, whatever is wanted …
    let standing = Complete {
        srk_name: identity.srk_name()?,
        access_is_right: true,
        request_is_current: true,
        request_is_published: true,
        offer: Offer::Pending(String::new()),
        token_is_ready,
        ownership_is_spent: false,
        is_for_another_name: None,
        configuration_is_written: token_is_ready && configured.is_some(),
        claim_is_spent: false,
        certificate,
        record,
    };
    // … and how it differs from that.
    let Some(inputs) = inputs else {
        return Ok(IdentityState::Complete(Box::new(standing)));
    };
    let settings = &inputs.settings;
    let record = &standing.record;
    let certificate = standing.certificate.as_ref();
    let wanted =
        firstboot_formats::x509::name(&settings.subject.with_common_name(&settings.thing_name));
    let asked = request.as_ref().map(Request::subject);
    let request_is_current = wanted.is_ok_and(|n| asked == Some(&n))
        && record.evidence.is_some()
        && record.thing_name == settings.thing_name
        && record.csr_sha256 == to_hex(&sha256(&request_pem))
        && record.key_sha256 == key.fingerprint();
    let slot = verified.map(|verified| verified.slot);
    let configuration_is_written = match certificate {
        Some(chain) if token_is_ready => configure::is_written(inputs, places, chain, slot)?,
        _ => false,
    };
    Ok(IdentityState::Complete(Box::new(Complete {
        access_is_right: identity.access_is_right(),
        request_is_current,
        request_is_published: boot
            .request_is_published(&settings.thing_name, [&request_pem, &record_json]),
        offer: offer(settings, places, &key, record, certificate)?,
        ownership_is_spent: identity.has_ownership()
            && (certificate.is_some() || is_registered(identity, &key)),
        is_for_another_name: certificate
            .map(|chain| names::outdated(settings, identity, chain))
            .transpose()?
            .flatten(),
        configuration_is_written,
        claim_is_spent: certificate.is_some() && settings.enrollment.is_fleet() && boot.has_claim(),
        ..standing
    })))
}

/// Whether fleet provisioning has come to its end.
fn is_registered(identity: &Identity, key: &PublicKey) -> bool {
    let registration = identity.registration().ok().flatten();
    registration
        .and_then(|registration| registration.certificate(key))
        .is_some()
}

/// What enrollment offers beside the certificate that has been accepted.
fn offer(
    settings: &Settings,
    places: &Places,
    key: &PublicKey,
    record: &Record,
    accepted: Option<&Chain>,
) -> Result<Offer> {
    let Places { identity, boot, .. } = places;
    let offer = match (settings.enrollment.method, accepted) {
        (Method::Offline, _) => {
            let clock = Clock::read();
            // Where its certificate is gone, a reply is to be opened again; one that was worth less, as soon as the
            // accepted one is worth nothing.
            let opened = match accepted {
                Some(accepted) => identity.opened_replies(accepted)?,
                None => OpenedReplies::default(),
            };
            let in_force = |accepted: &Chain| {
                accepted.expired(clock).is_none() && accepted.is_of(&settings.thing_name)
            };
            let superseded = opened.superseded.filter(|_| accepted.is_some_and(in_force));
            let wanted = Wanted {
                thing_name: &settings.thing_name,
                key,
                evidence: record.evidence.as_ref(),
                issuers: &settings.enrollment.issuers,
                accepted,
                opened: opened.reply_sha256.as_deref(),
                superseded: superseded.as_ref(),
            };
            offline::offer(boot, &wanted, clock)
        }
        (Method::FleetProvisioning, None) => fleet::offer(settings, boot, identity, key),
        (Method::FleetProvisioning, Some(_)) => Offer::Pending("a newer certificate".into()),
    };
    Ok(offer)
}
