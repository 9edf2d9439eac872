//! What `systemd-analyze security` says of the units: from 0, safe, to 10.

use anyhow::{Context, Result};

/// Each unit's highest exposure, by systemd 252 and 257, which differ by 0.2 at most. It may only go down. 0.9 of
/// enrollment's and of renewal's is the network; enrollment also reads the clock's state.
pub const MOST_EXPOSED: [(&str, f32); 7] = [
    ("firstboot.service", 1.9),
    ("firstboot-enroll.service", 3.0),
    ("firstboot-fsck@dev-nvme0n1p1.service", 1.0),
    ("firstboot-bind.service", 1.0),
    ("firstboot-again.service", 1.0),
    ("firstboot-renew.service", 2.7),
    ("firstboot-network.service", 1.0),
];

/// The exposure in `systemd-analyze security`'s report about a unit.
pub fn exposure(report: &str) -> Result<f32> {
    report
        .lines()
        .find(|line| line.contains("Overall exposure level"))
        .and_then(|line| line.split_once(": "))
        .and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok())
        .with_context(|| format!("no figure in: {report}"))
}
