//! A digest of the log.
#![no_main]

use everpoint_format::digest::{decode, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(digest) = decode(bytes) {
        let once = decode(&encode(&digest)).expect("a digest");
        assert_eq!(decode(&encode(&once)).expect("a digest"), once);
    }
});
