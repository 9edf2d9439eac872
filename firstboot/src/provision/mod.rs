//! The way from whatever is there to a provisioned device: look, name the next step, take it, look again. No file says
//! how far it got, so none can be wrong after a power cut.
//!
//! | file | what |
//! |---|---|
//! | `context` | what a walk works with: `inputs` (what was read), places, memory, connections |
//! | `survey` | what is there; `complete`: a complete identity |
//! | `next` | which step is due: a pure function |
//! | `step`, `state` | the steps, and the states in which they are due |
//! | `make_identity`, `root_key`, `request`, `est`, `register`, `open_reply`, `configure` | the steps that take more than a line |
//! | `renewal` | a new certificate for a device in service, perhaps with a new key |
//! | `offer` | what enrollment offers |
//! | `own_key` | the key of the networks that want their own |
//! | `network` | what wpa_supplicant reads, and the step that writes it |
//! | `names` | which name the thing has |
//! | `reset` | the way back: `firstboot reset` |

mod complete;
mod configure;
mod context;
mod est;
mod inputs;
mod make_identity;
mod names;
mod network;
mod next;
mod offer;
mod open_reply;
mod own_key;
mod register;
mod renewal;
mod request;
mod reset;
mod root_key;
mod state;
mod step;
mod survey;
#[cfg(test)]
mod walks;

use log::{info, warn};

use crate::enrollment::claim;
use crate::error::{Error, ErrorKind, Result};
use crate::{greengrass, progress, tpm};

use open_reply::Acceptance;

pub use complete::Complete;
pub use context::{Context, Memory, Places};
pub use inputs::Inputs;
pub use names::known as thing_name;
pub use network::trouble as network_trouble;
pub use next::next;
pub use own_key::{OwnKey, OwnKeyStep};
pub use renewal::{Back, Candidate, Next, Previous, Probation, Renewal, RenewalStep, Tried};
pub use reset::reset;
pub use state::State;
pub use step::Step;
pub use survey::{IdentityState, Survey, TpmState};

/// How far to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Up to the published request: TPM, token, key. Needs no network.
    Request,
    /// All the way.
    Greengrass,
    /// A new certificate for a device in service, without changes to token and configuration: Greengrass may be
    /// running.
    Renewal,
}

/// How a walk has ended.
pub struct Outcome {
    /// How the device stands.
    pub state: State,
    /// What is awaited or wrong, in words.
    pub message: String,
    /// What was there at the end; `None` if unknown.
    pub survey: Option<Survey>,
    goal: Goal,
    last: Result<Step>,
}

impl Outcome {
    /// Whether nothing is left to do, or somebody else has to do it.
    pub fn is_end(&self) -> bool {
        self.last.as_ref().map_or(true, Step::is_end)
    }

