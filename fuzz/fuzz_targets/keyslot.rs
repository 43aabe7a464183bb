//! A key slot, behind the checksum that accidents do not pass.
#![no_main]

use everpoint_format::keyslot::{KeyText, unwrap};
use everpoint_format::seal::RepositoryId;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let key = KeyText::generate([9; 32]);
    let _ = unwrap(bytes, &key, RepositoryId([7; 16]), 1);
    let slot = [b"EVPTKEY\n", bytes].concat();
    let sum = blake3::hash(&slot);
    let slot = [slot.as_slice(), &sum.as_bytes()[..8]].concat();
    assert!(unwrap(&slot, &key, RepositoryId([7; 16]), 1).is_err(), "nobody can guess a seal");
});
