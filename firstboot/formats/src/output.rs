//! What both programs print on standard output and standard error.
//!
//! The reader may have seen enough and be gone (`| head`), which must stop nothing. `println!` and `eprintln!` would
//! panic, in the middle of provisioning.

use std::io::{ErrorKind, Write, stderr, stdout};

use serde_json::Value;

use crate::error::{Context, Error, Kind, Result};
use crate::printable::{is_printable, printable};

/// Prints lines on standard output, each [`printable`]. The error is [`Kind::CannotWrite`]: a full disk, not a reader
/// that has gone.
pub fn print_lines(lines: impl IntoIterator<Item = String>) -> Result<()> {
    let lines = lines.into_iter().map(|line| printable(line) + "\n");
    print(&lines.collect::<String>())
}

/// Prints JSON on standard output, as [`json_text`] has it, with the same error.
pub fn print_json(value: &Value) -> Result<()> {
    print(&json_text(value)?)
}

/// JSON, indented, with a line feed at its end. Terminal control characters are escaped as in JSON (RFC 8259 §7): the
/// value stays the same.
pub fn json_text(value: &Value) -> Result<String> {
    let text = serde_json::to_string_pretty(value)
        .context(Kind::Other, || "cannot encode the report".into())?;
    let mut shown = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        // serde_json escapes U+0000 to U+001F itself; line feeds here come from its indentation.
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
            Kind::CannotWrite,
            format!("cannot write to standard output: {e}"),
        )),
        _ => Ok(()),
    }
}

/// Prints a [`printable`] line on standard error, in one call, so that it does not mix with another program's. Ignores
/// a closed standard error.
pub fn say(line: &str) {
    let line = printable(line.to_owned()) + "\n";
    let _ = stderr().write_all(line.as_bytes());
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
