//! The bytes that a reply's signature and its AEAD cover: each field as its length (u32, big endian) and its bytes, so
//! that they differ for any two replies. Binary fields go in as they are, not as base64.

/// A sequence of fields.
#[derive(Clone)]
pub(super) struct Canonical(Vec<u8>);

impl Canonical {
    /// Starts with `prefix`, without its length.
    pub(super) fn new(prefix: &[u8]) -> Self {
        Self(prefix.to_vec())
    }

    /// Adds a field. It must be shorter than 4 GiB, as everything here is.
    pub(super) fn field(mut self, bytes: &[u8]) -> Self {
        self.0
            .extend((u32::try_from(bytes.len()).unwrap_or(u32::MAX)).to_be_bytes());
        self.0.extend(bytes);
        self
    }

    /// All the bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_from_one_field_to_the_next_is_seen() {
        let of = |a: &[u8], b: &[u8]| Canonical::new(b"v").field(a).field(b).bytes().to_vec();
        assert_eq!(of(b"a", b""), b"v\0\0\0\x01a\0\0\0\0");
        assert_ne!(of(b"ab", b"c"), of(b"a", b"bc"));
    }
}
