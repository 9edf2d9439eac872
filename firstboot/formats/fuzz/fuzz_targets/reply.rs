//! A wrapped reply: read, checked against its own fields, and opened with a wrong credential.

#![no_main]

use firstboot_formats::attestation::Reply;
use firstboot_formats::digest::sha256;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|content: &[u8]| {
    if let Ok(reply) = Reply::parse(content) {
        let (name, ek) = (&reply.key_name, &reply.ek_certificate_sha256);
        let _ = reply.check(&[sha256(&reply.issuer)], &reply.thing_name, name, ek);
        assert!(reply.open(&[0; 32]).is_err());
    }
});
