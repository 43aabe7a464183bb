//! A key as a person typed it.
#![no_main]

use everpoint_format::keyslot::KeyText;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(key) = KeyText::parse(text) {
        assert!(KeyText::parse(&key.reveal()).is_ok_and(|again| again == key));
    }
});
