//! The way to a server that issues certificates: whose turn it is, TCP, TLS, and what can go wrong on it. What is said
//! over it, and the words for the operator, are the methods'.
//!
//! | file | what |
//! |---|---|
//! | `connection` | TCP, perhaps through an HTTP proxy, and TLS: with limits on time |
//! | `server` | where to connect, and whom to believe there |
//! | `verifier` | whether the other side is the right server |
//! | `tpm_key` | TLS client authentication with our own key |
//! | `trouble` | what a broken connection says about its reason |

mod connection;
mod server;
mod tpm_key;
mod trouble;
mod verifier;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use firstboot_formats::clock::Clock;
use log::info;

use crate::error::{ErrorKind, Result, ResultExt};
use crate::progress;
use crate::settings::Settings;

pub use connection::{Connection, certified, connect};
pub use server::Server;
pub use tpm_key::TpmKey;
pub use trouble::{Distrust, TlsTrouble, is_closing, is_timeout, tls, truncate, waiting};

/// How far the issuer's clock may be ahead of ours at the start of a certificate's validity. Refusing the certificate
/// would only create another one.
const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// A byte stream with a deadline for every operation.
pub trait Stream: Read + Write {
    /// Sets the deadline; a read or write beyond it fails with `TimedOut`.
    fn until(&mut self, deadline: Instant);
}

/// The clock by which a certificate is judged that was issued just now: the issuer's may be ahead of ours.
pub fn issuers_clock(settings: &Settings) -> Clock {
    let clock = settings.enrollment.clock();
    Clock {
        now: clock.now + CLOCK_SKEW,
        ..clock
    }
}

/// Waits a random part of `enrollment.spread_seconds`, at each try: devices that are powered on together, or lost the
/// network together, do not all connect at once.
pub fn spread(settings: &Settings) -> Result<()> {
    let most = Duration::from_secs(settings.enrollment.spread_seconds).as_millis() as u64;
    if most == 0 {
        return Ok(());
    }
    let random = getrandom::u64().context(ErrorKind::Other, || {
        "cannot get random bytes from the kernel".into()
    })?;
    let wait = Duration::from_millis(random % most);
    let what = format!(
        "waiting {:.1} s, so that devices powered on together do not all connect at once",
        wait.as_secs_f64()
    );
    info!("{what}");
    progress::status(&what);
    std::thread::sleep(wait);
    Ok(())
}
