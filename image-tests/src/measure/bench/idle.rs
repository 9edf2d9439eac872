//! A boot with nothing to do: the cost of both units' programs. They reach the TPM by a device node, as on a device;
//! here it is a pseudo terminal.

use std::process::Command;

use anyhow::{Context, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use super::first_boot::run_in_memory;
use super::meter::Meter;
use super::row::{Aim, Row, Unit, median};
use super::usage::{Calls, Usage, count, measure};
use crate::clients::KeyType;
use crate::device::{Device, offline_settings};
use crate::doubles::pki::Authority;
use crate::doubles::tpm_proxy::Terminal;
use crate::process::{finish, succeed};

/// The rows: for nothing to do, and for a renewed certificate on the card.
pub fn rows(runs: usize) -> Result<Vec<Row>> {
    let device = Device::unprovisioned()?;
    device.settings(&offline_settings("nucleus-lite", KeyType::EccP256))?;
    let _run = run_in_memory(&device)?;
    let authority = Authority::new()?;
    device.enroll_with(&authority)?;
    let mut rows = Vec::new();
    for command in ["provision", "enroll"] {
        rows.extend(nothing_to_do(&device, command, runs)?);
    }
    // The minimum: what kernel and dynamic linker take for the same program and its libraries.
    let mut version = device.firstboot(&["--version"])?;
    rows.extend([
        Row::new(
            "firstboot --version: instructions in user space",
            Unit::Instructions,
            instructions(&version)? as f64,
        ),
        Row::new(
            "firstboot --version: processor time",
            Unit::Milliseconds,
            processor(&mut version, runs)?,
        ),
    ]);
    rows.extend(renewal(&device, &authority)?);
    Ok(rows)
}

fn nothing_to_do(device: &Device, command: &str, runs: usize) -> Result<Vec<Row>> {
    let name = |what: &str| format!("nothing to do, {command}: {what}");
    let meter = Meter::new(&device.tpm, 1)?;
    let through_proxy = meter.measure(vec![Box::new(|tpm| {
        device.firstboot_at(&tpm.by_one, &[command])
    })])?;
    let node = Terminal::open(device.tpm.upstream())?;
    let mut program = device.firstboot_at(&node.tcti(), &[command])?;
    let usages = (0..runs)
        .map(|_| Ok(measure(&program)?.0))
        .collect::<Result<Vec<Usage>>>()?;
    let times = usages.iter().map(|u| u.wall.as_secs_f64() * 1000.0);
    let peak = usages.iter().map(|usage| usage.peak).max().unwrap_or(0);
    let Calls { all, read, .. } = count(&program, device.root())?.0;
    let counted = instructions(&program)?;
    Ok(vec![
        Row::new(
            name("TPM commands"),
            Unit::Commands,
            through_proxy.commands as f64,
        )
        .aim(Aim::AtMost(4.0)),
        Row::new(
            name("instructions in user space"),
            Unit::Instructions,
            counted as f64,
        ),
        Row::new(
            name("wall time, software TPM"),
            Unit::Milliseconds,
            median(times.collect()),
        ),
        Row::new(
            name("processor time"),
            Unit::Milliseconds,
            processor(&mut program, runs)?,
        )
        .aim(Aim::AtMost(3.0)),
        Row::new(name("system calls"), Unit::Calls, all as f64),
        Row::new(
            name("read from files"),
            Unit::Kibibytes,
            (read / 1024) as f64,
        ),
        Row::new(name("peak resident memory"), Unit::Kibibytes, peak as f64)
            .aim(Aim::AtMost(16.0 * 1024.0)),
    ])
}

/// The cost of `enroll` with a renewed certificate on the card. Each certificate is a renewal only once.
fn renewal(device: &Device, authority: &Authority) -> Result<Vec<Row>> {
    let renew = || -> Result<()> {
        device.drop_certificate(&authority.sign(&device.request()?)?)?;
        Ok(())
    };
    renew()?;
    let meter = Meter::new(&device.tpm, 1)?;
    let measured = meter.measure(vec![Box::new(|tpm| {
        device.firstboot_at(&tpm.by_one, &["enroll"])
    })])?;
    renew()?;
    let counted = meter.count(
        vec![Box::new(|tpm| {
            device.firstboot_at(&tpm.by_one, &["enroll"])
        })],
        device.root(),
    )?;
    renew()?;
    let row = |what: &str, unit, ours: f64| {
        Row::new(format!("a renewed certificate, enroll: {what}"), unit, ours)
    };
    let counted_by_callgrind = instructions(&device.firstboot(&["enroll"])?)?;
    Ok(vec![
        row("TPM commands", Unit::Commands, measured.commands as f64),
        row(
            "instructions in user space",
            Unit::Instructions,
            counted_by_callgrind as f64,
        ),
        row(
            "wall time, software TPM",
            Unit::Milliseconds,
            measured.usage.wall.as_secs_f64() * 1000.0,
        ),
        row("system calls", Unit::Calls, counted.all as f64),
        row(
            "read from files",
            Unit::Kibibytes,
            (counted.read / 1024) as f64,
        ),
        row("fsync and fdatasync", Unit::Calls, counted.syncs as f64),
    ])
}

/// User and system time of one run, ms: the mean of many runs, as the kernel's accounting is coarse. This process must
/// run nothing else meanwhile.
fn processor(program: &mut Command, runs: usize) -> Result<f64> {
    let spent = || -> Result<i64> {
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
        Ok((usage.user_time() + usage.system_time()).num_microseconds())
    };
    let before = spent()?;
    for _ in 0..runs {
        anyhow::ensure!(finish(program)?.code == 0, "{program:?} failed");
    }
    Ok((spent()? - before) as f64 / runs as f64 / 1000.0)
}

/// Instructions in user space by callgrind, including the dynamic linker's and the libraries'.
fn instructions(program: &Command) -> Result<u64> {
    let report = tempfile::NamedTempFile::new()?;
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(format!("--log-file={}", report.path().display()))
        .arg(program.get_program())
        .args(program.get_args());
    succeed(&mut valgrind).context("valgrind")?;
    let said = std::fs::read_to_string(report.path())?;
    let count = said
        .lines()
        .find_map(|line| line.split("Collected : ").nth(1))
        .with_context(|| format!("valgrind says {said}"))?;
    Ok(count.trim().parse()?)
}
