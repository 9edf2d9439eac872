//! Words of others on a terminal and in a log.

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
