//! What is there now: the TPM, the identity directory, the boot partition, the configuration.
//!
//! Looking changes nothing, loads no PKCS#11 library, logs in nowhere and authorizes nothing in the TPM. With a
//! committed identity, it costs three TPM commands.

use std::path::PathBuf;

use firstboot_formats::public_key::PublicKey;

use super::complete::Complete;
use super::context::{Context, Places};
use super::inputs::Inputs;
use super::own_key::{self, OwnKey};
use super::renewal::{self, Next, Previous, Renewal};
use super::{configure, names, network, offer, request, root_key};
use crate::durability;
use crate::eap_tls;
use crate::enrollment::{Offer, claim};
use crate::error::{ErrorKind, Result};
use crate::greengrass;
use crate::identity::{Contents, Identity, Known};
use crate::tpm::{Identification, Lockout, Srk, Tpm};

/// What is there. [`super::next()`] decides by it, by what is wanted, and by what this process remembers.
#[derive(Clone, Debug)]
pub struct Survey {
    /// The TPM, or why there is none. `None` if it was not looked at: no TPM was named for this card, or looking would
    /// be useless.
    pub tpm: Option<std::result::Result<TpmState, String>>,
    /// Creating an identity was interrupted.
    pub interrupted: bool,
    /// The identity.
    pub identity: IdentityState,
    /// The identities that were set aside and can be restored: the Names of their storage root keys, and their paths.
    /// Looked for only if the identity does not fit the TPM.
    pub set_aside: Vec<(String, PathBuf)>,
    /// An earlier process has noted that the key at 0x81000001 has an authorization value. Looked for only if the
    /// identity does not fit the TPM.
    pub root_key_is_noted_with_auth: bool,
    /// Why an identity would not survive a power cut; looked at only if there is none.
    pub volatile: Option<String>,
    /// The configuration names our key, but there is no identity that was ever configured: it belongs to an earlier
    /// one.
    pub configuration_is_ours: bool,
}

/// The TPM as it is.
#[derive(Clone, Debug)]
pub struct TpmState {
    /// Dictionary-attack protection.
    pub lockout: Lockout,
    /// What is at 0x81000001.
    pub srk: Srk,
    /// Manufacturer and firmware; asked for only if there is no identity yet.
    pub identification: Option<Identification>,
}

/// The identity directory as it is.
#[derive(Clone, Debug)]
pub enum IdentityState {
    /// There is none.
    Absent,
    /// The contents are not ours, or not only ours; in words.
    Foreign(String),
    /// It cannot be used; why.
    Defective(String),
    /// tpm2-pkcs11 was interrupted while it upgraded the store.
    StoreUpgradeCut,
    /// It is complete.
    Complete(Box<Complete>),
}

impl Survey {
    /// Looks. A TPM that is known from the previous look is not asked again. Leaves out what the process remembers: a
    /// survey has only what is there.
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
        // This matters only if there is no identity that the configuration could belong to. If only the certificate is
        // damaged, the configuration is still this identity's, with all the state that Greengrass has derived from it.
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

    /// Whether nothing is missing for Greengrass to run: identity, accepted certificate, a token that holds it, if the
    /// edition reads it there, and a configuration.
    pub fn is_enrolled(&self) -> bool {
        matches!(&self.identity, IdentityState::Complete(identity) if identity.certificate.is_some()
            && identity.token_is_ready
            && identity.configuration_is_written)
    }

    /// Whether a new certificate may replace the accepted one while Greengrass runs: the device is in service, under
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

    /// The same after an identity has been made below the storage root key of this Name, which has thereby proved
    /// usable.
    pub fn with_srk(self, name: String) -> Self {
        Self {
            srk: Srk::Present { name, no_da: true },
            ..self
        }
    }
}

