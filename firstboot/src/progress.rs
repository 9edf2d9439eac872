//! Tells the console, the journal and systemd what is going on while something takes time.

use std::time::Instant;

use firstboot_formats::printable::printable;
use log::info;
use sd_notify::NotifyState;

/// Says what is about to be done, does it, and says how long it took.
///
/// `what` reads after "now": "generating the RSA-2048 key in the TPM (tens of seconds on an SLB 9670)".
pub fn with_progress<T, E>(what: &str, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    info!("{what} …");
    status(what);
    let start = Instant::now();
    let result = work();
    if result.is_ok() {
        info!("{what}: done in {:.1} s", start.elapsed().as_secs_f64());
    }
    result
}

/// Whether systemd runs this process as a service that it listens to, before Greengrass, and not a person. A renewal's
/// service has no NOTIFY_SOCKET; nor does it take a step for which Greengrass must not be running.
pub fn is_service() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// Tells systemd (`systemctl status`) what is going on; without systemd, nothing happens.
pub fn status(what: &str) {
    // A line feed would start another assignment (sd_notify(3)).
    let what = printable(what.to_owned());
    // A lost line is no reason to stop provisioning.
    let _ = sd_notify::notify(&[NotifyState::Status(&what)]);
}
