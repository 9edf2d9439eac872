//! The load of many devices that are powered on together: real software TPMs, real firstboots, one broker.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::resource::{Usage, UsageWho, getrusage};
use serde_json::json;

use crate::clients::KeyType;
use crate::device::{Checkpoint, Device};
use crate::doubles::iot_core::{Counts, Entry, Event};
use crate::faults::network::Cloud;
use crate::process::finish;

/// The number of identities that are provisioned. The devices are copies of them with their own serial numbers, and so
/// with their own requests, certificates and things. A thousand provisionings would tell nothing about the network.
const IDENTITIES: usize = 10;
/// Threads that start the software TPMs.
const STARTERS: usize = 4;

/// The results.
#[derive(Debug)]
pub struct Figures {
    pub devices: usize,
    pub spread: Duration,
    /// From power-on until the last device has finished.
    pub took: Duration,
    pub counts: Counts,
    /// For each device that failed, its exit status and messages.
    pub failed: Vec<String>,
    /// The things that devices are configured as.
    pub configured: BTreeSet<String>,
    /// The most claim connections within any one second.
    pub peak_a_second: usize,
    /// Connections that are still open.
    pub open: usize,
    /// Times from CONNECT to the end of the connection, ascending.
    pub conversations: Vec<Duration>,
    /// Processor time per device, for its firstboot and its software TPM since power-on. Valid only if this process
    /// does nothing else.
    pub processor_time: Duration,
    /// Peak resident memory of the largest process, KiB. Valid likewise.
    pub memory: i64,
    /// The broker's peak resident memory, KiB.
    pub broker_memory: u64,
}

/// Powers on this many devices at the same time. Each waits up to `spread` seconds before it connects.
pub fn run(devices: usize, spread: u64) -> Result<Figures> {
    let cloud = Cloud::new()?;
    let identities: Vec<Checkpoint> = (0..IDENTITIES.min(devices))
        .map(|_| provisioned(&cloud, spread))
        .collect::<Result<_>>()?;
    let before = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let starters = STARTERS.min(devices);
    let switched_on = Barrier::new(starters + 1);
    let (begin, ends) = std::thread::scope(|scope| {
        let (identities, switched_on) = (&identities, &switched_on);
        let starting: Vec<_> = (0..starters)
            .map(|starter| {
                scope.spawn(move || {
                    let numbers = (0..devices).skip(starter).step_by(starters);
                    let started: Result<Vec<Device>> = numbers
                        .map(|number| copy(&identities[number % identities.len()], number))
                        .collect();
                    switched_on.wait();
                    enroll_all(started?)
                })
            })
            .collect();
        switched_on.wait();
        let begin = Instant::now();
        let ends = starting.into_iter().map(|starter| {
            starter
                .join()
                .unwrap_or_else(|_| anyhow::bail!("a starter panicked"))
        });
        Ok::<_, anyhow::Error>((begin, ends.collect::<Result<Vec<_>>>()?))
    })?;
    let took = begin.elapsed();
    let after = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let mut figures = figures(&cloud, devices, took)?;
    figures.spread = Duration::from_secs(spread);
    figures.processor_time = (spent(&after) - spent(&before)) / devices as u32;
    figures.memory = after.max_rss();
    for (name, failed) in ends.into_iter().flatten() {
        figures.configured.extend(name);
        figures.failed.extend(failed);
    }
    Ok(figures)
}

/// Runs all of them to completion. For each, the thing that it is configured as, or what went wrong.
fn enroll_all(devices: Vec<Device>) -> Result<Vec<(Option<String>, Option<String>)>> {
    std::thread::scope(|scope| {
        let running: Vec<_> = devices
            .iter()
            .map(|device| scope.spawn(|| enroll(device)))
            .collect();
        running
            .into_iter()
            .map(|device| {
                device
                    .join()
                    .unwrap_or_else(|_| anyhow::bail!("a device panicked"))
            })
            .collect()
    })
}

