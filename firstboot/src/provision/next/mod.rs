//! What is next, as a pure function. `table` tests it.

pub(super) mod own_key;
pub(super) mod renewal;
mod root_key;
#[cfg(test)]
pub(super) mod table;

use super::context::Memory;
use super::network;
use super::survey::{IdentityState, Survey, TpmState};
use super::{State, Step};
use crate::enrollment::Offer;
use crate::error::{Error, ErrorKind};
use crate::settings::Settings;
use crate::tpm::Srk;

/// The next step: a pure function of what is wanted (or why that is unknown), what is there, and what this process
/// remembers.
pub fn next(wanted: Result<&Settings, &Error>, survey: &Survey, memory: &Memory) -> Step {
    if let Err(why) = wanted
        && !survey.is_enrolled()
    {
        return Step::Stop(State::Error, why.kind, why.to_string());
    }
    // Nothing is concluded from a TPM that was not looked at.
    let tpm = match &survey.tpm {
        None => None,
        Some(Ok(tpm)) => Some(tpm),
        Some(Err(why)) => return Step::Stop(State::NoTpm, ErrorKind::NoTpm, why.clone()),
    };
    // Beside an identity in service it is a renewal's: a disk that cannot be written is no reason to end the service.
    if survey.interrupted && !(survey.is_enrolled() && memory.renewal_stays.is_some()) {
        return Step::RemoveStaging;
    }
    if let Some(step) = tpm.and_then(tpm_first) {
        return step;
    }
    let identity = match &survey.identity {
        IdentityState::StoreUpgradeCut => return Step::RepairStore,
        IdentityState::Defective(why) => return Step::SetAside(why.clone()),
        IdentityState::Foreign(what) => {
            return Step::Stop(
                State::ForeignStore,
                ErrorKind::Other,
                format!(
                    "{what}. firstboot leaves other programs' tokens alone and needs this directory for itself: move \
                     their store elsewhere, set TPM2_PKCS11_STORE to its new place for them, and start firstboot \
                     again"
                ),
            );
        }
        IdentityState::Absent => return from_blank(wanted, survey, tpm, memory),
        IdentityState::Complete(identity) => identity,
    };
    if let Some(tpm) = tpm
        && !tpm.srk.is(&identity.srk_name)
    {
        return root_key::missing(&identity.srk_name, survey, tpm, memory);
    }
    let settings = match wanted {
        Ok(settings) => settings,
        Err(why) => {
            return Step::Serve(
                State::Error,
                format!("{why}. Greengrass keeps running with its current configuration"),
            );
        }
    };
    if !identity.access_is_right {
        return Step::SetAccess;
    }
    if !identity.request_is_current {
        return Step::RenewRequest;
    }
    if identity.ownership_is_spent {
        return Step::ForgetOwnership;
    }
    let offer = memory.judge(&identity.offer);
    // If this process has failed to publish it, it does not try again.
    let request_is_published = identity.request_is_published || memory.request_stays.is_some();
    let for_networks = |state| {
        let own_key = own_key::step(&identity.own_key, memory);
        let own_key = own_key.map(|step| Step::OwnKey(step, state));
        // What wpa_supplicant reads is not changed again, either, once that has failed.
        let differs = identity.network.differs && memory.network_stays.is_none();
        own_key.or_else(|| differs.then_some(Step::WriteNetwork(state)))
    };
    let Some(certificate) = &identity.certificate else {
        if survey.configuration_is_ours {
            return Step::RemoveConfiguration;
        }
        if !request_is_published {
            return Step::PublishRequest;
        }
        // Before anything else is asked for: a network may let the device in with its own key, and lead there.
        if let Some(step) = for_networks(State::AwaitingCertificate) {
            return step;
        }
        return match &*offer {
            Offer::Certificate(chain, remark) => Step::Accept(chain.clone(), remark.clone()),
            Offer::Reply(wrapped) => Step::OpenReply(wrapped.clone()),
            Offer::CanRequest => Step::RequestCertificate,
            Offer::CanCreate => Step::CreateCertificate,
            Offer::CanRegister => Step::RegisterThing,
            Offer::Pending(what) => Step::Wait(State::AwaitingCertificate, what.clone()),
            Offer::Refused(why) => Step::Wait(
                State::AwaitingCertificate,
                format!("the certificate is refused: {why}"),
            ),
        };
    };
    let remark = match renewal::offered(settings, identity, &offer, memory) {
        Ok(step) => return step,
        Err(remark) => remark,
    };
    if !identity.token_is_ready {
        return Step::FillToken(Box::new(certificate.clone()));
    }
    if !identity.configuration_is_written {
        return Step::WriteConfiguration(Box::new(certificate.clone()));
    }
    if let Some(named) = &identity.is_for_another_name {
        if !request_is_published {
            return Step::PublishRequest;
        }
        if let Some(step) = for_networks(State::AwaitingCertificate) {
            return step;
        }
        let awaited = match &*offer {
            Offer::Refused(why) => format!("the one for the new name is refused: {why}"),
            Offer::Pending(what) => what.clone(),
            _ => "there is none yet".into(),
        };
        return Step::Serve(
            State::AwaitingCertificate,
            format!(
                "the certificate is for \"{named}\", but thing_name is now \"{}\". Greengrass keeps running under \
                 the old name until there is a certificate for the new one: {awaited}",
                identity.record.thing_name
            ),
        );
    }
    let claim_stays = match &memory.claim_stays {
        _ if !identity.claim_is_spent => None,
        None => return Step::RemoveClaim,
        Some(why) => Some(format!(
            "the fleet's claim is still on the boot partition: {why}"
        )),
    };
    if let Some(step) = renewal::step(settings, identity, certificate, memory) {
        return Step::Renewal(step);
    }
    // Last: nothing else depends on it.
    if let Some(step) = for_networks(State::Done) {
        return step;
    }
    let network = &identity.network;
    let trouble = network::trouble(network, memory).map(str::to_owned);
    let remarks: Vec<_> = [claim_stays, trouble, network::taken(network), remark]
        .into_iter()
        .flatten()
        .chain(identity.own_key.remarks(memory))
        .chain(renewal::remarks(settings, identity, memory))
        .chain(tpm.and_then(|tpm| tpm.lockout.warning()))
        .collect();
    Step::Done((!remarks.is_empty()).then(|| remarks.join("; ")))
}

