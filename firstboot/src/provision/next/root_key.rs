//! What is next if the storage root key is not the identity's, or is to be used for one: a single, unconfirmed answer
//! of the TPM never costs an identity.

use crate::error::ErrorKind;
use crate::layout::ROOT_KEY_WITH_AUTH;
use crate::provision::context::Memory;
use crate::provision::state::State;
use crate::provision::step::Step;
use crate::provision::survey::{Survey, TpmState};
use crate::tpm::Srk;

/// The message about a foreign object in the storage root key's place.
pub(super) fn foreign(what: &str) -> String {
    format!(
        "the TPM has {what} at 0x81000001, where the storage root key belongs. firstboot never evicts objects: if nothing \
         needs it, remove it with `tpm2_evictcontrol -c 0x81000001`"
    )
}

/// The step if the identity needs a key of the Name `wanted`, which is not there.
///
/// First, can the TPM make it again? Evicting it takes only the owner hierarchy's authorization, which is empty.
/// Second, does an identity that was set aside fit this TPM? This one is set aside only after both questions, and after
/// the TPM was asked again.
pub(super) fn missing(wanted: &str, survey: &Survey, tpm: &TpmState, memory: &Memory) -> Step {
    let primaries = match primaries(tpm, memory) {
        Ok(primaries) => primaries,
        Err(step) => return step,
    };
    if primaries.iter().any(|name| name == wanted) {
        return match tpm.srk {
            Srk::Absent => Step::RestoreRootKey(wanted.to_owned()),
            _ => Step::Stop(
                State::ForeignPrimary,
                ErrorKind::Other,
                format!(
                    "{}; firstboot then restores the storage root key of this device's identity",
                    foreign("another storage key")
                ),
            ),
        };
    }
    if let Some(step) = take_back(survey, tpm, memory) {
        return step;
    }
    let why = match tpm.srk {
        Srk::Absent if tpm.lockout.owner_auth_set => {
            return Step::Stop(
                State::Orphaned,
                ErrorKind::Other,
                "the identity's storage root key is gone from 0x81000001, and firstboot cannot recreate it, because \
                 the TPM's owner hierarchy has an authorization value: recreate it with that authorization (ECC P-256, \
                 AES-128-CFB, with the attribute noda), or start over with `firstboot reset`"
                    .into(),
            );
        }
        Srk::Absent => "its storage root key is gone: the TPM was cleared",
        _ => "it was created with another TPM, or before this one was cleared",
    };
    if let Some(step) = usable(survey, tpm, memory) {
        return step;
    }
    if memory.lost.as_deref() != Some(wanted) {
        return Step::ConfirmLoss;
    }
    Step::SetAside(why.into())
}

/// Restores an identity that was set aside and fits the TPM.
pub(super) fn take_back(survey: &Survey, tpm: &TpmState, memory: &Memory) -> Option<Step> {
    let fitting = |fits: &dyn Fn(&String) -> bool| {
        let mut all = survey.set_aside.iter();
        all.find(|(name, _)| fits(name)).cloned()
    };
    match &tpm.srk {
        Srk::Absent if survey.set_aside.is_empty() => None,
        Srk::Absent => match primaries(tpm, memory) {
            Ok(names) => {
                fitting(&|name| names.contains(name)).map(|(name, _)| Step::RestoreRootKey(name))
            }
            Err(step) => Some(step),
        },
        srk => fitting(&|name| srk.is(name)).map(|(_, path)| Step::TakeBack(path)),
    }
}

/// What comes before the existing key is used: firstboot tries whether it accepts an empty authorization value, but not
/// if a wrong one could be the last try but one.
pub(super) fn usable(survey: &Survey, tpm: &TpmState, memory: &Memory) -> Option<Step> {
    let Srk::Present { name, no_da } = &tpm.srk else {
        return None;
    };
    let lockout = &tpm.lockout;
    let noted = survey.root_key_is_noted_with_auth.then_some(false);
    match memory.has_empty_auth(name).or(noted) {
        Some(true) => None,
        Some(false) => {
            let what = "a storage key with an authorization value";
            let mut why = foreign(what);
            if !no_da {
                why += &format!(
                    ". firstboot has tried it once; each failed try counts towards the TPM's lockout. If another key is \
                     there now, remove {ROOT_KEY_WITH_AUTH}"
                );
            }
            Some(Step::Stop(State::ForeignPrimary, ErrorKind::Other, why))
        }
        None if *no_da || lockout.counter + 2 < lockout.max_tries => Some(Step::TryRootKey),
        None => Some(Step::Wait(
            State::ForeignPrimary,
            format!(
                "the TPM has a storage key at 0x81000001. Only a try would tell whether it has an authorization value, \
                 and with {} of {} failed tries firstboot does not risk one more: wait {} s for each to be forgotten, \
                 or reset the count with the lockout authorization (tpm2_dictionarylockout -c -p …)",
                lockout.counter, lockout.max_tries, lockout.interval_seconds
            ),
        )),
    }
}

/// The Names of the storage root keys that the TPM can create, or the step that finds out. If the owner hierarchy has
/// an authorization value, firstboot can have none created.
fn primaries<'a>(tpm: &TpmState, memory: &'a Memory) -> Result<&'a [String], Step> {
    match &memory.primaries {
        Some(names) => Ok(names),
        None if tpm.lockout.owner_auth_set => Ok(&[]),
        None => Err(Step::ExaminePrimaries),
    }
}
