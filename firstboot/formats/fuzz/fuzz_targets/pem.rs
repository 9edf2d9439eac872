//! A text in any encoding, and the PEM blocks in it.

#![no_main]

use firstboot_formats::{pem, text};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|content: &[u8]| {
    for block in pem::blocks(&text::decode(content)).into_iter().flatten() {
        let Some(decoded) = block.decode() else {
            continue;
        };
        let written = pem::encode("X", &decoded);
        let read = pem::blocks(written.as_bytes())
            .ok()
            .and_then(|b| b.first()?.decode());
        assert_eq!(read, Some(decoded));
    }
});
