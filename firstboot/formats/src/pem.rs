//! PEM (RFC 7468), as it arrives: split at its markers, wherever they are.
//!
//! `cat` of files without a last line break puts an end and a beginning on one line; shells, YAML and JSON turn line
//! breaks into `\n`. The readers of rustls-pki-types and OpenSSL go by lines.

use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use zeroize::Zeroizing;

use crate::printable::printable;

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";
/// Maximum length of a label, characters: the longest in RFC 7468 has 21.
const MAX_LABEL: usize = 64;

/// Accepts non-zero bits after the last byte, as OpenSSL does.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// A block of a PEM text.
pub struct Block {
    /// Its label, such as `CERTIFICATE`.
    pub label: String,
    /// What is between its markers.
    body: Zeroizing<String>,
}

/// The blocks of a text; the text around them may be anything, in any encoding. The error tells the operator what is
/// wrong.
pub fn blocks(text: &[u8]) -> Result<Vec<Block>, String> {
    let text = String::from_utf8_lossy(text);
    let mut blocks = Vec::new();
    let mut rest = &*text;
    while let Some((_, after)) = rest.split_once(BEGIN) {
        rest = after;
        // Prose about PEM is not a marker.
        let Some((label, after)) = after
            .split_once(DASHES)
            .filter(|(label, _)| label.len() <= MAX_LABEL && !label.contains('\n'))
        else {
            continue;
        };
        let end = format!("{END}{label}{DASHES}");
        let body = after.split_once(&end).map(|(body, _)| body);
        let Some(body) = body.filter(|body| !body.contains(BEGIN)) else {
            return Err(printable(format!(
                "a {label} block has no end ({end}): the file was cut off, or edited"
            )));
        };
        blocks.push(Block {
            label: label.to_owned(),
            body: Zeroizing::new(body.to_owned()),
        });
        // Joined files can share dashes: the end of this marker may open the next one.
        rest = &after[body.len() + end.len() - DASHES.len()..];
    }
    Ok(blocks)
}

impl Block {
    /// What the block encodes; nothing if it is damaged.
    pub fn decode(&self) -> Option<Zeroizing<Vec<u8>>> {
        let digits = Zeroizing::new(unescaped(&self.body));
        LENIENT.decode(&*digits).ok().map(Zeroizing::new)
    }
}

/// The base64 digits without white space, plain or as JSON escapes it (RFC 8259 §7).
fn unescaped(body: &str) -> String {
    let mut digits = String::with_capacity(body.len());
    let mut characters = body.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => match characters.next() {
                Some('n' | 'r' | 't') => {}
                Some('u') => {
                    let code: String = characters.by_ref().take(4).collect();
                    let code = u32::from_str_radix(&code, 16).ok();
                    digits.push(code.and_then(char::from_u32).unwrap_or('\\'));
                }
                Some(c) => digits.push(c),
                None => digits.push('\\'),
            },
            c if c.is_whitespace() => {}
            c => digits.push(c),
        }
    }
    digits
}

/// Writes a block: 64 digits a line (RFC 7468 §2).
pub fn encode(label: &str, der: &[u8]) -> String {
    let digits = STANDARD.encode(der);
    let mut text = format!("{BEGIN}{label}{DASHES}\n");
    let mut rest = digits.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text + END + label + DASHES + "\n"
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn decoded(text: &str) -> Vec<Vec<u8>> {
        let blocks = blocks(text.as_bytes()).unwrap();
        blocks
            .iter()
            .map(|b| b.decode().unwrap().to_vec())
            .collect()
    }

    #[test]
    fn blocks_are_found_wherever_their_markers_stand() {
        let [one, two] = [&b"\xFB\xEF\xBE\xFF\xFF\xFF"[..], &[7; 100]].map(|der| encode("X", der));
        let wanted = [&b"\xFB\xEF\xBE\xFF\xFF\xFF"[..], &[7; 100]];
        let json = serde_json::json!({ "a": one, "b": two }).to_string();
        assert!(one.contains("++//"), "{one}");
        for text in [
            format!("{one}{two}"),
            format!("{}{two}", one.trim_end()),
            format!("{}{two}", one.trim_end().trim_end_matches('-')),
            format!("{}--{two}", one.trim_end().trim_end_matches('-')),
            format!("{}--{two}", one.trim_end()),
            format!("Bag Attributes\r\n  {one}\r\n# ---\r\n{two}").replace('\n', "\r\n"),
            format!("{one}{two}").replace('\n', "\\n"),
            format!("{one}{two}").replace('\n', " "),
            json.replace('/', "\\/").replace('+', "\\u002b"),
            json,
            format!("-----BEGIN here, and\n{one}{two}"),
        ] {
            assert_eq!(decoded(&text), wanted, "{text}");
        }
    }

    #[test]
    fn what_has_no_end_or_no_digits_is_refused() {
        for text in [
            "-----BEGIN X-----\nAAAA",
            "-----BEGIN X-----\nAAAA\n-----END Y-----",
            "-----BEGIN X-----\nAAAA\n-----BEGIN X-----\nAAAA\n-----END X-----",
        ] {
            let refused = blocks(text.as_bytes()).err().unwrap();
            assert!(refused.contains("X block has no end"), "{refused}");
        }
        for body in ["AA=A", "A", "AAAA====AAAA", "Proc-Type: 4", "\\", "\\u"] {
            let text = format!("-----BEGIN X-----{body}-----END X-----");
            assert!(
                blocks(text.as_bytes()).unwrap()[0].decode().is_none(),
                "{body}"
            );
        }
        assert_eq!(decoded("-----BEGIN X-----AB==-----END X-----"), [[0]]);
    }
}