/// What the TPM needs before anything else, or why it cannot be used.
fn tpm_first(tpm: &TpmState) -> Option<Step> {
    let lockout = &tpm.lockout;
    if lockout.counter > 0 && !lockout.lockout_auth_set {
        return Some(Step::ResetLockout);
    }
    if lockout.locked {
        return Some(Step::Wait(
            State::LockedOut,
            format!(
                "the TPM is in dictionary-attack lockout ({} of {} tries), and its lockout authorization is set, so \
                 firstboot cannot end it: wait {} s for one try, or reset the lockout with that authorization \
                 (tpm2_dictionarylockout -c -p …)",
                lockout.counter, lockout.max_tries, lockout.interval_seconds
            ),
        ));
    }
    if let Srk::Foreign(what) = &tpm.srk {
        return Some(Step::Stop(
            State::ForeignPrimary,
            ErrorKind::Other,
            root_key::foreign(what),
        ));
    }
    None
}

fn from_blank(
    wanted: Result<&Settings, &Error>,
    survey: &Survey,
    tpm: Option<&TpmState>,
    memory: &Memory,
) -> Step {
    if let Some(why) = &survey.volatile {
        return Step::Stop(State::VolatileStorage, ErrorKind::CannotWrite, why.clone());
    }
    // Before any of its configuration is removed: the identity may be restored.
    if let Some(step) = tpm.and_then(|tpm| root_key::take_back(survey, tpm, memory)) {
        return step;
    }
    if survey.configuration_is_ours {
        return Step::RemoveConfiguration;
    }
    let Some(tpm) = tpm else {
        return Step::MakeIdentity;
    };
    if let Some(tpm) = &tpm.identification
        && let Ok(settings) = wanted
        && let Some(why) = tpm.weak_key(settings.key)
    {
        return Step::Stop(State::Blank, ErrorKind::Settings, why);
    }
    if tpm.srk == Srk::Absent && tpm.lockout.owner_auth_set {
        return Step::Stop(
            State::Blank,
            ErrorKind::Other,
            "the TPM's owner hierarchy has an authorization value, and there is no storage root key at \
             0x81000001: create one with that authorization, or clear the TPM (tpm2_clear)"
                .into(),
        );
    }
    root_key::usable(survey, tpm, memory).unwrap_or(Step::MakeIdentity)
}
