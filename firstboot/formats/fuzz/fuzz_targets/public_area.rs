//! TPMT_PUBLIC: what is accepted keeps its bytes, and has a key.

#![no_main]

use firstboot_formats::attestation::PublicArea;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|content: &[u8]| {
    if let Ok(area) = PublicArea::parse(content) {
        assert_eq!(area.bytes(), content);
        assert_eq!(area.public_key().key_type(), Some(area.key_type()));
    }
});
