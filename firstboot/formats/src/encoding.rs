//! Bytes in JSON: base64 (RFC 4648 §4, with padding) for binaries, hexadecimal digits for what people compare.
//!
//! Decoding is strict, so that the same bytes have only one encoding: no white space, no missing padding.

use ::base64::Engine;
use ::base64::engine::general_purpose::STANDARD;

/// Base64 in one line.
pub fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Decodes what [`to_base64`] writes.
pub fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// Bytes as lower-case hexadecimal digits.
pub fn to_hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from(b"0123456789abcdef"[usize::from(half)]);
    bytes
        .iter()
        .flat_map(|b| [digit(b >> 4), digit(b & 0x0F)])
        .collect()
}

/// Pairs of hexadecimal digits, upper or lower case.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|c| c.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

/// For `#[serde(with = …)]`: bytes as base64.
pub mod base64 {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes them.
    pub fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::to_base64(bytes))
    }

    /// Reads them.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        super::from_base64(&text).ok_or_else(|| D::Error::custom("it is not base64 (RFC 4648 §4)"))
    }
}

/// For `#[serde(with = …)]`: bytes as base64, if there are any.
pub mod optional_base64 {
    use serde::{Deserializer, Serializer};

    /// Writes them.
    pub fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, to: S) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => super::base64::serialize(bytes, to),
            None => to.serialize_none(),
        }
    }

    /// Reads them; refuses `null`.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<u8>>, D::Error> {
        super::base64::deserialize(from).map(Some)
    }
}

/// For `#[serde(with = …)]`: a fixed number of bytes as hexadecimal digits.
pub mod hex {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes them.
    pub fn serialize<S: Serializer, const N: usize>(
        bytes: &[u8; N],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::to_hex(bytes))
    }

    /// Reads them.
    pub fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        from: D,
    ) -> Result<[u8; N], D::Error> {
        let text = String::deserialize(from)?;
        super::from_hex(&text)
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| D::Error::custom(format!("it is not {} hexadecimal digits", 2 * N)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_same_bytes_have_one_encoding() {
        for bytes in [&b""[..], b"a", b"ab", b"abc", &[0xFB, 0xFF]] {
            assert_eq!(from_base64(&to_base64(bytes)).unwrap(), bytes);
        }
        for bad in [
            "YQ", "YQ=", "YQ==\n", " YQ==", "YQ==YQ==", "Y===", "YR==", "+/-_", "äaaa",
        ] {
            assert_eq!(from_base64(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn hexadecimal_digits_come_in_pairs() {
        assert_eq!(from_hex("00fF").unwrap(), [0x00, 0xFF]);
        assert_eq!(to_hex(&[0x00, 0x0F, 0xA9]), "000fa9");
        for bad in ["0", "0g", "+1", "ää", "0 "] {
            assert_eq!(from_hex(bad), None, "{bad:?}");
        }
    }
}