/// What there is instead of an identity: anything that is not ours is not touched, whatever is wrong with it.
fn defective(identity: &Identity, defect: String) -> Result<IdentityState> {
    Ok(match identity.contents()? {
        Contents::Nothing => IdentityState::Absent,
        Contents::Ours => IdentityState::Defective(defect),
        Contents::Others(what) => IdentityState::Foreign(what),
        Contents::Both(what) => IdentityState::Foreign(format!(
            "{what}. firstboot's own identity there is unusable: {defect}"
        )),
    })
}

/// An identity compared with what is wanted; if that is unknown, as if everything matched.
fn complete(inputs: Option<&Inputs>, places: &Places) -> Result<IdentityState> {
    let Places {
        layout,
        identity,
        boot,
        ..
    } = places;
    let Known {
        key,
        request,
        request_files: [request_pem, record_json],
        record,
        certificate,
    } = match identity.known()? {
        Ok(known) => known,
        Err(e) => return Ok(IdentityState::Defective(e.to_string())),
    };
    // If it is unknown which edition is wanted, one that is configured is.
    let configured = match inputs {
        Some(_) => None,
        None => greengrass::complete(layout),
    };
    let edition = inputs.map_or(configured, |inputs| {
        Some(inputs.settings.greengrass.edition)
    });
    let reads_token = edition.is_some_and(greengrass::reads_token_certificate);
    // This reads the store at each boot.
    let verified = match certificate {
        Some(_) if reads_token => identity.verified(),
        _ => None,
    };
    let renewal = certificate
        .as_ref()
        .map(|chain| Renewal::look(inputs.map(|inputs| &inputs.settings), places, chain));
    let token_is_ready = certificate.is_some() && (verified.is_some() || !reads_token);
    // What stands, whatever is wanted …
    let standing = Complete {
        srk_name: identity.srk_name()?,
        access_is_right: true,
        request_is_current: true,
        request_is_published: true,
        renewal: renewal.unwrap_or_default(),
        next: Next::Absent,
        previous: Previous::Absent,
        probation: None,
        offer: Offer::Pending(String::new()),
        offer_trial: None,
        token_is_ready,
        ownership_is_spent: false,
        is_for_another_name: None,
        configuration_is_written: token_is_ready && configured.is_some(),
        own_key: OwnKey::NotWanted,
        network: eap_tls::Found::default(),
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
    let request_is_current = request
        .is_some_and(|request| request::is_current(settings, &request, &request_pem, record, &key));
    let previous = certificate.map_or_else(Previous::default, |chain| {
        renewal::previous(settings, places, chain)
    });
    let own_key = own_key::look(settings, places, &standing.srk_name);
    let is_due = standing.renewal.due.is_some();
    let offer = offer::offer(settings, places, &key, record, certificate, is_due)?;
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
        offer_trial: match &offer {
            Offer::Certificate(chain, _) => identity.trial(chain),
            _ => None,
        },
        offer,
        ownership_is_spent: identity.has_ownership()
            && match certificate {
                None => is_registered(identity, &key),
                // Kept for the renewal that is due, and not used yet.
                Some(_) => {
                    !(is_due && settings.enrollment.is_fleet())
                        || identity.owns_what_is_registered()
                }
            },
        is_for_another_name: certificate
            .map(|chain| names::outdated(settings, identity, chain))
            .transpose()?
            .flatten(),
        configuration_is_written,
        network: network::look(inputs, places, certificate, &own_key),
        own_key,
        next: match certificate {
            Some(chain) => renewal::next_identity(settings, places, chain),
            None => Next::Absent,
        },
        probation: certificate
            .and_then(|chain| renewal::probation(settings, places, chain, previous)),
        previous,
        claim_is_spent: certificate.is_some() && claim::is_spent(settings, boot, layout),
        ..standing
    })))
}

/// Whether fleet provisioning is complete.
fn is_registered(identity: &Identity, key: &PublicKey) -> bool {
    let registration = identity.registration().ok().flatten();
    registration
        .and_then(|registration| registration.certificate(key))
        .is_some()
}
