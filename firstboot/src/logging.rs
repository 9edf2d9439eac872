//! The log, on standard error: one line per record.
//!
//! The reader may be gone, which must stop nothing. Loggers that use `eprintln!` would panic, in the middle of
//! provisioning.

use std::io::stderr;
use std::os::fd::AsFd;

use firstboot_formats::output::say;
use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::sys::stat::fstat;

/// Starts the log on standard error, `LEVEL [target] message`; the journal adds the time. If standard error is the
/// journal's, each line begins with its priority, such as `<6>`, which the journal removes (sd-daemon(3)).
pub fn start(level: LevelFilter) {
    let log: &'static StandardError = if is_journal(stderr()) {
        &StandardError { prefix: priority }
    } else {
        &StandardError { prefix: |_| "" }
    };
    // Refused only if a log has been started before.
    if log::set_logger(log).is_ok() {
        log::set_max_level(level);
    }
}

/// Whether the journal reads this stream: JOURNAL_STREAM has its device and inode, in decimal digits (systemd.exec(5)).
/// A program whose output is redirected inherits the variable and fails the comparison.
fn is_journal(stream: impl AsFd) -> bool {
    let (Ok(journal), Ok(status)) = (std::env::var("JOURNAL_STREAM"), fstat(stream)) else {
        return false;
    };
    journal == format!("{}:{}", status.st_dev, status.st_ino)
}

/// syslog(3)'s LOG_ERR, LOG_WARNING, LOG_INFO and LOG_DEBUG, as sd-daemon(3) writes them.
fn priority(level: Level) -> &'static str {
    match level {
        Level::Error => "<3>",
        Level::Warn => "<4>",
        Level::Info => "<6>",
        Level::Debug | Level::Trace => "<7>",
    }
}

struct StandardError {
    /// The prefix of a line of this level.
    prefix: fn(Level) -> &'static str,
}

impl Log for StandardError {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // The first one's errors are reported again, in words for the operator. The other's traces contain passwords.
        let kept_quiet = ["tss_esapi", "ureq_proto"];
        !kept_quiet
            .iter()
            .any(|target| metadata.target().starts_with(target))
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let (level, target) = (record.level(), record.target());
            let prefix = (self.prefix)(level);
            say(&format!("{prefix}{level:<5} [{target}] {}", record.args()));
        }
    }

    fn flush(&self) {}
}
