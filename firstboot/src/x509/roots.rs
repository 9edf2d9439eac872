//! Root certificates: looked at at every boot, and left to those who trust them.
//!
//! Not with OpenSSL, whose first certificate in a process costs 7 million instructions: a third of a boot with
//! nothing to do.

use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::Decode;

use super::certificate::{DAMAGED, blocks, decoded};

/// Whether PEM has certificates in it, and all of them are whole. The error says what is wrong, for the operator.
/// An old root may have what RFC 5280 forbids today.
pub fn check_roots(pem: &[u8]) -> Result<(), String> {
    // Comments between the certificates of a bundle may be in any encoding.
    let blocks = blocks(String::from_utf8_lossy(pem).as_bytes())?;
    for block in &blocks {
        CertificateInner::<Raw>::from_der(&decoded(block)?)
            .map_err(|e| format!("{DAMAGED}: {e}"))?;
    }
    match blocks.is_empty() {
        true => Err("there is no certificate in it".into()),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AMAZON: &[u8] = include_bytes!("../../conf/AmazonRootCA1.pem");

    #[test]
    fn one_root_and_a_commented_bundle_will_do() {
        assert_eq!(check_roots(AMAZON), Ok(()));
        let bundle = [b"# Autorit\xE9\r\n".as_slice(), AMAZON, b"\n", AMAZON].concat();
        assert_eq!(check_roots(&bundle), Ok(()));
    }

    #[test]
    fn a_damaged_root_is_refused() {
        assert!(check_roots(b"").is_err());
        assert!(check_roots(&AMAZON[..AMAZON.len() / 2]).is_err());
        let mut damaged = AMAZON.to_vec();
        // inside the DER's lengths: "MIID" of the first line
        damaged[30] = b'A';
        assert!(check_roots(&damaged).is_err());
    }
}
