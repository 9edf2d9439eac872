//! Any storage call can fail, because the disk is full, read-only or broken, once or from then on. firstboot says so
//! and exits; the next start, on a good disk, recovers.
//!
//! A seeded sample. With SWEEP=full in the environment, all points; with a number, as many of each scenario.

use std::process::Command;

use anyhow::{Result, ensure};
use image_tests::clients::KeyType;
use image_tests::device::Device;
use image_tests::faults::power_cut::Scenario;
use image_tests::faults::storage::{Ending, Fault, run_with_fault, trace};
use nix::errno::Errno;

use crate::{resource_manager, scenario, wrong_after_start};

const ERRORS: [Errno; 3] = [Errno::ENOSPC, Errno::EROFS, Errno::EIO];
/// Points of each scenario: in all, a minute on two cores.
const SAMPLE: usize = 12;
const SEED: u64 = 2026;

/// The documented exit statuses: any other failure, cannot write.
const FAILURES: [i32; 2] = [70, 73];

/// Runs firstboot with the TPM through a resource manager, for at most two minutes.
fn with_firstboot<T>(
    device: &mut Device,
    scenario: &Scenario,
    run: impl FnOnce(Command, &Device) -> Result<T>,
) -> Result<T> {
    let manager = resource_manager(device)?;
    let opened = manager.open()?;
    device.tcti = Some(opened.tcti());
    let firstboot = device.firstboot(&[scenario.command])?;
    let mut command = Command::new("timeout");
    command.arg("120").arg(firstboot.get_program());
    command.args(firstboot.get_args()).env_clear();
    let environment = firstboot.get_envs();
    command.envs(environment.filter_map(|(name, value)| Some((name, value?))));
    run(command, device)
}

/// What is wrong with the way it ended.
fn objections(ending: Ending, said: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    match ending {
        // A fault on which nothing depends, such as a status that cannot be written.
        Ending::Exited(0) => {}
        Ending::Exited(code) if FAILURES.contains(&code) => {
            // The last line says what could not be done, in the documented words.
            let last = said.lines().last().unwrap_or_default();
            if !last.contains("cannot ") {
                wrong.push(format!("says {last:?}"));
            }
        }
        other => wrong.push(format!("ended with {other:?}")),
    }
    if said.contains("panicked") || said.contains("defect of firstboot") {
        wrong.push("blames itself".to_owned());
    }
    if !wrong.is_empty() {
        wrong.push(said.to_owned());
    }
    wrong
}

fn points(calls: usize) -> Vec<Fault> {
    let all = (1..=calls).flat_map(|from| {
        ERRORS.into_iter().flat_map(move |error| {
            [false, true].map(|lasting| Fault {
                error,
                from,
                lasting,
            })
        })
    });
    let mut all: Vec<Fault> = all.collect();
    let sample = match std::env::var("SWEEP").as_deref() {
        Ok("full") => return all,
        Ok(number) => number.parse().unwrap_or(SAMPLE),
        Err(_) => SAMPLE,
    };
    fastrand::Rng::with_seed(SEED).shuffle(&mut all);
    all.truncate(sample);
    all
}

fn recovers_from_faults_during(name: &str) -> Result<()> {
    let scenario = scenario(name)?;
    let start = scenario.checkpoint(KeyType::EccP256)?;
    let calls = with_firstboot(&mut start.restore()?, scenario, |command, device| {
        trace(command, device.root())
    })?;
    ensure!(calls.len() > 10, "only {calls:?}");
    let mut failed = Vec::new();
    for fault in points(calls.len()) {
        let mut device = start.restore()?;
        let outcome = with_firstboot(&mut device, scenario, |command, device| {
            run_with_fault(command, device.root(), fault)
        })?;
        let mut wrong = objections(outcome.ending, &outcome.stderr);
        wrong.extend(wrong_after_start(device, scenario)?);
        if std::env::var_os("SWEEP").is_some() {
            let last = outcome.stderr.lines().last().unwrap_or_default();
            let call = &outcome.calls.get(fault.from - 1);
            eprintln!("{name}: {fault:?} {call:?} {:?} {last}", outcome.ending);
        }
        if !wrong.is_empty() {
            let call = outcome.calls.get(fault.from - 1);
            let call = call.map(ToString::to_string).unwrap_or_default();
            failed.push(format!("{fault:?}: {call}\n  {}", wrong.join("\n  ")));
        }
    }
    assert!(failed.is_empty(), "{name}:\n{}", failed.join("\n"));
    Ok(())
}

#[test]
fn provisioning_recovers_from_any_fault() -> Result<()> {
    recovers_from_faults_during("provision")
}

#[test]
fn provisioning_after_a_reset_recovers_from_any_fault() -> Result<()> {
    recovers_from_faults_during("provision after reset")
}

#[test]
fn enrolling_recovers_from_any_fault() -> Result<()> {
    recovers_from_faults_during("enroll")
}

#[test]
fn replacing_a_certificate_recovers_from_any_fault() -> Result<()> {
    recovers_from_faults_during("replace certificate")
}

#[test]
fn resetting_recovers_from_any_fault() -> Result<()> {
    recovers_from_faults_during("reset")
}
