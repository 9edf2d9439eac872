//! PINs: made from two sources of randomness, kept in one buffer of fixed size, wiped when dropped.

use std::fmt;
use std::fmt::Write;

use heapless::String;
use zeroize::Zeroize;

use crate::error::{Error, ErrorKind, Result, ResultExt};

/// Bytes of randomness in a PIN: 120 bits.
pub const ENTROPY: usize = 15;

/// The longest PIN that every consumer reads whole: pkcs11-provider before 1.2 truncates a PIN file after 31 characters
/// (`MAX_PIN_LENGTH` 32 with `BIO_gets`, its src/util.c), and each use of a truncated PIN costs a dictionary-attack
/// try.
pub const MAX_LENGTH: usize = 31;

/// A PIN. `Debug` does not show it, and there is no `Display`.
pub struct Pin(String<MAX_LENGTH>);

impl Pin {
    /// 30 hexadecimal characters from the exclusive or of the TPM's and the kernel's randomness:
    /// as good as the better of the two.
    pub fn generate(from_tpm: &[u8]) -> Result<Self> {
        let mut entropy = [0u8; ENTROPY];
        getrandom::fill(&mut entropy).context(ErrorKind::Other, || {
            "cannot get random bytes from the kernel".into()
        })?;
        if from_tpm.len() != ENTROPY {
            return Err(Error::other(format!(
                "the TPM returned {} random bytes instead of {ENTROPY}",
                from_tpm.len()
            )));
        }
        let mut pin = Self(String::new());
        for (kernel, tpm) in entropy.iter().zip(from_tpm) {
            // Two characters a byte are 30: it fits.
            let _ = write!(pin.0, "{:02x}", kernel ^ tpm);
        }
        entropy.zeroize();
        Ok(pin)
    }

    /// The PIN in a PIN file, which may end in a newline.
    pub fn parse(mut content: Vec<u8>) -> Option<Self> {
        let pin = std::str::from_utf8(&content)
            .ok()
            .map(str::trim_end)
            .filter(|text| !text.is_empty())
            .and_then(|text| String::try_from(text).ok())
            .map(Self);
        content.zeroize();
        pin
    }

    /// The PIN in clear, for the PKCS#11 library and for the files whose readers may know it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin(…)")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_has_thirty_characters_and_differs_each_time() {
        let pins: Vec<Pin> = (0..2)
            .map(|_| Pin::generate(&[7; ENTROPY]).unwrap())
            .collect();
        assert_eq!(pins[0].expose().len(), 30);
        assert!(
            pins[0]
                .expose()
                .bytes()
                .all(|b| b"0123456789abcdef".contains(&b))
        );
        assert_ne!(pins[0].expose(), pins[1].expose());
    }

    #[test]
    fn too_little_from_the_tpm_is_an_error() {
        assert!(Pin::generate(&[7; ENTROPY - 1]).is_err());
    }

    #[test]
    fn a_pin_file_is_read_with_or_without_its_newline() {
        assert_eq!(Pin::parse(b"0123\n".to_vec()).unwrap().expose(), "0123");
        assert!(Pin::parse(Vec::new()).is_none());
        assert!(Pin::parse(vec![b'1'; MAX_LENGTH + 1]).is_none());
    }

    #[test]
    fn debug_output_hides_it() {
        let pin = Pin::parse(b"0123".to_vec()).unwrap();
        assert!(!format!("{pin:?}").contains("0123"));
    }
}
