//! The load of many devices: real software TPMs, real firstboots, one broker.
//!
//! They are powered on together, and enroll. Later their certificates are due, all at once: they are powered on together
//! again, and renew when [`Timer`] has each of them look.

mod figures;
mod timer;

use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::bench::usage::{Usage, measure};
use crate::clients::KeyType;
use crate::device::{Checkpoint, Device, STORE};
use crate::doubles::iot_core::{Options, Renewing, certificate_id};
use crate::doubles::pki::Validity;
use crate::faults::network::{Cloud, fleet_settings};

pub use figures::{Figures, check, peak_a_second};
pub use timer::Timer;

/// The number of identities that are provisioned. The devices are copies of them with their own serial numbers, and so
/// with their own requests, certificates and things. A thousand provisionings would tell nothing about the network.
const IDENTITIES: usize = 10;
/// Threads that start the software TPMs.
const STARTERS: usize = 4;
const EDITION: &str = "nucleus-lite";
const KEY: KeyType = KeyType::EccP256;

/// How many devices, and how they spread.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub devices: usize,
    /// Their setting `spread_seconds` when they enroll.
    pub spread: u64,
    /// The same when they renew; firstboot's own if there is none.
    pub spread_later: Option<u64>,
    /// The time in which they look: the timer's own would take an hour.
    pub window: Duration,
}

/// A device that has done its part.
struct Done {
    thing: String,
    /// The certificate in service.
    certificate_id: String,
    usage: Usage,
    /// When firstboot was started.
    started: Instant,
    /// When the timer would have started it, since the earliest moment.
    by_timer: Duration,
}

/// Each device, or what went wrong with it.
type Ends = Vec<Result<Done>>;

/// Enrolls them all, and renews their certificates: the figures of both.
pub fn run(load: Load) -> Result<[Figures; 2]> {
    let cloud = Cloud::with(Options {
        renewing: Renewing::Allowed,
        ..Options::default()
    })?;
    let provisioned = || provisioned(&cloud, load.spread);
    let identities: Vec<Checkpoint> = (0..IDENTITIES.min(load.devices))
        .map(|_| provisioned())
        .collect::<Result<_>>()?;
    let later = settings(&cloud, load.spread_later);
    let timer = Timer::shipped()?;
    let looks = timer.looks(load.devices);
    // A software TPM dies with the thread that started it.
    let starters = STARTERS.min(load.devices);
    let together = Barrier::new(starters + 1);
    let work = |starter: usize| {
        let numbers = || (0..load.devices).skip(starter).step_by(starters);
        let devices: Result<Vec<Device>> = numbers()
            .map(|number| copy(&identities[number % identities.len()], number))
            .collect();
        together.wait();
        let enrolled = devices.map(|devices| {
            let ends = all(&devices, |_, device| {
                finish(device, "enroll", Duration::ZERO)
            });
            (devices, ends)
        });
        together.wait();
        together.wait();
        let (devices, enrolled) = enrolled?;
        let looks: Vec<Duration> = numbers().map(|number| looks[number]).collect();
        let renewed = all(&devices, |n, device| {
            device.settings(&later)?;
            std::thread::sleep(looks[n].mul_f64(load.window.div_duration_f64(timer.window())));
            finish(device, "renew", looks[n])
        });
        anyhow::Ok([enrolled, renewed])
    };
    std::thread::scope(|scope| {
        let working: Vec<_> = (0..starters)
            .map(|starter| scope.spawn(move || work(starter)))
            .collect();
        cloud.core.set_validity(Validity::DUE);
        together.wait();
        let begin = Instant::now();
        together.wait();
        let enrolled = Figures::take(&cloud, load.devices, begin.elapsed());
        cloud.core.set_validity(Validity::YOUNG);
        together.wait();
        let begin = Instant::now();
        let mut ends = [Ends::new(), Ends::new()];
        for work in working {
            let done = work
                .join()
                .unwrap_or_else(|_| anyhow::bail!("a starter panicked"))?;
            ends.iter_mut()
                .zip(done)
                .for_each(|(all, some)| all.extend(some));
        }
        let renewed = Figures::take(&cloud, load.devices, begin.elapsed());
        let [first, second] = ends;
        Ok([enrolled?.of(first, None), renewed?.of(second, Some(&timer))])
    })
}

/// Runs something on all of them at once, to completion.
fn all(devices: &[Device], run: impl Fn(usize, &Device) -> Result<Done> + Sync) -> Ends {
    std::thread::scope(|scope| {
        let run = &run;
        let running: Vec<_> = devices
            .iter()
            .enumerate()
            .map(|(n, device)| scope.spawn(move || run(n, device)))
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

fn finish(device: &Device, command: &str, by_timer: Duration) -> Result<Done> {
    let started = Instant::now();
    // Without the usual limit of two minutes, as the spread may be longer.
    let (usage, _) = measure(&device.firstboot(&[command])?)?;
    let config: Value = serde_json::from_str(&device.read("/etc/greengrass/config.yaml")?)?;
    let thing = config["system"]["thingName"].as_str();
    Ok(Done {
        thing: thing.context("no thing")?.to_owned(),
        certificate_id: certificate_id(&device.read(format!("{STORE}/certificate.pem"))?)?,
        usage,
        started,
        by_timer,
    })
}

fn settings(cloud: &Cloud, spread: Option<u64>) -> Value {
    let mut settings = fleet_settings(EDITION, KEY, cloud.core.port());
    match spread {
        Some(spread) => settings["enrollment"]["spread_seconds"] = json!(spread),
        None => drop(
            settings["enrollment"]
                .as_object_mut()
                .map(|e| e.remove("spread_seconds")),
        ),
    }
    settings["renew"] = json!({ "key": "keep" });
    settings
}

/// A provisioned device that will enroll there.
fn provisioned(cloud: &Cloud, spread: u64) -> Result<Checkpoint> {
    let device = Device::unprovisioned()?;
    cloud.card(&device, EDITION, KEY)?;
    device.settings(&settings(cloud, Some(spread)))?;
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
