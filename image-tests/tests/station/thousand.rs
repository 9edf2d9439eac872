//! A thousand requests in one run: that it works, and what it costs.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use image_tests::device::station::Station;
use image_tests::doubles::forged_request::ForgedRequest;
use image_tests::process::finish;

use crate::exit;

const REQUESTS: usize = 1000;
/// The memory limit of a run, in KiB: it holds the requests, some 10 KiB each.
const MEMORY: u64 = 64 * 1024;

#[test]
fn a_thousand_requests_fit_in_one_run() -> Result<()> {
    let station = Station::new()?;
    let requests = station.path("requests");
    for number in 0..REQUESTS {
        ForgedRequest::new(&format!("gw-{number:04}"), &station.manufacturer)?.write(&requests)?;
    }
    let figures = station.path("figures");
    let issue = station.issuing(&requests)?;
    let mut timed = Command::new("/usr/bin/time");
    // User and system time in seconds, the largest resident set in KiB.
    timed.args(["-f", "%U %S %M", "-o"]).arg(&figures);
    timed.arg(issue.get_program()).args(issue.get_args());
    timed.arg("--inventory").arg(station.path("fleet.jsonl"));
    let start = Instant::now();
    let done = finish(&mut timed)?;
    let elapsed = start.elapsed();
    assert_eq!(done.code, exit::DONE, "{}", done.stderr);
    let replies = station.out().read_dir()?.count();
    assert_eq!(replies, REQUESTS);
    let inventory = std::fs::read_to_string(station.path("fleet.jsonl"))?;
    assert_eq!(inventory.lines().count(), REQUESTS);
    let text = std::fs::read_to_string(figures)?;
    let numbers: Vec<f64> = text
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let [user, system, memory] = numbers[..] else {
        anyhow::bail!("time says {text}");
    };
    let each = |seconds: f64| 1000.0 * seconds / REQUESTS as f64;
    println!(
        "{REQUESTS} requests: {:.2} ms of processor time and {:.2} ms of time each; {memory} KiB at most",
        each(user + system),
        each(elapsed.as_secs_f64())
    );
    assert!((memory as u64) < MEMORY, "{memory} KiB");
    let sizes = station
        .out()
        .read_dir()?
        .map(|entry| Ok(entry?.metadata()?.len()));
    let largest = sizes.collect::<Result<Vec<_>>>()?.into_iter().max();
    assert!(largest.context("no reply")? < 8 * 1024, "{largest:?}");
    Ok(())
}
