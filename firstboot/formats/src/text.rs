//! The one reader of text files that people make: on the boot partition, on the bench, in the image.
//!
//! Editors and shells put a byte order mark in front, and some write UTF-16: PowerShell's `>` does. The result is UTF-8
//! if the file was Unicode; line ends are left to the formats, which all accept CRLF.

use std::borrow::Cow;
use std::path::Path;

use zeroize::Zeroizing;

use crate::error::Result;
use crate::files;

/// Reads a text file of at most `limit` bytes, as [`files::read`] does, and decodes it; `None` if there is none.
pub fn read(path: &Path, limit: usize) -> Result<Option<Vec<u8>>> {
    Ok(read_secret(path, limit)?.map(|mut text| std::mem::take(&mut *text)))
}

/// The same for a file with a secret in it: no copy stays in memory.
pub fn read_secret(path: &Path, limit: usize) -> Result<Option<Zeroizing<Vec<u8>>>> {
    let content = files::read(path, limit)?.map(Zeroizing::new);
    Ok(content.map(|mut content| match decode(&content) {
        Cow::Owned(text) => Zeroizing::new(text),
        // Most files need no decoding: these are not copied.
        Cow::Borrowed(text) if text.len() == content.len() => {
            Zeroizing::new(std::mem::take(&mut *content))
        }
        Cow::Borrowed(text) => Zeroizing::new(text.to_vec()),
    }))
}

/// Takes the byte order mark off, and turns UTF-16 into UTF-8. Anything else stays as it is, text or not.
pub fn decode(content: &[u8]) -> Cow<'_, [u8]> {
    match content {
        [0xEF, 0xBB, 0xBF, text @ ..] => text.into(),
        [0xFF, 0xFE, text @ ..] => utf16(text, u16::from_le_bytes).into(),
        [0xFE, 0xFF, text @ ..] => utf16(text, u16::from_be_bytes).into(),
        // UTF-16 without a mark: everything that is read here begins with two ASCII characters (as JSON does, RFC 4627
        // §3).
        [1..=0x7F, 0, 1..=0x7F, 0, ..] => utf16(content, u16::from_le_bytes).into(),
        [0, 1..=0x7F, 0, 1..=0x7F, ..] => utf16(content, u16::from_be_bytes).into(),
        _ => content.into(),
    }
}

/// A character that cannot be decoded becomes U+FFFD, which means nothing in any of the formats.
fn utf16(text: &[u8], unit: fn([u8; 2]) -> u16) -> Vec<u8> {
    // Reserved in one piece, so that a growing buffer leaves no part of a secret behind. A unit has at most 3 bytes.
    let mut decoded = String::with_capacity(text.len() / 2 * 3);
    let units = text.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
    decoded.extend(char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)));
    decoded.into_bytes()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn each_unicode_form_comes_out_the_same() {
        let text = "{\"O\": \"Größe \u{1F600}\"}\r\n";
        let units = || text.encode_utf16();
        let little: Vec<u8> = units().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = units().flat_map(u16::to_be_bytes).collect();
        for content in [
            text.as_bytes().to_vec(),
            [b"\xEF\xBB\xBF", text.as_bytes()].concat(),
            [b"\xFF\xFE", little.as_slice()].concat(),
            [b"\xFE\xFF", big.as_slice()].concat(),
            little,
            big,
        ] {
            assert_eq!(decode(&content), text.as_bytes(), "{content:x?}");
        }
    }

    #[test]
    fn what_is_not_unicode_stays_as_it_is() {
        for content in [
            &b""[..],
            b"\x30\x82\x01\x0A\x00",
            b"caf\xE9",
            b"\x00\x00",
            b"a",
        ] {
            assert_eq!(decode(content), content);
        }
    }

    #[test]
    fn half_a_character_does_not_panic() {
        assert_eq!(decode(b"\xFF\xFE{\x00\x00"), &b"{"[..]);
        assert_eq!(decode(b"\xFF\xFE\x00\xD8"), "\u{FFFD}".as_bytes());
    }

    #[test]
    fn a_file_is_decoded_and_a_secret_too() {
        let directory = std::env::temp_dir().join(format!("firstboot-text-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("file");
        std::fs::write(&path, b"\xFE\xFF\x00k\x00e\x00y").unwrap();
        assert_eq!(read(&path, 8).unwrap().unwrap(), b"key");
        assert_eq!(*read_secret(&path, 8).unwrap().unwrap(), b"key");
        assert!(read(&path, 7).is_err());
        std::fs::remove_dir_all(&directory).unwrap();
        assert!(read(&path, 8).unwrap().is_none());
    }
}
