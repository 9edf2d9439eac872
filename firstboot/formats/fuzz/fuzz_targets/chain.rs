//! Certificates in any form: read, put in order, checked, written, and read back unchanged.

#![no_main]

use firstboot_formats::clock::Clock;
use firstboot_formats::x509::{Chain, what_is};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|content: &[u8]| {
    what_is(content);
    // The first one's key stands in for the device's.
    let Some(key) = Chain::stored(content).map(|chain| chain.key()) else {
        return;
    };
    if let Ok(chain) = Chain::parse(content, &key, &[]) {
        chain.check(&key, "gateway-1", Clock::read());
        assert_eq!(Chain::stored(chain.pem().as_bytes()), Some(chain));
    }
});