    /// Logs how the walk has ended; an error if something is awaited or wrong.
    pub fn conclude(self) -> Result<()> {
        let Self {
            state,
            message,
            goal,
            last,
            ..
        } = self;
        match last? {
            Step::Stop(_, kind, why) => Err(Error::new(kind, why)),
            step if goal == Goal::Request && step.is_enrollment() => {
                info!("provisioned; next: {message}");
                Ok(())
            }
            step if !step.is_end() => {
                info!("left for the next start of enrollment: {message}");
                Ok(())
            }
            Step::Wait(_, what) => Err(Error::new(ErrorKind::Waiting, format!("waiting: {what}"))),
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
}

/// Walks until there is nothing left to do.
pub fn run(context: &mut Context, goal: Goal) -> Outcome {
    for remark in context
        .wanted()
        .map_or(&[][..], |settings| &settings.remarks)
    {
        warn!("{remark}");
    }
    context.memory.leaves_trials = goal != Goal::Renewal;
    context.memory.repeats_changes = goal != Goal::Renewal;
    let mut result = walk(context, goal);
    // Settings that turn out not to work, and writes that fail, count as if the settings were unknown: a device in
    // service stays there.
    if let Err(e) = &result
        && matches!(e.kind, ErrorKind::Settings | ErrorKind::CannotWrite)
        && context.inputs.is_ok()
    {
        context.inputs = Err(e.clone());
        result = walk(context, goal);
    }
    let (last, survey) = match result {
        Ok((step, survey)) => (Ok(step), Some(survey)),
        Err(e) => (Err(e), None),
    };
    let is_by_network = context
        .wanted()
        .is_ok_and(|settings| settings.enrollment.is_by_network());
    let (state, message) = match &last {
        Ok(step) => (step.state(), step.describe()),
        // The request to the server failed.
        Err(e) if e.kind == ErrorKind::Waiting && is_by_network => {
            (State::AwaitingCertificate, e.to_string())
        }
        Err(e) => (State::Error, e.to_string()),
    };
    progress::status(&message);
    Outcome {
        state,
        message,
        survey,
        goal,
        last,
    }
}

fn walk(context: &mut Context, goal: Goal) -> Result<(Step, Survey)> {
    let mut taken: Vec<Step> = Vec::new();
    let mut tpm = None;
    loop {
        let survey = Survey::take(context, tpm.take())?;
        let step = next(context.wanted(), &survey, &context.memory);
        let beyond = match goal {
            Goal::Request => step.is_enrollment(),
            Goal::Greengrass => false,
            Goal::Renewal => !(step.is_renewal() && survey.takes_renewals()),
        };
        if beyond || step.is_end() {
            // If it is done, this is among its remarks.
            if !matches!(step, Step::Done(_))
                && let Some(Ok(tpm)) = &survey.tpm
                && let Some(warning) = tpm.lockout.warning()
            {
                warn!("{warning}");
            }
            return Ok((step, survey));
        }
        if let Some(why) = goes_round(&taken, &step) {
            let memory = &mut context.memory;
            let stays = match step {
                Step::Renewal(_) => &mut memory.renewal_stays,
                Step::OwnKey(..) => &mut memory.own_key_stays,
                Step::WriteNetwork(_) => &mut memory.network_stays,
                _ => return Err(Error::other(why)),
            };
            warn!("{why}");
            *stays = Some(why);
            tpm = survey.tpm.and_then(std::result::Result::ok);
            continue;
        }
        info!("{}: {}", step.state(), step.describe());
        if step.changes_service()
            && context.places.identity.configured().is_some()
            && !progress::is_service()
        {
            warn!(
                "Greengrass must not be running now. `systemctl restart firstboot-enroll` stops it, does this, and \
                 starts it again"
            );
        }
        take(context, &step, &survey)?;
        tpm = match (&step, survey.tpm.and_then(std::result::Result::ok)) {
            // These change the TPM, or what has to be looked for in it: look again.
            (
                Step::ResetLockout
                | Step::RestoreRootKey(_)
                | Step::ConfirmLoss
                | Step::SetAside(_),
                _,
            ) => None,
            (Step::MakeIdentity, Some(known)) => {
                Some(known.with_srk(context.places.identity.srk_name()?))
            }
            (_, known) => known,
        };
        taken.push(step);
    }
}

/// Maximum number of steps in a walk: the longest one has about half as many.
const MOST_STEPS: usize = 32;
/// How often a kind of step may come in one walk: twice if another step undoes it, for example when an identity is set
/// aside after its access was fixed.
const MOST_REPEATS: usize = 2;

/// Why the walk must not go on with this step: it would repeat forever.
fn goes_round(taken: &[Step], step: &Step) -> Option<String> {
    if taken.last() == Some(step) {
        return Some(format!(
            "{}: done, but nothing changed. This is a bug in firstboot, or faulty storage",
            step.describe()
        ));
    }
    let same = |other: &&Step| other.is_like(step);
    let repeats = taken.iter().filter(same).count();
    (repeats >= MOST_REPEATS || taken.len() >= MOST_STEPS).then(|| {
        let way: Vec<_> = taken.iter().map(Step::describe).collect();
        format!(
            "going in circles: {}, and now again: {}. This is a bug in firstboot, or faulty storage",
            way.join("; "),
            step.describe()
        )
    })
}

fn take(context: &mut Context, step: &Step, survey: &Survey) -> Result<()> {
    let record = || match &survey.identity {
        IdentityState::Complete(identity) => Ok(&identity.record),
        _ => Err(Error::other("there is no identity")),
    };
    let in_service = survey.is_enrolled();
    let Places {
        identity,
        boot,
        layout,
        ..
    } = &context.places;
    match step {
        Step::Stop(..) | Step::Wait(..) | Step::Serve(..) | Step::Done(_) => Ok(()),
        Step::RemoveStaging => match identity.remove_staging() {
            Err(e) if in_service => {
                warn!("{e}");
                context.memory.renewal_stays = Some(e.to_string());
                Ok(())
            }
            removed => removed,
        },
        Step::RepairStore => identity.repair_upgrade(),
        Step::ResetLockout => tpm::reset_lockout(context.places.tcti()?),
        Step::ExaminePrimaries => root_key::examine_primaries(context),
        Step::TryRootKey => match &survey.tpm {
            Some(Ok(tpm)) => root_key::try_auth(context, &tpm.srk),
            _ => Ok(()),
        },
        Step::RestoreRootKey(name) => root_key::restore(context, name),
        Step::ConfirmLoss => root_key::confirm_loss(context),
        Step::TakeBack(orphan) => {
            request::withdraw(&context.places);
            identity.take_back(orphan)
        }
        Step::SetAside(_) => {
            request::withdraw(&context.places);
            let aside = match &survey.identity {
                IdentityState::Defective(_) => identity.set_defective_aside()?,
                _ => identity.set_aside()?,
            };
            warn!("the old identity was set aside as {}", aside.display());
            Ok(())
        }
        Step::RemoveConfiguration => {
            greengrass::remove(layout, context.settings()?.greengrass.edition)
        }
        Step::MakeIdentity => match &survey.tpm {
            Some(Ok(TpmState {
                srk,
                identification: Some(tpm),
                ..
            })) => make_identity::make(context, srk, tpm),
            _ => Err(Error::other("the TPM was not examined")),
        },
        Step::SetAccess => identity.set_access(),
        Step::RenewRequest => request::renew(context, in_service, record()?),
        Step::PublishRequest => {
            let request = identity.request_files()?;
            request::publish(context, in_service, &request)
        }
        Step::RequestCertificate => est::request_certificate(context, record()?),
        Step::CreateCertificate => register::create_certificate(context, record()?),
        Step::RegisterThing => register::register_thing(context, record()?),
        Step::ForgetOwnership => identity.forget_ownership(),
        Step::OpenReply(wrapped) => {
            let record = record()?;
            let file = boot.reply_path(&record.thing_name);
            let (identity, present) = (identity.clone(), &survey.identity);
            open_reply::open(
                context,
                &identity,
                file,
                wrapped,
                record,
                |context, chain| match present {
                    IdentityState::Complete(present)
                        if present.needs_trial(context.settings()?) =>
                    {
                        renewal::try_opened(context, &present.renewal, chain)
                    }
                    _ => {
                        context.places.identity.accept(chain)?;
                        Ok(Acceptance::Accepted)
                    }
                },
            )
        }
        Step::Accept(chain, remark) => {
            if let Some(remark) = remark {
                warn!("{remark}");
            }
            identity.accept(chain)
        }
        Step::Renewal(step) => {
            if let IdentityState::Complete(identity) = &survey.identity {
                renewal::take(context, step, &identity.renewal, &identity.next);
            }
            Ok(())
        }
        Step::FillToken(chain) => identity.fill_token(chain),
        Step::WriteConfiguration(chain) => configure::write(context, chain),
        Step::OwnKey(step, _) => {
            if let IdentityState::Complete(identity) = &survey.identity {
                own_key::take(context, step, &identity.own_key);
            }
            Ok(())
        }
        Step::WriteNetwork(_) => match &survey.identity {
            IdentityState::Complete(identity) => network::write(context, identity),
            _ => Ok(()),
        },
        Step::RemoveClaim => {
            // A card that cannot be written is no reason to stop.
            let put_away = claim::put_away(context.settings()?, boot, layout);
            context.memory.claim_stays = put_away.err().map(|e| e.to_string());
            Ok(())
        }
    }
}
