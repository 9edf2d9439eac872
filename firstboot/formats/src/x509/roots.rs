//! Root certificates: checked at every boot, and verified by those who rely on them.

use super::bundle::certificates;
use super::certificate::Certificate;
use crate::pem;

/// The certificates of a file of roots, as PEM that every reader accepts: without surrounding text, each once. An old
/// root may have what RFC 5280 forbids today. The error tells the operator what is wrong.
pub fn roots(content: &[u8]) -> Result<String, String> {
    let encode = |root: &Certificate| pem::encode("CERTIFICATE", root.der());
    Ok(certificates(content)?.iter().map(encode).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::sha256;
    use crate::encoding::to_hex;

    const AMAZON: &[u8] = include_bytes!("../../../conf/AmazonTrustServices.pem");

    #[test]
    fn a_bundle_loses_only_comments_and_copies() {
        let amazon = String::from_utf8_lossy(AMAZON);
        assert_eq!(roots(AMAZON).as_deref(), Ok(&*amazon));
        let bundle = [b"# Autorit\xE9\r\n".as_slice(), AMAZON, b"\n", AMAZON].concat();
        assert_eq!(roots(&bundle).as_deref(), Ok(&*amazon));
    }

    /// As Amazon Trust Services publishes them (www.amazontrust.com/repository).
    #[test]
    fn the_five_roots_of_amazon_trust_services_are_these() {
        const FINGERPRINTS: [&str; 5] = [
            "8ecde6884f3d87b1125ba31ac3fcb13d7016de7f57cc904fe1cb97c6ae98196e",
            "1ba5b2aa8c65401a82960118f80bec4f62304d83cec4713a19c39c011ea46db4",
            "18ce6cfe7bf14e60b2e347b8dfe868cb31d02ebb3ada271569f50343b46db3a4",
            "e35d28419ed02025cfa69038cd623962458da5c695fbdea3c22b0bfb25897092",
            "568d6905a2c88708a4b3025190edcfedb1974a606a13c6e5290fcb2ae63edab5",
        ];
        let found = certificates(AMAZON).unwrap_or_default();
        let found: Vec<String> = found.iter().map(|c| to_hex(&sha256(c.der()))).collect();
        assert_eq!(found, FINGERPRINTS);
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
