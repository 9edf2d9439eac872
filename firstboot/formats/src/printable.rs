//! Foreign text on a terminal and in a log.

/// A text for a terminal and for one line of a log. It may contain foreign text, such as a key of a settings file:
/// characters that would control the terminal or reverse the line are escaped.
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

/// Whether a character shows as what it is: none of Unicode's Cc (control), Cf (format, bidirectional), Zl and Zp (line
/// and paragraph ends), nor an unassigned or private one (Cn, Co), nor one that looks like a space.
pub fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_control();
    }
    // The standard library knows Unicode's tables, but shows that only through Debug; here after a letter, where a
    // combining mark belongs.
    String::from_iter(['a', c]).escape_debug().count() == 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_controls_a_terminal_is_escaped() {
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
