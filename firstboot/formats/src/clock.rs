//! The time, and whether it can be trusted: a Raspberry Pi has no battery-backed clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_cert::der::DateTime;

/// A time, and whether it can be trusted.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Time since the epoch, UTC.
    pub now: Duration,
    /// Whether the kernel's clock is disciplined (NTP, PTP): adjtimex(2) does not say TIME_ERROR. An undisciplined
    /// clock of a device without RTC runs behind, never ahead: systemd starts it at its own build time or at the last
    /// time it saved.
    pub synchronised: bool,
}

impl Clock {
    /// The system's clock.
    #[allow(unsafe_code)]
    pub fn read() -> Self {
        // SAFETY: all-zero is a valid `timex`; with `modes` 0 adjtimex only reads, into a
        // structure that outlives the call.
        let state = unsafe {
            let mut timex: libc::timex = std::mem::zeroed();
            libc::adjtimex(&mut timex)
        };
        Self {
            now: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
            synchronised: state >= 0 && state != libc::TIME_ERROR,
        }
    }
}

/// A moment, counted from the epoch, as RFC 3339 has it: UTC, without fractions of a second.
pub fn rfc3339(moment: Duration) -> String {
    DateTime::from_unix_duration(moment).map_or_else(|e| e.to_string(), |date| date.to_string())
}
