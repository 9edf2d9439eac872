//! Walks from every possible survey, with a model of what the steps do: all of them help; one kind of them does not;
//! AWS IoT Core refuses what it is shown.

use super::context::RefusedReply;
use super::next::table::{Scene, awaiting, candidate, chain, enrolled, wrapped};
use super::{Complete, IdentityState, MOST_STEPS, Next, Renewal, Step, goes_round, next};
use crate::enrollment::{Offer, Refusal};
use crate::error::Error;
use crate::settings::{Renew, RenewedKey, Settings};
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
        i.offer = match bits.below(6) {
            0 => Offer::Pending("a certificate".into()),
            1 => Offer::CanCreate,
            2 => Offer::CanRegister,
            3 => Offer::Certificate(Box::new(chain()), None),
            4 => Offer::Reply(wrapped()),
            _ => Offer::Refused(refusal()),
        };
    });
    scene
}

const IDENTITIES: u32 = 6 << 13;

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
    let same = |useless: &Step| std::mem::discriminant(useless) == std::mem::discriminant(step);
    if world.useless.as_ref().is_some_and(same) {
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
            scene.memory.refused_reply = Some(RefusedReply {
                sha256: wrapped.sha256.clone(),
                refusal: refusal(),
            });
        }
        Step::RemoveClaim => scene.memory.claim_stays = Some("read-only".into()),
        Step::MakeNext
        | Step::AskForNext(_)
        | Step::RemoveNext(_)
        | Step::OpenNextReply(_)
        | Step::AcceptNext(..)
        | Step::FillNextToken(_)
        | Step::ProveNext { .. }
        | Step::ChangeIdentities
        | Step::KeepPrevious
        | Step::RemovePrevious => rekeying(step, scene, world),
        _ => complete(scene, |i| enrollment(step, i, world)),
    }
    if *step == Step::ConfirmLoss
        && let IdentityState::Complete(identity) = &scene.survey.identity
    {
        scene.memory.lost = Some(identity.srk_name.clone());
    }
}

/// What a step of a renewal with another key does; where the world refuses, it fails.
fn rekeying(step: &Step, scene: &mut Scene, world: &World) {
    if world.refuses && !matches!(step, Step::OpenNextReply(_)) {
        scene.memory.new_key_stays = Some("read-only".into());
        return;
    }
    match step {
        Step::OpenNextReply(wrapped) if world.refuses => {
            scene.memory.refused_reply = Some(RefusedReply {
                sha256: wrapped.sha256.clone(),
                refusal: refusal(),
            });
        }
        Step::ProveNext { certificate, .. } => {
            scene.memory.proved = Some(certificate.fingerprint());
        }
        Step::ChangeIdentities => complete(scene, |i| {
            (i.next, i.renewal) = (Next::Former, Renewal::default());
        }),
        Step::KeepPrevious => complete(scene, |i| {
            (i.next, i.previous_is_spent) = (Next::Absent, false);
        }),
        Step::RemovePrevious => complete(scene, |i| i.previous_is_spent = false),
        Step::RemoveNext(_) => complete(scene, |i| i.next = Next::Absent),
        Step::MakeNext => complete(scene, |i| {
            i.next = Next::Candidate(Box::new(candidate()));
        }),
        Step::AskForNext(_) => complete(scene, |i| {
            i.renewal.is_asked_for = true;
            if let Next::Candidate(next) = &mut i.next {
                next.request_is_published = true;
            }
        }),
        Step::OpenNextReply(_) | Step::AcceptNext(..) => complete(scene, |i| {
            if let Next::Candidate(next) = &mut i.next {
                next.certificate = Some(chain());
                next.offer = Offer::Pending("a newer certificate".into());
            }
        }),
        _ => complete(scene, |i| {
            if let Next::Candidate(next) = &mut i.next {
                next.token_is_ready = true;
            }
        }),
    }
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
        Step::OpenReply(_) | Step::Accept(..) => {
            identity.certificate = Some(chain());
            identity.offer = Offer::Pending("a newer certificate".into());
            identity.is_for_another_name = None;
            identity.renewal = Renewal::default();
            (identity.token_is_ready, identity.configuration_is_written) = (false, false);
        }
        Step::AskForRenewal(_) => {
            (identity.renewal.is_asked_for, identity.request_is_published) = (true, true);
        }
        Step::FillToken(_) => identity.token_is_ready = true,
        Step::WriteConfiguration(_) => identity.configuration_is_written = true,
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
        if step.is_end() || refused || goes_round(&taken, &step).is_some() {
            break;
        }
        assert_may_be_taken(wanted, &scene, &step);
        apply(&step, &mut scene, &world);
        taken.push(step);
        assert!(taken.len() <= MOST_STEPS, "{start:?}: {taken:?}");
    }
    let asked = taken
        .iter()
        .filter(|step| **step == Step::CreateCertificate);
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

fn world() -> World {
    World {
        primaries: vec![OURS.into()],
        empty_auth: true,
        useless: None,
        refuses: false,
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
        Some(Step::CreateCertificate),
        Some(Step::RegisterThing),
        Some(Step::ForgetOwnership),
        Some(Step::OpenReply(wrapped())),
        Some(Step::Accept(chain(), None)),
        Some(Step::FillToken(chain())),
        Some(Step::WriteConfiguration(chain())),
        Some(Step::AskForRenewal(chain())),
        Some(Step::MakeNext),
        Some(Step::AskForNext(chain())),
        Some(Step::RemoveNext(String::new())),
        Some(Step::OpenNextReply(wrapped())),
        Some(Step::AcceptNext(chain(), None)),
        Some(Step::FillNextToken(chain())),
        Some(Step::ProveNext {
            certificate: chain(),
            again: false,
        }),
        Some(Step::ChangeIdentities),
        Some(Step::KeepPrevious),
        Some(Step::RemovePrevious),
        Some(Step::RemoveClaim),
    ]
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
    for number in 0..IDENTITIES {
        let scene = identity(&mut Bits(number));
        let mut refusals = vec![false];
        let asks = |i: &Complete| {
            let offer = &i.offer;
            matches!(
                offer,
                Offer::CanCreate | Offer::CanRegister | Offer::Reply(_)
            )
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

/// Whatever is wrong with a renewal, and whatever fails of it, ends in service.
#[test]
fn of_every_renewal() {
    let with_new_key = Settings {
        renew: Some(Renew {
            key: RenewedKey::New,
            ..Renew::default()
        }),
        ..Settings::default()
    };
    let useless = useless();
    for number in 0..RENEWALS {
        let scene = renewal(&mut Bits(number));
        // As in `of_every_identity`.
        let kind = (number / 7) as usize % useless.len();
        for settings in [&with_new_key, &Settings::default()] {
            for refuses in [false, true] {
                for useless in [None, useless[kind].clone()] {
                    let world = World {
                        useless,
                        refuses,
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
    complete(&mut scene, |i| {
        i.renewal.due = bits.one().then(|| "due".into());
        i.renewal.is_asked_for = bits.one();
        i.request_is_published = bits.one();
        i.previous_is_spent = bits.one();
        let mut next = candidate();
        next.request_is_published = bits.one();
        next.certificate = bits.one().then(chain);
        next.token_is_ready = bits.one() && next.certificate.is_some();
        next.offer = match bits.below(4) {
            0 => Offer::Pending("a certificate".into()),
            1 => Offer::Certificate(Box::new(chain()), None),
            2 => Offer::Reply(wrapped()),
            _ => Offer::Refused(refusal()),
        };
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

const RENEWALS: u32 = (4 * 5) << 8;
