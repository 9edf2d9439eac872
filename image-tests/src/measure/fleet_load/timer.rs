//! When firstboot-renew.timer has a device look, by the shipped unit.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fastrand::Rng;

const UNIT: &str = include_str!("../../../../firstboot/systemd/firstboot-renew.timer");
/// systemd.timer(5), AccuracySec=.
const USUAL_ACCURACY: Duration = Duration::from_secs(60);
/// Fixed, so that runs can be compared.
const SEED: u64 = 2026;

/// What spreads the looks of devices that were powered on together, worst of all with the same uptime. What they have in
/// common, such as OnBootSec=, spreads nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    /// RandomizedDelaySec=: up to this much, evenly distributed. FixedRandomDelay= would make it the same for a device
    /// each time; between devices that changes nothing.
    random: Duration,
    /// AccuracySec=: then the next moment of a period of this length, at a place in it that is the device's own.
    accuracy: Duration,
}

impl Timer {
    /// That of the shipped unit.
    pub fn shipped() -> Result<Self> {
        Self::parse(UNIT)
    }

    /// Reads a unit.
    pub fn parse(unit: &str) -> Result<Self> {
        let value = |name: &str| {
            let lines = unit.lines().rev();
            let value = lines
                .filter_map(|line| line.strip_prefix(name)?.strip_prefix('='))
                .next();
            value.map(span).transpose()
        };
        let has = |name: &str| unit.lines().any(|line| line.starts_with(name));
        ensure!(
            has("OnBootSec=") && !has("OnCalendar="),
            "devices that are powered on together do not look together"
        );
        Ok(Self {
            random: value("RandomizedDelaySec")?.unwrap_or_default(),
            accuracy: value("AccuracySec")?.unwrap_or(USUAL_ACCURACY),
        })
    }

    /// All looks are within this time.
    pub fn window(&self) -> Duration {
        self.random + self.accuracy
    }

    /// When each of so many devices looks, since the earliest moment.
    pub fn looks(&self, devices: usize) -> Vec<Duration> {
        let mut draw = Rng::with_seed(SEED);
        let mut look = || {
            let delay = self.random.mul_f64(draw.f64()).as_secs_f64();
            let (period, place) = (self.accuracy.as_secs_f64(), draw.f64());
            // The first moment from the delay on that is at the device's place in the period.
            let periods = (delay / period - place).ceil();
            Duration::from_secs_f64(((periods + place) * period).max(delay))
        };
        (0..devices).map(|_| look()).collect()
    }
}

/// A time span (systemd.time(7)), as far as units here have it: a number and a unit.
fn span(text: &str) -> Result<Duration> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit.trim() {
        "" | "s" | "sec" => 1,
        "m" | "min" => 60,
        "h" | "hr" => 60 * 60,
        "d" | "day" => 24 * 60 * 60,
        other => anyhow::bail!("{other:?} is no unit of time"),
    };
    let number: u64 = number
        .parse()
        .with_context(|| format!("no time span: {text:?}"))?;
    Ok(Duration::from_secs(number * seconds))
}
