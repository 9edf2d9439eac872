//! Walks from every survey that there can be, with a model of what the steps do: that they help, that one kind of them
//! does not, and that AWS IoT Core refuses what it is shown.

use firstboot_formats::x509::Chain;

use super::table::{awaiting, wrapped};
use super::{MOST_STEPS, Step, goes_round, next};
use crate::enrollment::{Offer, Refusal};
use crate::error::Error;
use crate::settings::Settings;
use crate::survey::{Complete, IdentityState, Survey};
use crate::tpm::Srk;

const OURS: &str = "000b01";
const OTHER: &str = "000b02";

fn chain() -> Chain {
    #[allow(clippy::unwrap_used)]
    Chain::stored(include_bytes!("test-certificate.pem")).unwrap()
}

/// What a walk meets beside what can be seen.
#[derive(Clone)]
struct World {
    /// The Names of the storage root keys that the TPM makes.
    primaries: Vec<String>,
    /// The storage root key takes an empty authorization value.
    empty_auth: bool,
    /// Steps of this kind change nothing.
    useless: Option<Step>,
    /// AWS IoT Core refuses to register the thing.
    refuses: bool,
    has_asked: bool,
}

/// Bits of a number, one after the other.
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

fn complete(survey: &mut Survey, change: impl FnOnce(&mut Complete)) {
    if let IdentityState::Complete(identity) = &mut survey.identity {
        change(identity);
    }
}

/// A survey of each identity below a TPM that serves it.
fn identity(bits: &mut Bits) -> Survey {
    let mut survey = awaiting();
    survey.interrupted = bits.one();
    survey.configuration_is_ours = bits.one();
    complete(&mut survey, |i| {
        i.access_is_right = bits.one();
        i.request_is_current = bits.one();
        i.request_is_published = bits.one();
        i.certificate = bits.one().then(chain);
        i.token_is_verified = bits.one() && i.certificate.is_some();
        i.configuration_is_written = bits.one() && i.token_is_verified;
        i.is_for_another_name = (bits.one() && i.certificate.is_some()).then(|| "gw-0".into());
        i.ownership_is_spent = bits.one();
        i.claim_is_spent = bits.one();
        i.offer = match bits.below(6) {
            0 => Offer::Nothing("a certificate".into()),
            1 => Offer::Request,
            2 => Offer::Registration,
            3 => Offer::Certificate(Box::new(chain()), None),
            4 => Offer::Reply(wrapped()),
            _ => Offer::Refused(Refusal {
                path: "gw-1.pem".into(),
                reason: "expired".into(),
            }),
        };
    });
    survey
}

const IDENTITIES: u32 = 6 << 11;

