//! A whole sealed object, read from front to back.
#![no_main]

use std::io::Read;

use everpoint_format::seal::{FrameStreamReader, KeyRing, ObjectAddress, ObjectKind, RepositoryId};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let address = ObjectAddress { repository: RepositoryId([7; 16]), name: "a", kind: ObjectKind::Pack };
    if let Ok(mut reader) = FrameStreamReader::new(bytes, &address, &KeyRing::clear()) {
        let _ = reader.read_to_end(&mut Vec::new());
    }
});
