//! Walks from every possible survey, with a model of what the steps do: all of them help; one kind of them does not;
//! AWS IoT Core refuses what it is shown.

use super::context::RefusedReply;
use super::next::own_key::table as own_keys;
use super::next::renewal::table::{candidate, renewing};
use super::next::table::{Scene, awaiting, chain, enrolled, wrapped};
use super::{
    Back, Complete, IdentityState, MOST_STEPS, Next, OwnKey, OwnKeyStep, Previous, Probation,
    Renewal, RenewalStep, State, Step, Tried, goes_round, next,
};
use crate::enrollment::{Offer, Refusal, WrappedReply};
use crate::error::Error;
use crate::identity::Trial;
use crate::settings::{RenewedKey, Settings};
use crate::tpm::Srk;

fn refusal() -> Refusal {
    Refusal {
        path: "gw-1.pem".into(),
        reason: "expired".into(),
    }
}

const OURS: &str = "000b01";
const OTHER: &str = "000b02";

/// What a walk meets that a survey does not show.
#[derive(Clone)]
struct World {
    /// The Names of the storage root keys that the TPM makes.
    primaries: Vec<String>,
    /// The storage root key accepts an empty authorization value.
    empty_auth: bool,
    /// Steps of this kind change nothing.
    useless: Option<Step>,
    /// AWS IoT Core refuses to register the thing, and the TPM to open the reply.
    refuses: bool,
    /// What comes of trying a certificate.
    trial: Trial,
}

/// The bits of a number, one after the other.
struct Bits(u32);

impl Bits {
    fn one(&mut self) -> bool {
        self.below(2) == 1
    }

    fn below(&mut self, count: u32) -> u32 {
        let value = self.0 % count;
        self.0 /= count;
        value
    }
}

fn complete(scene: &mut Scene, change: impl FnOnce(&mut Complete)) {
    if let IdentityState::Complete(identity) = &mut scene.survey.identity {
        change(identity);
    }
}

/// A survey of any identity, below a TPM that serves it.
fn identity(bits: &mut Bits) -> Scene {
    let mut scene = awaiting();
    scene.survey.interrupted = bits.one();
    scene.survey.configuration_is_ours = bits.one();
    complete(&mut scene, |i| {
        i.access_is_right = bits.one();
        i.request_is_current = bits.one();
        i.request_is_published = bits.one();
        i.certificate = bits.one().then(chain);
        i.token_is_ready = bits.one() && i.certificate.is_some();
        i.configuration_is_written = bits.one() && i.token_is_ready;
        i.is_for_another_name = (bits.one() && i.certificate.is_some()).then(|| "gw-0".into());
        i.ownership_is_spent = bits.one();
        i.claim_is_spent = bits.one();
        i.renewal.due = bits.one().then(|| "due".into());
        i.renewal.is_asked_for = bits.one();
        // Not a bit of its own, which would double the walks.
        i.network.differs = i.claim_is_spent != i.ownership_is_spent;
        i.offer = match bits.below(7) {
            0 => Offer::Pending("a certificate".into()),
            1 => Offer::CanCreate,
            2 => Offer::CanRegister,
            3 => Offer::Certificate(Box::new(chain()), None),
            4 => Offer::Reply(wrapped()),
            5 => Offer::CanRequest,
            _ => Offer::Refused(refusal()),
        };
    });
    scene
}

const IDENTITIES: u32 = 7 << 13;

/// Adds any TPM to the survey, and what is found out about it.
fn tpm(bits: &mut Bits, scene: &mut Scene, world: &mut World) {
    world.empty_auth = bits.one();
    world.primaries = match bits.below(3) {
        0 => vec![OURS.into()],
        1 => vec![OTHER.into()],
        _ => Vec::new(),
    };
    if bits.one() {
        scene
            .survey
            .set_aside
            .push((OTHER.into(), "orphan-1".into()));
    }
    let srk = |name: &str, no_da| Srk::Present {
        name: name.into(),
        no_da,
    };
    if let Some(Ok(tpm)) = &mut scene.survey.tpm {
        tpm.lockout.counter = bits.below(2) * 31;
        tpm.lockout.locked = bits.one();
        tpm.lockout.lockout_auth_set = bits.one();
        tpm.lockout.owner_auth_set = bits.one();
        tpm.srk = match bits.below(5) {
            0 => Srk::Absent,
            1 => srk(OURS, true),
            2 => srk(OTHER, true),
            3 => srk(OTHER, false),
            _ => Srk::Foreign("a signing key".into()),
        };
    }
}

