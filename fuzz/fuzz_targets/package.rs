//! The manifest of a daily package: what is read can be written and read again.
#![no_main]

use everpoint_format::package::PackageManifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(read) = PackageManifest::decode(bytes) else {
        return;
    };
    let again = PackageManifest::decode(&read.encode()).expect("a manifest");
    assert_eq!(again, read);
});