/// The survey with each TPM, and what is found out about it.
fn tpm(bits: &mut Bits, survey: &mut Survey, world: &mut World) {
    world.empty_auth = bits.one();
    world.primaries = match bits.below(3) {
        0 => vec![OURS.into()],
        1 => vec![OTHER.into()],
        _ => Vec::new(),
    };
    if bits.one() {
        survey.set_aside.push((OTHER.into(), "orphan-1".into()));
    }
    let srk = |name: &str, no_da| Srk::Present {
        name: name.into(),
        no_da,
    };
    if let Some(Ok(tpm)) = &mut survey.tpm {
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

/// What the step does to what can be seen next.
fn apply(step: &Step, survey: &mut Survey, world: &mut World) {
    let same = |useless: &Step| std::mem::discriminant(useless) == std::mem::discriminant(step);
    if world.useless.as_ref().is_some_and(same) {
        return;
    }
    let srk_name = match &survey.tpm {
        Some(Ok(tpm)) => match &tpm.srk {
            Srk::Present { name, .. } => Some(name.clone()),
            _ => None,
        },
        _ => None,
    };
    let made = |name: String| {
        let mut identity = awaiting().identity;
        if let IdentityState::Complete(complete) = &mut identity {
            complete.srk_name = name;
            complete.request_is_published = false;
        }
        identity
    };
    match step {
        Step::RemoveStaging => survey.interrupted = false,
        Step::RepairStore => survey.identity = awaiting().identity,
        Step::ResetLockout => {
            if let Some(Ok(tpm)) = &mut survey.tpm {
                (tpm.lockout.counter, tpm.lockout.locked) = (0, false);
            }
        }
        Step::ExaminePrimaries => survey.findings.primaries = Some(world.primaries.clone()),
        Step::TryRootKey => {
            survey.findings.empty_auth = srk_name.map(|name| (name, world.empty_auth));
        }
        Step::RestoreRootKey(name) => {
            if let Some(Ok(tpm)) = &mut survey.tpm {
                tpm.srk = Srk::Present {
                    name: name.clone(),
                    no_da: true,
                };
            }
        }
        Step::ConfirmLoss => complete(survey, |_| ()),
        Step::TakeBack(_) => {
            survey.set_aside.clear();
            survey.identity = made(OTHER.into());
        }
        Step::SetAside(_) => survey.identity = IdentityState::Absent,
        Step::RemoveConfiguration => survey.configuration_is_ours = false,
        Step::MakeIdentity => {
            let name = srk_name.unwrap_or_else(|| OTHER.into());
            if let Some(Ok(tpm)) = &mut survey.tpm {
                tpm.srk = Srk::Present {
                    name: name.clone(),
                    no_da: true,
                };
            }
            survey.identity = made(name);
        }
        _ => complete(survey, |i| enrollment(step, i, world)),
    }
    if *step == Step::ConfirmLoss
        && let IdentityState::Complete(identity) = &survey.identity
    {
        survey.findings.lost = Some(identity.srk_name.clone());
    }
}

fn enrollment(step: &Step, identity: &mut Complete, world: &mut World) {
    match step {
        Step::SetAccess => identity.access_is_right = true,
        Step::RenewRequest => {
            (identity.request_is_current, identity.request_is_published) = (true, true);
        }
        Step::PublishRequest => identity.request_is_published = true,
        Step::AskForCertificate => {
            identity.offer = Offer::Registration;
            world.has_asked = true;
        }
        Step::RegisterThing if world.refuses => identity.offer = Offer::Request,
        Step::RegisterThing => identity.offer = Offer::Certificate(Box::new(chain()), None),
        Step::ForgetOwnership => identity.ownership_is_spent = false,
        Step::OpenReply(_) | Step::Accept(..) => {
            identity.certificate = Some(chain());
            identity.offer = Offer::Nothing("a newer certificate".into());
            identity.is_for_another_name = None;
            (
                identity.token_is_verified,
                identity.configuration_is_written,
            ) = (false, false);
        }
        Step::FillToken(_) => identity.token_is_verified = true,
        Step::WriteConfiguration(_) => identity.configuration_is_written = true,
        Step::RemoveClaim => identity.claim_stays = Some("read-only".into()),
        _ => {}
    }
}

/// Walks to the end, and checks each step.
#[track_caller]
fn walk(wanted: Result<&Settings, &Error>, mut survey: Survey, mut world: World) {
    let start = survey.clone();
    let mut taken = Vec::new();
    loop {
        let step = next(wanted, &survey);
        // A registration that is refused ends the run of a process that has asked.
        let refused = step == Step::RegisterThing && world.refuses && world.has_asked;
        if step.is_end() || refused || goes_round(&taken, &step).is_some() {
            break;
        }
        assert_may_be_taken(wanted, &survey, &step);
        apply(&step, &mut survey, &mut world);
        taken.push(step);
        assert!(taken.len() <= MOST_STEPS, "{start:?}: {taken:?}");
    }
    let asked = taken
        .iter()
        .filter(|step| **step == Step::AskForCertificate);
    let asked = asked.count();
    assert!(
        asked <= 1,
        "{asked} certificates in one run: {start:?}: {taken:?}"
    );
    // Whatever a walk comes to where all steps help, it is no circle.
    if world.useless.is_none() {
        let last = next(wanted, &survey);
        let registers = last == Step::RegisterThing;
        assert!(
            last.is_end() || registers,
            "{start:?}: {taken:?}, then {last:?}"
        );
    }
}

#[track_caller]
fn assert_may_be_taken(wanted: Result<&Settings, &Error>, survey: &Survey, step: &Step) {
    if let (Step::SetAside(_), IdentityState::Complete(identity)) = (step, &survey.identity) {
        let serves = match &survey.tpm {
            Some(Ok(tpm)) => tpm.srk.is(&identity.srk_name),
            _ => true,
        };
        assert!(!serves, "{survey:?}: {step:?}");
    }
    // Where nobody can say what is wanted, nothing is made of it.
    let needs_settings = step.is_enrollment()
        || matches!(
            step,
            Step::MakeIdentity
                | Step::RenewRequest
                | Step::PublishRequest
                | Step::SetAccess
                | Step::RemoveConfiguration
        );
    assert!(wanted.is_ok() || !needs_settings, "{survey:?}: {step:?}");
}

fn world() -> World {
    World {
        primaries: vec![OURS.into()],
        empty_auth: true,
        useless: None,
        refuses: false,
        has_asked: false,
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
        Some(Step::AskForCertificate),
        Some(Step::RegisterThing),
        Some(Step::ForgetOwnership),
        Some(Step::OpenReply(wrapped())),
        Some(Step::Accept(chain(), None)),
        Some(Step::FillToken(chain())),
        Some(Step::WriteConfiguration(chain())),
        Some(Step::RemoveClaim),
    ]
}

/// With what is wanted, and without.
fn both_ways(survey: &Survey, world: &World) {
    walk(Ok(&Settings::default()), survey.clone(), world.clone());
    let why = Error::settings("firstboot.json: cut off");
    walk(Err(&why), survey.clone(), world.clone());
}

#[test]
fn of_every_identity() {
    let useless = useless();
    for number in 0..IDENTITIES {
        let survey = identity(&mut Bits(number));
        let mut refusals = vec![false];
        let asks = |i: &Complete| matches!(i.offer, Offer::Request | Offer::Registration);
        if matches!(&survey.identity, IdentityState::Complete(i) if asks(i)) {
            refusals.push(true);
        }
        for refuses in refusals {
            // All kinds of steps that do not help, spread over the surveys that differ in what they do not look at.
            let kind = (number / 7) as usize % useless.len();
            for useless in [None, useless[kind].clone()] {
                let world = World {
                    refuses,
                    useless,
                    ..world()
                };
                both_ways(&survey, &world);
            }
        }
        for tpm in [None, Some(Err("no TPM".into()))] {
            let mut survey = survey.clone();
            survey.tpm = tpm;
            both_ways(&survey, &world());
        }
    }
}

#[test]
fn of_every_tpm() {
    for number in 0..TPMS {
        let mut survey = awaiting();
        let mut world = world();
        tpm(&mut Bits(number), &mut survey, &mut world);
        let enrolled = |survey: &mut Survey| {
            complete(survey, |i| {
                i.certificate = Some(chain());
                (i.token_is_verified, i.configuration_is_written) = (true, true);
            });
        };
        for kind in 0..6 {
            let mut survey = survey.clone();
            match kind {
                0 => {}
                1 => enrolled(&mut survey),
                2 => survey.identity = IdentityState::Absent,
                3 => survey.identity = IdentityState::Defective("pin is missing".into()),
                4 => survey.identity = IdentityState::TornUpgrade,
                _ => survey.identity = IdentityState::Foreign("theirs".into()),
            }
            for useless in useless() {
                let world = World {
                    useless,
                    ..world.clone()
                };
                both_ways(&survey, &world);
            }
        }
    }
}
