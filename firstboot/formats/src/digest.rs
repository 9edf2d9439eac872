//! SHA-256, and how people write one.

use openssl::sha::Sha256;

use crate::encoding::from_hex;

/// SHA-256 of something: an EK certificate, an issuer's certificate.
pub type Fingerprint = [u8; 32];

/// SHA-256. Uses OpenSSL's old interface: since 3.0, `SHA256()` looks its algorithm up among all providers, which is a
/// tenth of the computation of a boot with nothing to do.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(bytes);
    hasher.finish()
}

/// Reads a SHA-256 as `sha256sum` and `openssl x509 -fingerprint -sha256` print it: 64 hexadecimal digits, with
/// or without colons between the bytes.
pub fn fingerprint(text: &str) -> Option<Fingerprint> {
    let digits = match text.contains(':') {
        true if text.split(':').all(|byte| byte.len() == 2) => &text.replace(':', ""),
        true => return None,
        false => text,
    };
    from_hex(digits)?.try_into().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_as_openssl_and_sha256sum_print_them() {
        let plain = "00ff".repeat(16);
        let colons = ["00:FF"; 16].join(":");
        let expected: Vec<u8> = [0x00, 0xFF].repeat(16);
        assert_eq!(fingerprint(&plain).unwrap()[..], expected);
        assert_eq!(fingerprint(&colons).unwrap()[..], expected);
        for bad in [
            "",
            "00",
            &plain[..62],
            &format!("{plain}00"),
            &plain.replace('f', "g"),
            &colons.replacen(':', "", 1),
            &format!(":{colons}"),
            &plain.replace("ff", "+f"),
        ] {
            assert!(fingerprint(bad).is_none(), "{bad}");
        }
    }
}
