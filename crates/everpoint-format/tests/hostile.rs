//! Decoders meet bytes that nobody of good will wrote: they may refuse them, never panic.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod samples;

use std::io::Read;

use everpoint_format::keyslot::{self, KeyText};
use everpoint_format::offsite::{OffsiteClaim, OffsiteOutcome, OffsiteSending};
use everpoint_format::records::{
    Attempt, Damage, Failure, Gap, Hold, Identity, LeaseRecord, Production, RepositoryConfig, Tombstone,
};
use everpoint_format::seal::{
    DataKey, FrameOpener, FrameStreamReader, FrameStreamWriter, HEADER_LEN, KeyRing, ObjectAddress,
    ObjectKind, RepositoryId, frame_lengths,
};
use everpoint_format::{bundle::BundleTable, codec::Codec, digest, pack};
use proptest::prelude::*;

const HERE: RepositoryId = RepositoryId([7; 16]);
const ADDRESS: ObjectAddress<'_> = ObjectAddress { repository: HERE, name: "a", kind: ObjectKind::Tail };

fn sealed() -> Vec<u8> {
    let ring = KeyRing::clear();
    let mut writer = FrameStreamWriter::new(Vec::new(), &ADDRESS, &ring, [1; 32], Codec::Lz4).unwrap();
    std::io::Write::write_all(&mut writer, &[5; 300]).unwrap();
    writer.finish(b"trailer").unwrap()
}

fn slot() -> Vec<u8> {
    keyslot::wrap(&[DataKey::new([1; 8], [2; 32])], &KeyText::generate([9; 32]), [5; 32], HERE, 1).unwrap()
}

/// Every decoder, fed with the same bytes.
fn feed(bytes: &[u8]) {
    let ring = KeyRing::clear();
    let _ = FrameOpener::new(&ADDRESS, bytes, &ring);
    let _ = frame_lengths(bytes);
    if let Ok(mut reader) = FrameStreamReader::new(bytes, &ADDRESS, &ring) {
        let _ = reader.read_to_end(&mut Vec::new());
    }
    let opener = FrameOpener::new(&ADDRESS, &sealed()[..HEADER_LEN], &ring).unwrap();
    let _ = opener.open(0, bytes, &mut Vec::new());
    let _ = samples::read_manifest(bytes);
    let _ = pack::decode_index(bytes);
    let _ = BundleTable::decode(&mut &*bytes).map(|table| table.parts(1));
    let _ = (Hold::decode(bytes), Tombstone::decode(bytes), Production::decode(bytes));
    let _ = (OffsiteClaim::decode(bytes), OffsiteSending::decode(bytes), OffsiteOutcome::decode(bytes));
    let _ = digest::decode(bytes);
    let _ = keyslot::unwrap(bytes, &KeyText::generate([9; 32]), HERE, 1);
    let _ = (Attempt::decode(bytes), Damage::decode(bytes), Failure::decode(bytes), Gap::decode(bytes));
    let _ = (Identity::decode(bytes), LeaseRecord::decode(bytes), RepositoryConfig::decode(bytes));
    let _ = KeyText::parse(&String::from_utf8_lossy(bytes));
}

#[test]
fn valid_bytes_with_one_byte_changed_make_nothing_panic() {
    let valid = [
        sealed(),
        samples::manifest(&samples::entries()).unwrap(),
        pack::encode_index(&samples::runs()),
        samples::bundle_table().encode(),
        digest::encode(&samples::digest()),
        slot(),
        Gap { from: 1, to: 2, at: 3, reason: "r".into() }.encode(),
        KeyText::generate([3; 32]).reveal().into_bytes(),
    ];
    for good in valid {
        for at in 0..good.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff, good[at] ^ 1, good[at].wrapping_add(1)] {
                let mut bad = good.clone();
                bad[at] = value;
                feed(&bad);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes_make_nothing_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        feed(&bytes);
    }

    #[test]
    fn random_bytes_behind_a_good_beginning_make_nothing_panic(
        which in 0_usize..5,
        keep in any::<prop::sample::Index>(),
        bytes in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let good = match which {
            0 => sealed(),
            1 => samples::manifest(&samples::entries()).unwrap(),
            2 => digest::encode(&samples::digest()),
            3 => samples::bundle_table().encode(),
            _ => pack::encode_index(&samples::runs()),
        };
        feed(&[&good[..keep.index(good.len())], bytes.as_slice()].concat());
    }
}
