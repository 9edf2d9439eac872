//! A request's record: what is read is written and read back unchanged.

#![no_main]

use firstboot_formats::record::Record;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|content: &[u8]| {
    if let Ok(record) = serde_json::from_slice::<Record>(content) {
        let written = serde_json::to_vec(&record).expect("a record can be written");
        assert_eq!(
            serde_json::from_slice::<Record>(&written).ok(),
            Some(record)
        );
    }
});
