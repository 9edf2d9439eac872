//! The way from whatever is there to a provisioned device: look, name the next step, take it, look
//! again. No file says how far it got, so that there is none to be wrong after a power cut.

use firstboot_formats::record::Record;

mod next;
mod root_key;
mod state;
mod step;
#[cfg(test)]
mod table;
#[cfg(test)]
mod walks;

use log::{info, warn};
use serde_json::json;

use crate::device::Device;
use crate::error::{Error, Exit, Result};
use crate::greengrass;
use crate::progress;
use crate::report;
use crate::settings::Settings;
use crate::survey::{IdentityState, Survey, TpmState};
use crate::tpm;

pub use next::next;
pub use state::State;
pub use step::Step;

/// How far to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Up to the published request: TPM, token, key. Needs no network.
    Request,
    /// All the way.
    Greengrass,
}

/// Walks until there is nothing left to do, and says how things stand on the boot partition.
pub fn run(device: &mut Device, goal: Goal) -> Result<()> {
    for remark in wanted(device).map_or(&[][..], |settings| &settings.remarks) {
        warn!("{remark}");
    }
    let mut result = walk(device, goal);
    // What is wanted and cannot be had, because the settings turn out not to work or nothing can be written, is as good
    // as not wanted: a device in service stays there.
    if let Err(e) = &result
        && matches!(e.exit, Exit::Settings | Exit::CannotWrite)
        && device.inputs.is_ok()
    {
        device.inputs = Err(e.clone());
        result = walk(device, goal);
    }
    let is_fleet = |device: &Device| device.settings().is_ok_and(|s| s.enrollment.is_fleet());
    let (state, message) = match &result {
        Ok((step, _)) => (step.state(), step.describe()),
        // AWS IoT Core was asked in vain.
        Err(e) if e.exit == Exit::Waiting && is_fleet(device) => {
            (State::AwaitingCertificate, e.to_string())
        }
        Err(e) => (State::Error, e.to_string()),
    };
    progress::status(&message);
    let survey = result.as_ref().ok().map(|(_, survey)| survey);
    publish(device, survey, state, &message);
    match result?.0 {
        Step::Stop(_, exit, why) => Err(Error::new(exit, why)),
        step if goal == Goal::Request && step.is_enrollment() => {
            info!("provisioned; next: {message}");
            Ok(())
        }
        Step::Wait(_, what) => Err(Error::new(Exit::Waiting, format!("waiting: {what}"))),
        Step::Done(Some(remark)) | Step::Serve(_, remark) => {
            warn!("{remark}");
            Ok(())
        }
        _ => {
            info!("{state}: {message}");
            Ok(())
        }
    }
}

/// Says on the boot partition how things stand: after a walk, with what it has seen last.
pub fn publish(device: &Device, survey: Option<&Survey>, state: State, message: &str) {
    let mut status = report::summary(device, survey, state);
    status["message"] = json!(message);
    device.boot.publish_status(&status);
}

fn walk(device: &mut Device, goal: Goal) -> Result<(Step, Survey)> {
    let mut taken: Vec<Step> = Vec::new();
    let mut tpm = None;
    loop {
        let survey = Survey::take(device, tpm.take())?;
        let step = next(wanted(device), &survey);
        let beyond = goal == Goal::Request && step.is_enrollment();
        if beyond || step.is_end() {
            // Where it is done, that is among its remarks.
            if !matches!(step, Step::Done(_))
                && let Some(Ok(tpm)) = &survey.tpm
                && let Some(warning) = tpm.lockout.warning()
            {
                warn!("{warning}");
            }
            return Ok((step, survey));
        }
        if let Some(why) = goes_round(&taken, &step) {
            return Err(Error::other(why));
        }
        info!("{}: {}", step.state(), step.describe());
        take(device, &step, &survey)?;
        tpm = match (&step, survey.tpm.and_then(std::result::Result::ok)) {
            // to be looked at again, or with other eyes
            (
                Step::ResetLockout
                | Step::RestoreRootKey(_)
                | Step::ConfirmLoss
                | Step::SetAside(_),
                _,
            ) => None,
            (Step::MakeIdentity, Some(known)) => Some(known.with_srk(device.identity.srk_name()?)),
            (_, known) => known,
        };
        taken.push(step);
    }
}

/// A walk has at most this many steps: the longest that there is has about half of them.
const MOST_STEPS: usize = 32;
/// How often a step may come in one walk: a second time where another step has undone it, as when an
/// identity is set aside after its access was put right.
const MOST_REPEATS: usize = 2;

