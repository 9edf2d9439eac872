//! A model of what the steps do, and of what a survey does not show.

use crate::enrollment::{Offer, Refusal, WrappedReply};
use crate::identity::Trial;
use crate::provision::context::RefusedReply;
use crate::provision::next::own_key::table as own_keys;
use crate::provision::next::renewal::table::candidate;
use crate::provision::next::table::{Scene, awaiting, chain};
use crate::provision::{
    Back, Complete, IdentityState, Next, OwnKey, OwnKeyStep, Previous, Probation, Renewal,
    RenewalStep, Step, Tried,
};
use crate::settings::Settings;
use crate::tpm::Srk;

pub fn refusal() -> Refusal {
    Refusal {
        path: "gw-1.pem".into(),
        reason: "expired".into(),
    }
}

pub const OURS: &str = "000b01";
pub const OTHER: &str = "000b02";

/// What a walk meets that a survey does not show.
#[derive(Clone)]
pub struct World {
    /// The Names of the storage root keys that the TPM makes.
    pub primaries: Vec<String>,
    /// The storage root key accepts an empty authorization value.
    pub empty_auth: bool,
    /// Steps of this kind change nothing.
    pub useless: Option<Step>,
    /// AWS IoT Core refuses to register the thing, and the TPM to open the reply.
    pub refuses: bool,
    /// What comes of trying a certificate.
    pub trial: Trial,
}

pub fn complete(scene: &mut Scene, change: impl FnOnce(&mut Complete)) {
    if let IdentityState::Complete(identity) = &mut scene.survey.identity {
        change(identity);
    }
}

/// What the step changes for the next survey.
pub fn apply(settings: Option<&Settings>, step: &Step, scene: &mut Scene, world: &World) {
    if world
        .useless
        .as_ref()
        .is_some_and(|useless| useless.is_like(step))
    {
        return;
    }
    let srk_name = match &scene.survey.tpm {
        Some(Ok(tpm)) => match &tpm.srk {
            Srk::Present { name, .. } => Some(name.clone()),
            _ => None,
        },
        _ => None,
    };
    let made = |name: String| {
        let mut identity = awaiting().survey.identity;
        if let IdentityState::Complete(complete) = &mut identity {
            complete.srk_name = name;
            complete.request_is_published = false;
        }
        identity
    };
    match step {
        Step::RemoveStaging => scene.survey.interrupted = false,
        Step::RepairStore => scene.survey.identity = awaiting().survey.identity,
        Step::ResetLockout => {
            if let Some(Ok(tpm)) = &mut scene.survey.tpm {
                (tpm.lockout.counter, tpm.lockout.locked) = (0, false);
            }
        }
        Step::ExaminePrimaries => scene.memory.primaries = Some(world.primaries.clone()),
        Step::TryRootKey => {
            scene.memory.empty_auth = srk_name.map(|name| (name, world.empty_auth));
        }
        Step::RestoreRootKey(name) => {
            if let Some(Ok(tpm)) = &mut scene.survey.tpm {
                tpm.srk = Srk::Present {
                    name: name.clone(),
                    no_da: true,
                };
            }
        }
        Step::ConfirmLoss => complete(scene, |_| ()),
        Step::TakeBack(_) => {
            scene.survey.set_aside.clear();
            scene.survey.identity = made(OTHER.into());
        }
        Step::SetAside(_) => scene.survey.identity = IdentityState::Absent,
        Step::RemoveConfiguration => scene.survey.configuration_is_ours = false,
        Step::MakeIdentity => {
            let name = srk_name.unwrap_or_else(|| OTHER.into());
            if let Some(Ok(tpm)) = &mut scene.survey.tpm {
                tpm.srk = Srk::Present {
                    name: name.clone(),
                    no_da: true,
                };
            }
            scene.survey.identity = made(name);
        }
        Step::CreateCertificate => {
            scene.memory.has_created = true;
            complete(scene, |i| i.offer = Offer::CanRegister);
        }
        Step::OpenReply(wrapped) => open_reply(settings, wrapped, scene, world),
        Step::RemoveClaim => scene.memory.claim_stays = Some("read-only".into()),
        Step::WriteNetwork(_) if world.refuses => {
            scene.memory.network_stays = Some("read-only".into());
        }
        Step::OwnKey(step, _) => own_key(step, scene, world),
        Step::Renewal(step) => renew(step, scene, world),
        _ => complete(scene, |i| enrollment(step, i, world)),
    }
    if *step == Step::ConfirmLoss
        && let IdentityState::Complete(identity) = &scene.survey.identity
    {
        scene.memory.lost = Some(identity.srk_name.clone());
    }
}

