//! The index of a pack. What is read is the same when it is written and read again.
#![no_main]

use everpoint_format::pack::{decode_index, encode_index};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(runs) = decode_index(bytes) {
        assert_eq!(decode_index(&encode_index(&runs)).expect("an index"), runs);
    }
});
