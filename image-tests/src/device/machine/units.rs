//! What systemd says about a running machine's units, by the guest's clock.

use std::time::Duration;

use anyhow::{Context, Result};

use super::Running;

impl Running {
    /// A property of a unit, as `systemctl show` has it.
    pub fn property(&mut self, unit: &str, name: &str) -> Result<String> {
        let shown = self.succeed(&format!("systemctl show --value -p {name} '{unit}'"))?;
        Ok(shown.trim_end().to_owned())
    }

    /// When something last happened to a unit, since the kernel's start; zero if it never did. `name` is a property's,
    /// without its "TimestampMonotonic".
    pub fn moment(&mut self, unit: &str, name: &str) -> Result<Duration> {
        let name = format!("{name}TimestampMonotonic");
        let microseconds = self.property(unit, &name)?.parse();
        Ok(Duration::from_micros(microseconds.with_context(|| name)?))
    }

    /// How long the last start of a unit took, as `systemd-analyze blame` counts: nothing if it was skipped. A oneshot
    /// service ends as active or inactive.
    pub fn start_of(&mut self, unit: &str) -> Result<Duration> {
        let begin = self.moment(unit, "InactiveExit")?;
        let ends = [
            self.moment(unit, "ActiveEnter")?,
            self.moment(unit, "InactiveEnter")?,
        ];
        Ok(ends[0].max(ends[1]).saturating_sub(begin))
    }

    /// The processor time of a unit's processes, from their systemd-executor on; nothing if it was skipped.
    pub fn processor_time_of(&mut self, unit: &str) -> Result<Duration> {
        let nanoseconds = match self.property(unit, "CPUUsageNSec")?.as_str() {
            "[not set]" => 0,
            number => number.parse().context("CPUUsageNSec")?,
        };
        Ok(Duration::from_nanos(nanoseconds))
    }
}