/// Opens a reply, and tries its certificate where it would take the place of a good one.
fn open_reply(
    settings: Option<&Settings>,
    wrapped: &WrappedReply,
    scene: &mut Scene,
    world: &World,
) {
    let tried_in = match (settings, &scene.survey.identity) {
        (Some(settings), IdentityState::Complete(i)) => i.needs_trial(settings).then_some(i),
        _ => None,
    };
    match (tried_in, world.trial) {
        _ if world.refuses => refuse(scene, wrapped, false),
        (Some(_), Trial::Refused | Trial::Failed) => refuse(scene, wrapped, false),
        (Some(i), Trial::Unanswered) if !i.renewal.is_urgent() => refuse(scene, wrapped, true),
        _ => complete(scene, accepted),
    }
}

/// The TPM has not opened it, or its certificate is not accepted, or not yet.
fn refuse(scene: &mut Scene, wrapped: &WrappedReply, is_for_now: bool) {
    scene.memory.refused_replies.push(RefusedReply {
        sha256: wrapped.sha256.clone(),
        refusal: refusal(),
        is_for_now,
    });
}

/// What a step for the networks' own key does; where the world refuses, it fails.
fn own_key(step: &OwnKeyStep, scene: &mut Scene, world: &World) {
    match step {
        OwnKeyStep::OpenReply(wrapped) if world.refuses => return refuse(scene, wrapped, false),
        _ if world.refuses => {
            scene.memory.own_key_stays = Some("read-only".into());
            return;
        }
        _ => {}
    }
    complete(scene, |i| match (step, &mut i.own_key) {
        (OwnKeyStep::RepairStore, own) => *own = OwnKey::Made(Box::new(own_keys::made())),
        (OwnKeyStep::Remove(_), own) => *own = OwnKey::Absent,
        (OwnKeyStep::Make, own) => {
            let mut made = own_keys::made();
            made.request_is_published = false;
            *own = OwnKey::Made(Box::new(made));
        }
        (OwnKeyStep::RenewRequest, OwnKey::Made(made)) => {
            (made.request_is_current, made.request_is_published) = (true, true);
        }
        (OwnKeyStep::PublishRequest, OwnKey::Made(made)) => made.request_is_published = true,
        (OwnKeyStep::OpenReply(_) | OwnKeyStep::Accept(..), OwnKey::Made(made)) => {
            (made.certificate, made.warning) = (Some(chain()), None);
            made.offer = Offer::Pending("a newer certificate".into());
            i.network.differs = true;
        }
        _ => {}
    });
}

/// What a step of a renewal does; where the world refuses, it fails.
fn renew(step: &RenewalStep, scene: &mut Scene, world: &World) {
    match step {
        RenewalStep::OpenNextReply(wrapped) if world.refuses => refuse(scene, wrapped, false),
        _ if world.refuses => {
            scene.memory.renewal_stays = Some("read-only".into());
            complete(scene, |i| has_failed(step, i));
        }
        RenewalStep::Try(which, chain) => {
            scene.memory.note_tried(chain, "so it is".into());
            complete(scene, |i| note(*which, i, world.trial));
        }
        _ => complete(scene, |i| renewal_goes_on(step, i)),
    }
}

/// That identities could not be exchanged is kept.
fn has_failed(step: &RenewalStep, identity: &mut Complete) {
    match (step, &mut identity.next, &mut identity.probation) {
        (RenewalStep::ChangeIdentities { .. }, Next::Candidate(next), _) => {
            next.trial = Some(Trial::Failed);
        }
        (RenewalStep::TakeBackIdentity { .. }, _, Some(probation)) => {
            probation.back = Back::Identity { has_failed: true };
        }
        _ => {}
    }
}

/// A refusal stands until there is another answer.
fn note(which: Tried, identity: &mut Complete, trial: Trial) {
    let noted = |before: &mut Option<Trial>| {
        if *before != Some(Trial::Refused) || trial != Trial::Unanswered {
            *before = Some(trial);
        }
    };
    match which {
        Tried::Offered => noted(&mut identity.offer_trial),
        Tried::Next => {
            if let Next::Candidate(next) = &mut identity.next {
                noted(&mut next.trial);
            }
        }
        Tried::InService => match (trial, &mut identity.probation) {
            (Trial::Accepted, probation) => *probation = None,
            (Trial::Refused, Some(probation)) => probation.is_refused = true,
            _ => {}
        },
    }
}

