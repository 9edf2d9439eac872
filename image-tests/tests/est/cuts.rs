//! The network, or the device's power, fails at any packet of the conversation. A second certificate is issued only where
//! the answer with the first was lost.

use std::sync::Arc;

use anyhow::Result;
use image_tests::device::Checkpoint;
use image_tests::doubles::est::{EstServer, Options};
use image_tests::doubles::tls::Version;
use image_tests::doubles::tpm_proxy::When;
use image_tests::faults::network::{Cut, Direction, Relay};
use image_tests::faults::storage::{Ending, run_with_cut};
use serde_json::json;

use crate::{Enrolling, exit};

/// A device that reaches its server through a relay.
fn behind_a_relay() -> Result<(Enrolling, Relay)> {
    let enrolling = Enrolling::new()?;
    let relay = Relay::start(enrolling.server.port())?;
    enrolling.server.is_behind(relay.port());
    enrolling.change(|e| e["est"]["server"] = json!(format!("localhost:{}", relay.port())))?;
    Ok((enrolling, relay))
}

/// Every cut of an undisturbed conversation.
fn cuts() -> Result<Vec<Cut>> {
    let (enrolling, relay) = behind_a_relay()?;
    enrolling.ends_done()?;
    relay.settle()?;
    let mut cuts = Vec::new();
    for direction in Direction::BOTH {
        for n in 1..=relay.count(direction) {
            cuts.extend([When::Before, When::After].map(|when| Cut { direction, n, when }));
        }
    }
    Ok(cuts)
}

/// At the next try the device is done. Returns how many certificates it had not heard of, each of which was issued again.
fn ends_done_after_all(enrolling: &Enrolling, relay: &Relay) -> Result<usize> {
    let unheard = if enrolling.has_answer() {
        0
    } else {
        enrolling.server.counts().issued
    };
    relay.reset();
    enrolling.ends_done()?;
    enrolling.assert_issued(1 + unheard);
    Ok(unheard)
}

#[test]
fn the_connection_ends_at_any_packet() -> Result<()> {
    let cuts = cuts()?;
    assert!(cuts.len() > 10, "{cuts:?}");
    let mut doubled = 0;
    for cut in &cuts {
        let (enrolling, relay) = behind_a_relay()?;
        relay.cut_connection(*cut);
        let outcome = enrolling.enroll()?;
        relay.settle()?;
        // A cut on the way out comes too late to do harm.
        let codes = [exit::DONE, exit::WAITING];
        assert!(codes.contains(&outcome.code), "{cut:?}: {}", outcome.stderr);
        doubled += ends_done_after_all(&enrolling, &relay)?;
    }
    assert!(doubled > 0, "no answer was ever lost: {cuts:?}");
    Ok(())
}

/// The program is killed there, and the TPM loses its power.
#[test]
fn the_power_ends_at_any_packet() -> Result<()> {
    let cuts = cuts()?;
    for cut in &cuts {
        let (mut enrolling, relay) = behind_a_relay()?;
        let mut program = enrolling.device.firstboot(&["enroll"])?;
        let running = program.stderr(std::process::Stdio::null()).spawn()?;
        let id = nix::unistd::Pid::from_raw(i32::try_from(running.id())?);
        relay.cut_power(*cut, move || {
            let _ = nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGKILL);
        });
        let mut running = running;
        running.wait()?;
        enrolling.device.tpm.pull_the_plug();
        enrolling.device.tpm.power_on()?;
        relay.settle()?;
        ends_done_after_all(&enrolling, &relay)?;
    }
    Ok(())
}

/// … or at any storage call: the answer is durable, or it is asked for again.
#[test]
fn the_power_ends_at_any_storage_call() -> Result<()> {
    let Enrolling {
        authority, device, ..
    } = Enrolling::new()?;
    let start = Checkpoint::take(device)?;
    let mut doubled = 0;
    for n in 1.. {
        let server = EstServer::start(&authority, Version::Tls13, Options::default())?;
        let mut enrolling = Enrolling {
            authority: Arc::clone(&authority),
            device: start.restore()?,
            server,
        };
        let port = enrolling.server.port();
        enrolling.change(|e| e["est"]["server"] = json!(format!("localhost:{port}")))?;
        let program = enrolling.device.firstboot(&["enroll"])?;
        let root = enrolling.device.root().to_path_buf();
        let tpm = &mut enrolling.device.tpm;
        let outcome = run_with_cut(program, &root, n, When::Before, || tpm.pull_the_plug())?;
        if outcome.ending != Ending::Cut {
            assert!(n > 10, "{n} calls are not all of them");
            assert!(doubled > 0, "no answer was ever lost");
            return Ok(());
        }
        enrolling.device.tpm.power_on()?;
        let heard = enrolling.has_answer();
        let issued = enrolling.server.counts().issued;
        enrolling.ends_done()?;
        let unheard = if heard { 0 } else { issued };
        enrolling.assert_issued(1 + unheard);
        doubled += unheard;
    }
    Ok(())
}
