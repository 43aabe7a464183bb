//! Small records and the configuration. What is read is the same when it is written and read again.
#![no_main]

use everpoint_format::offsite::{OffsiteClaim, OffsiteOutcome, OffsiteSending};
use everpoint_format::records::{Attempt, Damage, Failure, Gap, Hold, Identity, LeaseRecord, RepositoryConfig, Tombstone};
use libfuzzer_sys::fuzz_target;

macro_rules! again {
    ($bytes:expr, $($record:ident),+) => {
        $(if let Ok(record) = $record::decode($bytes) {
            assert!($record::decode(&record.encode()).is_ok_and(|again| again == record));
        })+
    };
}

fuzz_target!(|bytes: &[u8]| {
    again!(bytes, Attempt, Damage, Failure, Gap, Hold, Identity, LeaseRecord, RepositoryConfig, Tombstone, OffsiteClaim, OffsiteSending, OffsiteOutcome);
});
