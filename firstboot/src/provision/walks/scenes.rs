//! Surveys of every kind, each by its number.

use super::world::{OTHER, OURS, World, complete, refusal};
use crate::enrollment::Offer;
use crate::identity::Trial;
use crate::provision::next::renewal::table::candidate;
use crate::provision::next::table::{Scene, awaiting, chain, enrolled, wrapped};
use crate::provision::{Back, Next, Previous, Probation};
use crate::tpm::Srk;

/// The bits of a number, one after the other.
pub struct Bits(pub u32);

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

/// A survey of any identity, below a TPM that serves it.
pub fn identity(bits: &mut Bits) -> Scene {
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

pub const IDENTITIES: u32 = 7 << 13;

/// Adds any TPM to the survey, and what is found out about it.
pub fn tpm(bits: &mut Bits, scene: &mut Scene, world: &mut World) {
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

pub const TPMS: u32 = 2 * 3 * 2 * 16 * 5;

/// Each state of a renewal of a device in service.
pub fn renewal(bits: &mut Bits) -> Scene {
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

pub const RENEWALS: u32 = (5 * 4 * 5 * 5 * 5 * 5 * 5) << 11;
/// A prime that divides none of the counts: any few of the choices come in all combinations.
pub const STRIDE: usize = 20_011;