fn renewal_goes_on(step: &RenewalStep, i: &mut Complete) {
    match (step, &mut i.next) {
        (RenewalStep::Ask(_), _) => {
            (i.renewal.is_asked_for, i.request_is_published) = (true, true);
        }
        (RenewalStep::Request(_), _) => {
            (i.offer, i.offer_trial) = (Offer::Certificate(Box::new(chain()), None), None);
        }
        (RenewalStep::RequestForNext(_), Next::Candidate(next)) => {
            next.offer = Offer::Certificate(Box::new(chain()), None);
        }
        (RenewalStep::AcceptUntried(..), _) => {
            let former = i.certificate.clone().map(Box::new);
            accepted(i);
            i.probation = former.map(|former| on_probation(Back::Certificate(former)));
        }
        (RenewalStep::TakeBackCertificate(_), _) => {
            i.probation = None;
            i.token_is_ready = false;
        }
        (RenewalStep::MakeNext, next) => *next = Next::Candidate(Box::new(candidate())),
        (RenewalStep::AskForNext(_), Next::Candidate(next)) => {
            i.renewal.is_asked_for |= i.renewal.due.is_some();
            next.request_is_published = true;
        }
        (RenewalStep::RemoveNext(_), next) => *next = Next::Absent,
        (RenewalStep::OpenNextReply(_) | RenewalStep::AcceptNext(..), Next::Candidate(next)) => {
            next.certificate = Some(chain());
            next.trial = None;
            next.offer = Offer::Pending("a newer certificate".into());
        }
        (RenewalStep::FillNextToken(_), Next::Candidate(next)) => next.token_is_ready = true,
        (RenewalStep::ChangeIdentities { .. }, next) => {
            let is_accepted =
                matches!(next, Next::Candidate(next) if next.trial == Some(Trial::Accepted));
            *next = Next::Former;
            i.renewal = Renewal::default();
            let back = Back::Identity { has_failed: false };
            i.probation = (!is_accepted).then(|| on_probation(back));
        }
        (RenewalStep::KeepPrevious, next) => {
            *next = Next::Absent;
            i.previous = Previous::Kept;
        }
        (RenewalStep::TakeBackIdentity { .. }, next) => {
            i.probation = None;
            i.previous = match next {
                Next::Absent => Previous::Newer,
                _ => Previous::Spent,
            };
        }
        (RenewalStep::PutBackNext, next) => {
            *next = Next::Candidate(Box::new(candidate()));
            i.previous = Previous::Absent;
        }
        (RenewalStep::NoteTakenUp, _) => i.previous = Previous::Kept,
        (RenewalStep::RemovePrevious, _) => i.previous = Previous::Absent,
        _ => {}
    }
}

fn on_probation(back: Back) -> Probation {
    Probation {
        back,
        is_refused: false,
    }
}

/// Another certificate is accepted.
fn accepted(identity: &mut Complete) {
    identity.certificate = Some(chain());
    identity.offer = Offer::Pending("a newer certificate".into());
    identity.is_for_another_name = None;
    (identity.renewal, identity.probation) = (Renewal::default(), None);
    (identity.token_is_ready, identity.configuration_is_written) = (false, false);
}

fn enrollment(step: &Step, identity: &mut Complete, world: &World) {
    match step {
        Step::SetAccess => identity.access_is_right = true,
        Step::RenewRequest => {
            (identity.request_is_current, identity.request_is_published) = (true, true);
        }
        Step::PublishRequest => identity.request_is_published = true,
        Step::RegisterThing if world.refuses => identity.offer = Offer::CanCreate,
        Step::RegisterThing => identity.offer = Offer::Certificate(Box::new(chain()), None),
        Step::ForgetOwnership => identity.ownership_is_spent = false,
        Step::RequestCertificate if world.refuses => identity.offer = Offer::Refused(refusal()),
        Step::RequestCertificate => {
            identity.offer = Offer::Certificate(Box::new(chain()), None);
        }
        Step::Accept(..) => accepted(identity),
        Step::FillToken(_) => identity.token_is_ready = true,
        Step::WriteConfiguration(_) => identity.configuration_is_written = true,
        Step::WriteNetwork(_) => identity.network.differs = false,
        _ => {}
    }
}