const TPMS: u32 = 2 * 3 * 2 * 16 * 5;

/// What the step changes for the next survey.
fn apply(step: &Step, scene: &mut Scene, world: &World) {
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
        Step::OpenReply(wrapped) if world.refuses => {
            refuse(scene, wrapped);
        }
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

/// The TPM has not opened it.
fn refuse(scene: &mut Scene, wrapped: &WrappedReply) {
    scene.memory.refused_replies.push(RefusedReply {
        sha256: wrapped.sha256.clone(),
        refusal: refusal(),
        is_for_now: false,
    });
}

/// What a step for the networks' own key does; where the world refuses, it fails.
fn own_key(step: &OwnKeyStep, scene: &mut Scene, world: &World) {
    match step {
        OwnKeyStep::OpenReply(wrapped) if world.refuses => return refuse(scene, wrapped),
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
        RenewalStep::OpenNextReply(wrapped) if world.refuses => refuse(scene, wrapped),
        _ if world.refuses => scene.memory.renewal_stays = Some("read-only".into()),
        RenewalStep::Try(which, chain) => {
            scene.memory.note_tried(chain, "so it is".into());
            complete(scene, |i| note(*which, i, world.trial));
        }
        _ => complete(scene, |i| renewal_goes_on(step, i)),
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
        (RenewalStep::AcceptUntried(..), _) => accepted(i),
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
            *next = Next::Former;
            (i.renewal, i.probation) = (Renewal::default(), None);
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
        Step::OpenReply(_) | Step::Accept(..) => accepted(identity),
        Step::FillToken(_) => identity.token_is_ready = true,
        Step::WriteConfiguration(_) => identity.configuration_is_written = true,
        Step::WriteNetwork(_) => identity.network.differs = false,
        _ => {}
    }
}

/// Walks to the end, and checks each step.
#[track_caller]
fn walk(wanted: Result<&Settings, &Error>, mut scene: Scene, world: World) -> Step {
    let start = scene.clone();
    let mut taken = Vec::new();
    loop {
        let step = next(wanted, &scene.survey, &scene.memory);
        // A refused registration ends the run of a process that has created a certificate.
        let refused = step == Step::RegisterThing && world.refuses && scene.memory.has_created;
        let circle = goes_round(&taken, &step);
        let stays = match &step {
            Step::Renewal(_) => Some(&mut scene.memory.renewal_stays),
            Step::OwnKey(..) => Some(&mut scene.memory.own_key_stays),
            Step::WriteNetwork(_) => Some(&mut scene.memory.network_stays),
            _ => None,
        };
        if let (Some(why), Some(stays)) = (&circle, stays) {
            *stays = Some(why.clone());
            continue;
        }
        if step.is_end() || refused || circle.is_some() {
            break;
        }
        assert_may_be_taken(wanted, &scene, &step);
        apply(&step, &mut scene, &world);
        taken.push(step);
        assert!(taken.len() <= MOST_STEPS, "{start:?}: {taken:?}");
    }
    let asks = |step: &&Step| matches!(step, Step::RequestCertificate | Step::CreateCertificate);
    let asked = taken.iter().filter(asks);
    let asked = asked.count();
    assert!(
        asked <= 1,
        "{asked} certificates in one run: {start:?}: {taken:?}"
    );
    let last = next(wanted, &scene.survey, &scene.memory);
    // If all steps help, no walk ends in a circle.
    if world.useless.is_none() {
        let registers = last == Step::RegisterThing;
        assert!(
            last.is_end() || registers,
            "{start:?}: {taken:?}, then {last:?}"
        );
    }
    last
}

#[track_caller]
fn assert_may_be_taken(wanted: Result<&Settings, &Error>, scene: &Scene, step: &Step) {
    if let (Step::SetAside(_), IdentityState::Complete(identity)) = (step, &scene.survey.identity) {
        let serves = match &scene.survey.tpm {
            Some(Ok(tpm)) => tpm.srk.is(&identity.srk_name),
            _ => true,
        };
        assert!(!serves, "{scene:?}: {step:?}");
    }
    if let (Ok(settings), IdentityState::Complete(identity)) = (wanted, &scene.survey.identity) {
        assert_is_tried(settings, identity, step);
    }
    // If what is wanted is unknown, nothing is made of it.
    let needs_settings = step.is_enrollment()
        || matches!(
            step,
            Step::MakeIdentity
                | Step::RenewRequest
                | Step::PublishRequest
                | Step::SetAccess
                | Step::RemoveConfiguration
        );
    assert!(wanted.is_ok() || !needs_settings, "{scene:?}: {step:?}");
}

/// While the certificate in service is good, none takes its place that AWS IoT Core has refused; and none that it has not
/// accepted, unless the end is near.
#[track_caller]
fn assert_is_tried(settings: &Settings, identity: &Complete, step: &Step) {
    let trial = match (step, &identity.next) {
        (Step::Accept(..) | Step::Renewal(RenewalStep::AcceptUntried(..)), _)
            if identity.needs_trial(settings) =>
        {
            identity.offer_trial
        }
        (Step::Renewal(RenewalStep::ChangeIdentities { .. }), Next::Candidate(next)) => next.trial,
        _ => return,
    };
    let is_good = match trial {
        None | Some(Trial::Refused) => false,
        Some(Trial::Unanswered) => identity.renewal.is_urgent(),
        Some(Trial::Accepted | Trial::Failed) => true,
    };
    assert!(is_good, "{identity:?}: {step:?}");
}

fn world() -> World {
    World {
        primaries: vec![OURS.into()],
        empty_auth: true,
        useless: None,
        refuses: false,
        trial: Trial::Accepted,
    }
}

fn useless() -> Vec<Option<Step>> {
    let chain = || Box::new(chain());
    vec![
        None,
        Some(Step::RemoveStaging),
        Some(Step::RepairStore),
        Some(Step::ResetLockout),
        Some(Step::ExaminePrimaries),
        Some(Step::TryRootKey),
        Some(Step::RestoreRootKey(String::new())),
        Some(Step::ConfirmLoss),
        Some(Step::TakeBack("".into())),
        Some(Step::SetAside(String::new())),
        Some(Step::RemoveConfiguration),
        Some(Step::MakeIdentity),
        Some(Step::SetAccess),
        Some(Step::RenewRequest),
        Some(Step::PublishRequest),
        Some(Step::RequestCertificate),
        Some(Step::CreateCertificate),
        Some(Step::RegisterThing),
        Some(Step::ForgetOwnership),
        Some(Step::OpenReply(wrapped())),
        Some(Step::Accept(chain(), None)),
        Some(Step::FillToken(chain())),
        Some(Step::WriteConfiguration(chain())),
        Some(Step::WriteNetwork(State::Done)),
        Some(Step::RemoveClaim),
    ]
}

fn useless_of_renewals() -> Vec<Option<Step>> {
    let chain = || Box::new(chain());
    let certificate = chain();
    let steps = [
        RenewalStep::Ask(chain()),
        RenewalStep::Request(chain()),
        RenewalStep::RequestForNext(chain()),
        RenewalStep::Try(Tried::Offered, chain()),
        RenewalStep::Try(Tried::Next, chain()),
        RenewalStep::Try(Tried::InService, chain()),
        RenewalStep::AcceptUntried(chain(), None),
        RenewalStep::TakeBackCertificate(chain()),
        RenewalStep::MakeNext,
        RenewalStep::AskForNext(chain()),
        RenewalStep::RemoveNext(String::new()),
        RenewalStep::OpenNextReply(wrapped()),
        RenewalStep::AcceptNext(chain(), None),
        RenewalStep::FillNextToken(chain()),
        RenewalStep::ChangeIdentities {
            certificate,
            again: false,
        },
        RenewalStep::KeepPrevious,
        RenewalStep::TakeBackIdentity { again: false },
        RenewalStep::PutBackNext,
        RenewalStep::NoteTakenUp,
        RenewalStep::RemovePrevious,
    ];
    let steps = steps.map(|step| Some(Step::Renewal(step)));
    [None, Some(Step::RemoveStaging)]
        .into_iter()
        .chain(steps)
        .collect()
}

/// With known settings, and with unknown ones.
fn both_ways(scene: &Scene, world: &World) {
    walk(Ok(&Settings::default()), scene.clone(), world.clone());
    let why = Error::settings("firstboot.json: cut off");
    walk(Err(&why), scene.clone(), world.clone());
}

#[test]
fn walks_from_every_identity_end_well() {
    let useless = useless();
    let own_keys = own_keys::all();
    for number in 0..IDENTITIES {
        let mut scene = identity(&mut Bits(number));
        // Not a factor of its own either: their number has none in common with those of the other choices.
        let own_key = &own_keys[number as usize % own_keys.len()].0;
        complete(&mut scene, |i| i.own_key = own_key.clone());
        let mut refusals = vec![false];
        let asks = |i: &Complete| {
            let offer = &i.offer;
            offer.is_by_request() || matches!(offer, Offer::Reply(_))
        };
        if matches!(&scene.survey.identity, IdentityState::Complete(i) if asks(i)) {
            refusals.push(true);
        }
        for refuses in refusals {
            // Every kind of useless step, spread over the surveys that differ in what the steps do not look at.
            let kind = (number / 7) as usize % useless.len();
            for useless in [None, useless[kind].clone()] {
                let world = World {
                    refuses,
                    useless,
                    ..world()
                };
                both_ways(&scene, &world);
            }
        }
        for tpm in [None, Some(Err("no TPM".into()))] {
            let mut scene = scene.clone();
            scene.survey.tpm = tpm;
            both_ways(&scene, &world());
        }
    }
}

#[test]
fn walks_from_every_tpm_end_well() {
    for number in 0..TPMS {
        let mut scene = awaiting();
        let mut world = world();
        tpm(&mut Bits(number), &mut scene, &mut world);
        let enrolled = |scene: &mut Scene| {
            complete(scene, |i| {
                i.certificate = Some(chain());
                (i.token_is_ready, i.configuration_is_written) = (true, true);
            });
        };
        for kind in 0..6 {
            let mut scene = scene.clone();
            match kind {
                0 => {}
                1 => enrolled(&mut scene),
                2 => scene.survey.identity = IdentityState::Absent,
                3 => scene.survey.identity = IdentityState::Defective("pin is missing".into()),
                4 => scene.survey.identity = IdentityState::StoreUpgradeCut,
                _ => scene.survey.identity = IdentityState::Foreign("theirs".into()),
            }
            for useless in useless() {
                let world = World {
                    useless,
                    ..world.clone()
                };
                both_ways(&scene, &world);
            }
        }
    }
}

/// Whatever is wrong with the networks' own key, and whatever fails of it, the walk ends as it does without it.
#[test]
fn no_own_key_changes_where_a_walk_ends() {
    let offers = [
        Offer::Pending("a certificate".into()),
        Offer::Certificate(Box::new(chain()), None),
        Offer::CanRequest,
    ];
    let mut scenes: Vec<Scene> = offers
        .into_iter()
        .map(|offer| {
            let mut scene = awaiting();
            complete(&mut scene, |i| i.offer = offer);
            scene
        })
        .collect();
    scenes.push(enrolled());
    let mut renamed = enrolled();
    complete(&mut renamed, |i| {
        i.is_for_another_name = Some("gw-0".into());
    });
    scenes.push(renamed);
    let settings = Settings::default();
    let mut useless = vec![None, Some(Step::WriteNetwork(State::Done))];
    let steps = own_keys::all().into_iter().map(|(own, _)| {
        let mut scene = enrolled();
        complete(&mut scene, |i| i.own_key = own);
        Some(scene.next(&settings)).filter(|step| matches!(step, Step::OwnKey(..)))
    });
    useless.extend(steps);
    for scene in scenes {
        for (own, _) in own_keys::all() {
            let mut with = scene.clone();
            complete(&mut with, |i| i.own_key = own.clone());
            for useless in &useless {
                for refuses in [false, true] {
                    let world = World {
                        useless: useless.clone(),
                        refuses,
                        ..world()
                    };
                    let usual = walk(Ok(&settings), scene.clone(), world.clone());
                    let last = walk(Ok(&settings), with.clone(), world);
                    match (&usual, &last) {
                        // There may be something to say.
                        (Step::Done(_), Step::Done(_)) => {}
                        _ => assert_eq!(usual, last, "{with:?}"),
                    }
                }
            }
        }
    }
}

/// Whatever is wrong with a renewal, and whatever fails of it, ends in service.
#[test]
fn of_every_renewal() {
    let settings = [
        renewing(RenewedKey::New),
        renewing(RenewedKey::Keep),
        Settings::default(),
    ];
    let useless = useless_of_renewals();
    let trials = [Trial::Accepted, Trial::Unanswered, Trial::Refused];
    for number in (0..RENEWALS).step_by(STRIDE) {
        let bits = &mut Bits(number);
        let scene = renewal(bits);
        for (useless, trial) in useless.iter().zip(trials.iter().cycle()) {
            for settings in &settings {
                for refuses in [false, true] {
                    let world = World {
                        useless: useless.clone(),
                        refuses,
                        trial: *trial,
                        ..world()
                    };
                    let last = walk(Ok(settings), scene.clone(), world);
                    assert!(
                        !matches!(last, Step::Stop(..) | Step::Wait(..)),
                        "{scene:?}: {last:?}"
                    );
                }
            }
        }
    }
}

/// Each state of a renewal of a device in service.
fn renewal(bits: &mut Bits) -> Scene {
    let mut scene = enrolled();
    scene.survey.interrupted = bits.one();
    scene.memory.leaves_trials = bits.one();
    scene.memory.repeats_changes = scene.memory.leaves_trials;
    complete(&mut scene, |i| {
        i.renewal.due = bits.one().then(|| "due".into());
        i.renewal.warning = bits.one().then(|| "late".into());
        i.renewal.is_over = bits.one() && i.renewal.is_urgent();
        i.renewal.is_asked_for = bits.one();
        i.request_is_published = bits.one();
        i.previous = match bits.below(5) {
            0 => Previous::Absent,
            1 => Previous::Kept,
            2 => Previous::Undated,
            3 => Previous::Spent,
            _ => Previous::Newer,
        };
        let back = match bits.below(4) {
            0 => None,
            1 => Some(Back::Certificate(Box::new(chain()))),
            2 => Some(Back::Identity { has_failed: false }),
            _ => Some(Back::Identity { has_failed: true }),
        };
        let is_refused = bits.one();
        i.probation = back.map(|back| Probation { back, is_refused });
        (i.offer, i.offer_trial) = (offer(bits), trial(bits));
        let mut next = candidate();
        next.request_is_published = bits.one();
        next.certificate = bits.one().then(chain);
        next.token_is_ready = bits.one() && next.certificate.is_some();
        (next.offer, next.trial) = (offer(bits), trial(bits));
        i.next = match bits.below(5) {
            0 => Next::Absent,
            1 => Next::Unknown("i/o".into()),
            2 => Next::Useless("torn".into()),
            3 => Next::Former,
            _ => Next::Candidate(Box::new(next)),
        };
    });
    scene
}

fn offer(bits: &mut Bits) -> Offer {
    match bits.below(5) {
        0 => Offer::Pending("a certificate".into()),
        1 => Offer::Certificate(Box::new(chain()), None),
        2 => Offer::Reply(wrapped()),
        3 => Offer::CanRequest,
        _ => Offer::Refused(refusal()),
    }
}

fn trial(bits: &mut Bits) -> Option<Trial> {
    [
        None,
        Some(Trial::Accepted),
        Some(Trial::Unanswered),
        Some(Trial::Refused),
        Some(Trial::Failed),
    ][bits.below(5) as usize]
}

const RENEWALS: u32 = (5 * 4 * 5 * 5 * 5 * 5 * 5) << 11;
/// A prime that divides none of the counts: any few of the choices come in all combinations.
const STRIDE: usize = 20_011;
