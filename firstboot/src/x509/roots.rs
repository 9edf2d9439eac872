//! Root certificates: looked at at every boot, and left to those who trust them.

use super::bundle::certificates;
use super::certificate::Certificate;
use crate::pem;

/// The certificates of a file of roots, as PEM that every reader takes: without what is around them, each once. An old
/// root may have what RFC 5280 forbids today. The error says what is wrong, for the operator.
pub fn roots(content: &[u8]) -> Result<String, String> {
    let encode = |root: &Certificate| pem::encode("CERTIFICATE", root.der());
    Ok(certificates(content)?.iter().map(encode).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const AMAZON: &[u8] = include_bytes!("../../conf/AmazonRootCA1.pem");

    #[test]
    fn one_root_stays_as_it_is_and_a_commented_bundle_loses_its_comments() {
        let amazon = String::from_utf8_lossy(AMAZON);
        assert_eq!(roots(AMAZON).as_deref(), Ok(&*amazon));
        let bundle = [b"# Autorit\xE9\r\n".as_slice(), AMAZON, b"\n", AMAZON].concat();
        assert_eq!(roots(&bundle).as_deref(), Ok(&*amazon));
    }

    #[test]
    fn a_damaged_root_is_refused() {
        assert!(roots(b"").is_err());
        assert!(roots(&AMAZON[..AMAZON.len() / 2]).is_err());
        let mut damaged = AMAZON.to_vec();
        // inside the DER's lengths: "MIID" of the first line
        damaged[30] = b'A';
        assert!(roots(&damaged).is_err());
    }
}
