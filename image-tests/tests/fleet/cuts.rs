//! The power or the network fails at any packet of the conversation. A second certificate is issued only where it
//! cannot be avoided. `make sweep` has all kinds of cuts, and both keys.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use image_tests::clients::KeyType;
use image_tests::doubles::iot_core::Options;
use image_tests::doubles::tpm_proxy::When;
use image_tests::faults::network::{Cut, Direction, Relay};
use image_tests::faults::power_cut::{FLEET, Kind, SCENARIOS, Stage};

use crate::{Enrolling, exit};

fn stage(name: &str) -> Result<Stage> {
    let mut scenarios = SCENARIOS.into_iter();
    let scenario = scenarios.find(|scenario| scenario.name == name);
    Stage::prepare(scenario.context("no such scenario")?, KeyType::EccP256)
}

/// The cuts of one direction as moments, in order: before the first packet, after it, before the second, …
fn moments(cuts: &[Cut], direction: Direction) -> Vec<usize> {
    let of_direction = cuts.iter().filter(|cut| cut.direction == direction);
    let mut moments: Vec<_> = of_direction
        .map(|cut| 2 * cut.n + usize::from(cut.when == When::After))
        .collect();
    moments.sort_unstable();
    moments
}

/// A second certificate is issued only if the power fails after AWS has received the request, and before its answer is
/// durable. In packets to AWS: after the request. In packets from AWS: around the request's acknowledgement, and before
/// the answer. After the answer and around its acknowledgement, it depends on the scheduler whether the answer becomes
/// durable in time.
#[test]
fn a_second_certificate_is_issued_only_if_the_first_answer_was_lost() -> Result<()> {
    let stage = stage(FLEET)?;
    let points = stage.points(Kind::Packet);
    let (next, doubled) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || -> Result<()> {
        while let Some(point) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
            let aftermath = stage.aftermath(*point)?;
            assert!(aftermath.wrong.is_empty(), "{point}: {:?}", aftermath.wrong);
            match aftermath.certificates {
                1 => {}
                2 => doubled
                    .lock()
                    .map(|mut s| s.push(stage.packet(*point)))
                    .unwrap_or(()),
                more => panic!("{point}: {more} certificates"),
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let working = [scope.spawn(work), scope.spawn(work)];
        working.into_iter().try_for_each(|working| {
            working
                .join()
                .unwrap_or_else(|_| anyhow::bail!("a point is wrong"))
        })
    })?;
    let doubled = doubled.into_inner().unwrap_or_default();
    eprintln!(
        "of {} points {} cost a second certificate: {doubled:?}",
        points.len(),
        doubled.len()
    );
    for (direction, certain, possible) in [(Direction::ToCloud, 1, 3), (Direction::ToDevice, 3, 4)]
    {
        let moments = moments(&doubled, direction);
        let first = *moments.first().context("no point of this direction")?;
        let has_certain = (first..first + certain).all(|moment| moments.contains(&moment));
        let is_possible = moments.iter().all(|&moment| moment < first + possible);
        assert!(has_certain && is_possible, "{doubled:?}");
    }
    Ok(())
}

/// The negative control: if the directory of the ownership token is not synced, a crash leads to one active certificate
/// more, and the sweep sees it.
fn is_noticed_without_a_sync_of_the_token(scenario: &str) -> Result<bool> {
    let mut stage = stage(scenario)?;
    let calls = stage.recording().calls();
    let appears = calls.iter().position(|call| {
        call.to
            .as_ref()
            .is_some_and(|to| to.ends_with("ownership.json"))
    });
    let appears = appears.with_context(|| format!("no ownership.json in {calls:?}"))?;
    let sync = calls[appears..]
        .iter()
        .position(|call| call.name == "fsync" && call.path.ends_with("tpm2_pkcs11"));
    let sync = appears + sync.with_context(|| format!("no sync in {calls:?}"))?;
    stage.recording().forget_sync(sync)?;
    for point in stage.points(Kind::Lost) {
        if point.after() > sync && !stage.attempt(point)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

#[test]
fn a_missing_sync_of_the_token_is_noticed() -> Result<()> {
    for scenario in [FLEET, "renew, kept key, fleet"] {
        let noticed = is_noticed_without_a_sync_of_the_token(scenario)?;
        assert!(noticed, "{scenario}");
    }
    Ok(())
}

/// The network fails at any packet, and returns: a fixed sample of the records.
#[test]
fn the_connection_may_end_at_any_packet() -> Result<()> {
    const SAMPLE: usize = 10;
    let whole = Enrolling::with_the_settings_name(Options::default())?;
    whole.ends_done()?;
    whole.cloud.relay.settle()?;
    let mut cuts = Vec::new();
    for direction in Direction::BOTH {
        for n in 1..=whole.cloud.relay.count(direction) {
            cuts.extend([When::Before, When::After].map(|when| Cut { direction, n, when }));
        }
    }
    fastrand::Rng::with_seed(6).shuffle(&mut cuts);
    for cut in cuts.into_iter().take(SAMPLE) {
        let enrolling = Enrolling::with_the_settings_name(Options::default())?;
        let relay: &Relay = &enrolling.cloud.relay;
        relay.cut_connection(cut);
        let outcome = enrolling.enroll()?;
        relay.settle()?;
        // A cut on the way out comes too late to do harm.
        let codes = [exit::DONE, exit::WAITING];
        assert!(codes.contains(&outcome.code), "{cut:?}: {}", outcome.stderr);
        let heard = outcome.code == exit::DONE
            || enrolling
                .device
                .exists("/var/lib/tpm2_pkcs11/ownership.json");
        let issued = enrolling.cloud.core.counts().created;
        relay.reset();
        enrolling.ends_done()?;
        let counts = enrolling.cloud.core.counts();
        let unheard = if heard { 0 } else { issued };
        assert_eq!(
            (counts.created, counts.active),
            (1 + unheard, 1),
            "{cut:?}: {counts:?}"
        );
    }
    Ok(())
}
