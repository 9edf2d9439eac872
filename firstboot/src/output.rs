//! What both programs say: standard output, standard error, and the log, which is one line a record.
//!
//! Whoever reads may have seen enough and be gone (`| head`): that stops nothing. `println!`, `eprintln!` and loggers
//! that use them panic there, in the middle of provisioning.

use std::io::{ErrorKind, Write, stderr, stdout};
use std::os::fd::AsFd;

use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::sys::stat::fstat;
use serde_json::Value;

use crate::error::{Doing, Error, Exit, Result, is_printable, printable};

/// Prints lines on standard output, each [`printable`]. The error is [`Exit::CannotWrite`]: a full disk, not a reader
/// that has gone.
pub fn print_lines(lines: impl IntoIterator<Item = String>) -> Result<()> {
    let lines = lines.into_iter().map(|line| printable(line) + "\n");
    print(&lines.collect::<String>())
}

/// Prints JSON on standard output, as [`json_text`] has it, with the same error.
pub fn print_json(value: &Value) -> Result<()> {
    print(&json_text(value)?)
}

/// JSON, indented, with a line feed at its end. What would steer a terminal is escaped as JSON has it (RFC 8259 §7):
/// the value stays the same.
pub fn json_text(value: &Value) -> Result<String> {
    let text = serde_json::to_string_pretty(value)
        .doing(Exit::Other, || "cannot encode the status".into())?;
    let mut shown = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        // serde_json escapes U+0000 to U+001F itself; a line feed is its own.
        if c == '\n' || is_printable(c) {
            shown.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            shown += &format!("\\u{unit:04x}");
        }
    }
    Ok(shown + "\n")
}

fn print(text: &str) -> Result<()> {
    let mut out = stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Error::new(
            Exit::CannotWrite,
            format!("cannot write to standard output: {e}"),
        )),
        _ => Ok(()),
    }
}

/// Says a [`printable`] line on standard error, in one call, so that it does not mix with another program's. Nothing
/// can be done where that is closed.
pub fn say(line: &str) {
    let line = printable(line.to_owned()) + "\n";
    let _ = stderr().write_all(line.as_bytes());
}

/// Starts the log on standard error, "LEVEL [target] message"; the journal adds the time. Where standard error is the
/// journal's, each line begins with its priority, "<6>", which the journal takes off (sd-daemon(3)).
pub fn start_log(level: LevelFilter) {
    let log: &'static StandardError = match is_journal(stderr()) {
        true => &StandardError { prefix: priority },
        false => &StandardError { prefix: |_| "" },
    };
    // Refused only where a log has been started before.
    if log::set_logger(log).is_ok() {
        log::set_max_level(level);
    }
}

/// Whether this is what the journal reads: JOURNAL_STREAM has its device and inode, in decimal digits (systemd.exec(5)).
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
    /// What a line of this level begins with.
    prefix: fn(Level) -> &'static str,
}

impl Log for StandardError {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // What goes wrong in there is said again, in the operator's words.
        !metadata.target().starts_with("tss_esapi")
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn json_is_escaped_and_means_the_same() {
        let value = serde_json::json!({"name": "gw\u{202e}\u{1b}[2J\u{9b}\u{e0041}ü\"\n"});
        let text = json_text(&value).unwrap();
        assert!(
            text.contains("gw\\u202e\\u001b[2J\\u009b\\udb40\\udc41ü"),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }
}