/// Why the walk may not go on with this step: it would be taken again and again.
fn goes_round(taken: &[Step], step: &Step) -> Option<String> {
    if taken.last() == Some(step) {
        return Some(format!(
            "{}: done, but nothing has changed. This is a defect of firstboot or of the storage",
            step.describe()
        ));
    }
    let same = |other: &&Step| std::mem::discriminant(*other) == std::mem::discriminant(step);
    let repeats = taken.iter().filter(same).count();
    (repeats >= MOST_REPEATS || taken.len() >= MOST_STEPS).then(|| {
        let way: Vec<_> = taken.iter().map(Step::describe).collect();
        format!(
            "going round in circles: {}, and now again: {}. This is a defect of firstboot or of the storage",
            way.join("; "),
            step.describe()
        )
    })
}

/// What is wanted of the device, or why that cannot be told.
pub fn wanted(device: &Device) -> std::result::Result<&Settings, &Error> {
    device.inputs.as_ref().map(|inputs| &inputs.settings)
}

/// Puts the request onto the boot partition. Where the device is in service, a card that cannot be written is no
/// reason to take it out of that.
fn publish_request(device: &mut Device, survey: &Survey, request: &[Vec<u8>; 2]) -> Result<()> {
    match device.publish_request(request) {
        Err(e) if survey.is_enrolled() => {
            warn!("{e}");
            device.request_stays = Some(e.to_string());
            Ok(())
        }
        done => done,
    }
}

/// Asks for the certificate again, and takes back what was asked under another name, so that nobody certifies that,
/// too. The boot partition comes first: as long as the identity has the old record, a power cut has all of this done
/// once more.
fn renew_request(device: &mut Device, survey: &Survey, record: &Record) -> Result<()> {
    let new = device.sign_request(record)?;
    publish_request(device, survey, &new)?;
    if record.thing_name != device.settings()?.thing_name {
        device.withdraw_request();
    }
    device.identity.keep_request(&new)
}

fn take(device: &mut Device, step: &Step, survey: &Survey) -> Result<()> {
    match step {
        Step::Stop(..) | Step::Wait(..) | Step::Serve(..) | Step::Done(_) => Ok(()),
        Step::RemoveStaging => device.identity.remove_staging(),
        Step::RepairStore => device.identity.repair_upgrade(),
        Step::ResetLockout => tpm::reset_lockout(device.tcti()?),
        Step::ExaminePrimaries => device.examine_primaries(),
        Step::TryRootKey => match &survey.tpm {
            Some(Ok(tpm)) => device.try_root_key(&tpm.srk),
            _ => Ok(()),
        },
        Step::RestoreRootKey(name) => device.restore_root_key(name),
        Step::ConfirmLoss => device.confirm_loss(),
        Step::TakeBack(orphan) => {
            device.withdraw_request();
            device.identity.take_back(orphan)
        }
        Step::SetAside(_) => {
            device.withdraw_request();
            let aside = match &survey.identity {
                IdentityState::Defective(_) => device.identity.set_defective_aside()?,
                _ => device.identity.set_aside()?,
            };
            warn!("the old identity is kept as {}", aside.display());
            Ok(())
        }
        Step::RemoveConfiguration => {
            greengrass::remove(&device.layout, device.settings()?.greengrass.edition)
        }
        Step::MakeIdentity => match &survey.tpm {
            Some(Ok(TpmState {
                srk,
                identification: Some(tpm),
                ..
            })) => device.make_identity(srk, tpm),
            _ => Err(Error::other("the TPM was not examined")),
        },
        Step::SetAccess => device.identity.set_access(),
        Step::RenewRequest => match &survey.identity {
            IdentityState::Complete(identity) => renew_request(device, survey, &identity.record),
            _ => Ok(()),
        },
        Step::PublishRequest => {
            let request = device.identity.request_files()?;
            publish_request(device, survey, &request)
        }
        Step::AskForCertificate | Step::RegisterThing | Step::OpenReply(_) => {
            let IdentityState::Complete(identity) = &survey.identity else {
                return Ok(());
            };
            match step {
                Step::OpenReply(wrapped) => device.open_reply(wrapped, &identity.record),
                Step::AskForCertificate => device.ask_for_certificate(&identity.record),
                _ => device.register_thing(&identity.record),
            }
        }
        Step::ForgetOwnership => device.identity.forget_ownership(),
        Step::Accept(chain, remark) => {
            if let Some(remark) = remark {
                warn!("{remark}");
            }
            device.identity.accept(chain)
        }
        Step::FillToken(chain) => device.identity.fill_token(chain),
        Step::WriteConfiguration(chain) => {
            let slot = device
                .identity
                .verified()
                .ok_or_else(|| Error::other("the token changed meanwhile"))?
                .slot;
            device.with_facts(chain, slot, |facts| {
                greengrass::write(&device.layout, facts)?;
                device.identity.keep_configured(&facts.mark())
            })
        }
        Step::RemoveClaim => {
            // A card that cannot be written is no reason to stop.
            device.claim_stays = device.boot.remove_claim().err().map(|e| e.to_string());
            Ok(())
        }
    }
}
