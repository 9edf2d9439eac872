//! Walks from every possible survey, with a model of what the steps do: all of them help; one kind of them does not;
//! AWS IoT Core refuses what it is shown.

mod scenes;
mod world;

use super::next::own_key::table as own_keys;
use super::next::renewal::table::renewing;
use super::next::table::{Scene, awaiting, chain, enrolled, wrapped};
use super::{
    Complete, Goal, IdentityState, MOST_STEPS, Memory, Next, RenewalStep, State, Step, Tried,
    goes_round, next,
};
use crate::enrollment::Offer;
use crate::error::Error;
use crate::identity::Trial;
use crate::settings::{RenewedKey, Settings};

use scenes::{Bits, IDENTITIES, RENEWALS, STRIDE, TPMS, identity, renewal, tpm};
use world::{OURS, World, apply, complete};

/// Walks to the end, and checks each step and the end.
#[track_caller]
fn walk(wanted: Result<&Settings, &Error>, mut scene: Scene, world: World) -> Step {
    let start = scene.clone();
    let taken = go(wanted, &mut scene, &world, Goal::Greengrass);
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

/// Takes the steps, as far as this goal has them, and checks each.
#[track_caller]
fn go(
    wanted: Result<&Settings, &Error>,
    scene: &mut Scene,
    world: &World,
    goal: Goal,
) -> Vec<Step> {
    let start = scene.clone();
    let mut taken = Vec::new();
    loop {
        let step = next(wanted, &scene.survey, &scene.memory);
        // A refused registration ends the run of a process that has created a certificate.
        let refused = step == Step::RegisterThing && world.refuses && scene.memory.has_created;
        let beyond = goal == Goal::Renewal && !(step.is_renewal() && scene.survey.takes_renewals());
        if step.is_end() || refused || beyond {
            return taken;
        }
        if let Some(why) = goes_round(&taken, &step) {
            let all_help = world.useless.is_none() && !world.refuses;
            assert!(!all_help, "{start:?}: {taken:?}: {why}");
            let stays = match &step {
                Step::Renewal(_) => &mut scene.memory.renewal_stays,
                Step::OwnKey(..) => &mut scene.memory.own_key_stays,
                Step::WriteNetwork(_) => &mut scene.memory.network_stays,
                _ => return taken,
            };
            *stays = Some(why);
            continue;
        }
        assert_may_be_taken(wanted, scene, &step);
        apply(wanted.ok(), &step, scene, world);
        taken.push(step);
        assert!(taken.len() <= MOST_STEPS, "{start:?}: {taken:?}");
    }
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

fn useless_of_renewals() -> Vec<Step> {
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
    std::iter::once(Step::RemoveStaging)
        .chain(steps.map(Step::Renewal))
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
    // Not a factor of their own: all come with all others, as their numbers have no common divisor.
    assert!(
        [2, 3, 5, 7]
            .iter()
            .all(|prime| !own_keys.len().is_multiple_of(*prime))
    );
    for number in 0..IDENTITIES {
        let mut scene = identity(&mut Bits(number));
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

/// What AWS IoT Core may say to a certificate.
const TRIALS: [Trial; 3] = [Trial::Accepted, Trial::Unanswered, Trial::Refused];

fn settings_of_renewals() -> [Settings; 3] {
    [
        renewing(RenewedKey::New),
        renewing(RenewedKey::Keep),
        Settings::default(),
    ]
}

/// Whatever is wrong with a renewal, and whatever fails of it, ends in service.
#[test]
fn of_every_renewal() {
    let useless = useless_of_renewals();
    for (turn, number) in (0..RENEWALS).step_by(STRIDE).enumerate() {
        let scene = renewal(&mut Bits(number));
        let all_help = TRIALS.map(|trial| (None, trial));
        // Each useless step meets each answer, in turn.
        let one_does_not = useless
            .iter()
            .enumerate()
            .map(|(i, step)| (Some(step.clone()), TRIALS[(turn + i) % TRIALS.len()]));
        for (useless, trial) in all_help.into_iter().chain(one_does_not) {
            for settings in &settings_of_renewals() {
                for refuses in [false, true] {
                    let world = World {
                        useless: useless.clone(),
                        refuses,
                        trial,
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

/// Daily looks: more than any renewal takes.
const LOOKS: usize = 8;

/// A look may have Greengrass restarted. While AWS IoT Core says the same, that comes to an end: no device restarts
/// Greengrass every day.
#[test]
fn restarts_come_to_an_end() {
    // A look is longer than a walk.
    for number in (0..RENEWALS).step_by(7 * STRIDE) {
        let start = renewal(&mut Bits(number));
        for settings in &settings_of_renewals() {
            for (first, then) in TRIALS
                .map(|first| TRIALS.map(|then| (first, then)))
                .as_flattened()
            {
                for refuses in [false, true] {
                    let mut scene = start.clone();
                    let world = |trial: &Trial| World {
                        refuses,
                        trial: *trial,
                        ..world()
                    };
                    look(settings, &mut scene, &world(first));
                    let mut restarts = Vec::new();
                    while !restarts.ends_with(&[false, false]) {
                        restarts.push(look(settings, &mut scene, &world(then)));
                        assert!(
                            restarts.len() < LOOKS,
                            "{start:?}, {first:?}, then {then:?}, {refuses}: {restarts:?}"
                        );
                    }
                }
            }
        }
    }
}

/// What firstboot-renew.service does: `firstboot renew`, and the restart of firstboot-enroll.service where that is to go
/// on. Returns whether it is.
fn look(settings: &Settings, scene: &mut Scene, world: &World) -> bool {
    scene.memory = Memory::default();
    go(Ok(settings), scene, world, Goal::Renewal);
    scene.memory = Memory {
        leaves_trials: true,
        ..Memory::default()
    };
    let restarts = scene.next(settings).needs_restart();
    if restarts {
        scene.memory.repeats_changes = true;
        go(Ok(settings), scene, world, Goal::Greengrass);
    }
    restarts
}
