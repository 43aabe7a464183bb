//! The table of a bundle. What is read is the same when it is written and read again, and its parts tile its segments.
#![no_main]

use everpoint_format::bundle::BundleTable;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(table) = BundleTable::decode(&mut &*bytes) {
        assert_eq!(BundleTable::decode(&mut &*table.encode()).expect("a table"), table);
        if let Ok(parts) = table.parts(table.segments.len() - 1) {
            let length: u64 = parts.iter().map(|part| u64::from(part.length)).sum();
            assert_eq!(length, table.segment_size);
        }
    }
});
