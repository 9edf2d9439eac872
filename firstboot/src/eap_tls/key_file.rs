//! The key as a file: a PEM block with its PKCS#11 URI, which pkcs11-provider decodes for every program that reads keys
//! from PEM files through OpenSSL 3.
//!
//! wpa_supplicant takes a URI, too, but then looks for an OpenSSL engine, and wants the PIN in its own configuration.
//!
//! Source: tools/uri2pem.py of pkcs11-provider: the label, and the DER of
//! `SEQUENCE { desc VisibleString, uri UTF8String }`.

use firstboot_formats::pem;

use crate::token::key_uri;

const LABEL: &str = "PKCS#11 PROVIDER URI";
const DESCRIPTION: &str = "PKCS#11 Provider URI v1.0";
/// Tags (ITU-T X.680 §8.6, X.690 §8.1.2).
const SEQUENCE: u8 = 0x30;
const VISIBLE_STRING: u8 = 0x1A;
const UTF8_STRING: u8 = 0x0C;

/// The file.
pub fn pem() -> String {
    let description = element(VISIBLE_STRING, DESCRIPTION.as_bytes());
    let uri = element(UTF8_STRING, key_uri().as_bytes());
    let sequence = element(SEQUENCE, &[description, uri].concat());
    pem::encode(LABEL, &sequence)
}

/// An element of up to 127 bytes, whose length is one byte (X.690 §8.1.3.4).
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    debug_assert!(content.len() < 128);
    [&[tag, content.len() as u8], content].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As tools/uri2pem.py writes it.
    #[test]
    fn the_file_is_what_the_providers_own_tool_writes() {
        let wanted = "\
-----BEGIN PKCS#11 PROVIDER URI-----\n\
MFEaGVBLQ1MjMTEgUHJvdmlkZXIgVVJJIHYxLjAMNHBrY3MxMTp0b2tlbj1ncmVl\n\
bmdyYXNzO29iamVjdD1ncmVlbmtleTt0eXBlPXByaXZhdGU=\n\
-----END PKCS#11 PROVIDER URI-----\n";
        assert_eq!(pem(), wanted);
    }
}