fn enroll(device: &Device) -> Result<(Option<String>, Option<String>)> {
    // Without the usual limit of two minutes, as the spread may be longer.
    let finished = finish(&mut device.firstboot(&["enroll"])?)?;
    if finished.code != 0 {
        let failed = format!("{}: {}", finished.code, finished.stderr);
        return Ok((None, Some(failed)));
    }
    let config = device.read("/etc/greengrass/config.yaml")?;
    let config: serde_json::Value = serde_json::from_str(&config)?;
    Ok((
        config["system"]["thingName"].as_str().map(str::to_owned),
        None,
    ))
}

fn figures(cloud: &Cloud, devices: usize, took: Duration) -> Result<Figures> {
    let events = cloud.core.events();
    let mut conversations = Vec::new();
    for (index, entry) in events.0.iter().enumerate() {
        if entry.event == Event::Connected {
            let of_client = |end: &&Entry| end.client == entry.client;
            let mut later = events.0[index..].iter().filter(of_client);
            let end = later.find(|end| end.event == Event::Disconnected);
            conversations.extend(end.map(|end| end.at - entry.at));
        }
    }
    conversations.sort();
    Ok(Figures {
        devices,
        spread: Duration::ZERO,
        took,
        counts: cloud.core.counts(),
        failed: Vec::new(),
        configured: BTreeSet::new(),
        peak_a_second: events.peak_a_second(),
        open: events.open(),
        conversations,
        processor_time: Duration::ZERO,
        memory: 0,
        broker_memory: cloud.core.memory_peak()?,
    })
}

/// A provisioned device that will enroll there.
fn provisioned(cloud: &Cloud, spread: u64) -> Result<Checkpoint> {
    let device = Device::unprovisioned()?;
    cloud.card(&device, "nucleus-lite", KeyType::EccP256)?;
    let mut settings = cloud.settings("nucleus-lite", KeyType::EccP256);
    settings["enrollment"]["port"] = json!(cloud.core.port());
    settings["enrollment"]["spread_seconds"] = json!(spread);
    device.settings(&settings)?;
    device.succeed(&["provision"])?;
    Checkpoint::take(device)
}

/// Another device with this identity and a serial number of its own, its TPM switched on.
fn copy(identity: &Checkpoint, number: usize) -> Result<Device> {
    let device = identity.restore()?;
    let serial = "/sys/firmware/devicetree/base/serial-number";
    device.write(serial, format!("{number:016x}\0"))?;
    Ok(device)
}

fn spent(usage: &Usage) -> Duration {
    let times = [usage.user_time(), usage.system_time()];
    let micros = times.map(|time| time.tv_sec() * 1_000_000 + time.tv_usec());
    Duration::from_micros(micros.iter().sum::<i64>().unsigned_abs())
}

impl Figures {
    /// Checks that every device is done, with its own thing and exactly one certificate.
    pub fn check(&self) -> Result<()> {
        let n = self.devices;
        ensure!(
            self.failed.is_empty(),
            "{} failed: {}",
            self.failed.len(),
            self.failed[0]
        );
        ensure!(
            self.configured.len() == n,
            "{} things are configured",
            self.configured.len()
        );
        let counts = self.counts;
        ensure!(
            (counts.created, counts.active, counts.things) == (n, n, n),
            "{n} devices: {counts:?}"
        );
        ensure!(
            counts.register_calls == n,
            "{} registrations",
            counts.register_calls
        );
        ensure!(self.open == 0, "{} connections were left open", self.open);
        Ok(())
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let median = self.conversations.get(self.conversations.len() / 2);
        let longest = self.conversations.last();
        writeln!(f, "devices                       {}", self.devices)?;
        writeln!(f, "spread                        {:?}", self.spread)?;
        writeln!(f, "power-on to the last one's end {:.1?}", self.took)?;
        writeln!(f, "arrivals in a second, at most {}", self.peak_a_second)?;
        writeln!(
            f,
            "conversation, median          {:.0?}",
            median.copied().unwrap_or_default()
        )?;
        writeln!(
            f,
            "conversation, longest         {:.0?}",
            longest.copied().unwrap_or_default()
        )?;
        writeln!(
            f,
            "processor time a device       {:.0?}",
            self.processor_time
        )?;
        writeln!(f, "memory of a process, at most  {} KiB", self.memory)?;
        write!(
            f,
            "memory of the broker, at most {} KiB",
            self.broker_memory
        )
    }
}
