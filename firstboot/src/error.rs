//! The one error type: a sentence for the operator and the exit status that goes with it.
//!
//! Exit statuses follow sysexits(3), so that a unit file or a factory script can tell "there is no
//! TPM" from "still waiting for the certificate" without reading the log.

use std::fmt;

/// Why `firstboot` ends other than well. The numbers are those of sysexits(3) and are documented
/// in docs/status.md; 0 (done) and 64 (usage, EX_USAGE) belong to `main`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// EX_DATAERR: some requests were refused (firstboot-station).
    #[cfg(feature = "station")]
    Refused = 65,
    /// EX_NOINPUT: a file that was named is not there (firstboot-station).
    #[cfg(feature = "station")]
    NoInput = 66,
    /// EX_UNAVAILABLE: no TPM, or one that fails its self-test.
    NoTpm = 69,
    /// EX_SOFTWARE: anything else.
    Other = 70,
    /// EX_CANTCREAT: something could not be written.
    CannotWrite = 73,
    /// EX_TEMPFAIL: waiting for a certificate, the network, or the end of a lockout.
    Waiting = 75,
    /// EX_CONFIG: the settings are missing or invalid.
    Settings = 78,
}

/// What was being done, to what, what went wrong, and what can be done about it.
#[derive(Clone, Debug)]
pub struct Error {
    /// The process's exit status.
    pub exit: Exit,
    message: String,
}

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error that ends the program with `exit`.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: printable(message.into()),
        }
    }

    /// [`Exit::Other`]
    pub fn other(message: impl Into<String>) -> Self {
        Self::new(Exit::Other, message)
    }

    /// [`Exit::Settings`]
    pub fn settings(message: impl Into<String>) -> Self {
        Self::new(Exit::Settings, message)
    }
}

/// A text for a terminal and for one line of a log. The words of others are in it, such as a key of a
/// settings file: what would steer the terminal or turn the line round is shown, not sent.
pub fn printable(text: String) -> String {
    if text.chars().all(is_printable) {
        return text;
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match is_printable(c) {
            true => shown.push(c),
            false => shown.extend(c.escape_default()),
        }
    }
    shown
}

/// Whether a character is seen as what it is: none of Unicode's Cc (control), Cf (format, bidirectional), Zl and Zp
/// (line and paragraph ends), nor one that has no meaning (Co, Cn) or looks like a space.
pub fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_control();
    }
    // The standard library knows Unicode's tables, but says so in the form of Debug only; after a letter, where a
    // combining mark is what it should be.
    String::from_iter(['a', c]).escape_debug().count() == 2
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// Says what was being done when a library's error came up.
pub trait Doing<T> {
    /// "`what`: the library's own words", with this exit status.
    fn doing(self, exit: Exit, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: fmt::Display> Doing<T> for std::result::Result<T, E> {
    fn doing(self, exit: Exit, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::new(exit, format!("{}: {e}", what())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_shown_instead() {
        // ESC, DEL, CSI as one character; soft hyphen, right-to-left override and isolate, zero-width joiner, byte
        // order mark, a tag; line and paragraph separators.
        for c in "\u{1b}\u{7f}\u{9b}\u{ad}\u{202e}\u{2067}\u{200d}\u{feff}\u{e0041}\u{2028}\u{2029}\n\r\t".chars() {
            assert!(!is_printable(c), "{c:?}");
            assert!(printable(format!("gw{c}1")).is_ascii(), "{c:?}");
        }
        assert_eq!(printable("gw\u{202e}1-wg".into()), "gw\\u{202e}1-wg");
    }

    #[test]
    fn words_of_all_languages_stay() {
        for text in [
            "\"gw-1\" isn't there: C:\\x",
            "Zürich, Zu\u{308}rich",
            "株式会社 \u{05d0}\u{05d1} \u{0905}\u{0928}\u{0941}",
        ] {
            assert_eq!(printable(text.into()), text);
        }
    }
}
