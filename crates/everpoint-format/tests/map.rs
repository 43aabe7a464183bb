//! The image map and the index of packs come back as they were, or not at all.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod samples;

use std::io::Read;

use everpoint_format::FormatError;
use everpoint_format::manifest::{
    Extent, FileEntry, FileKind, MAX_PATH, ManifestReader, ManifestWriter, PackId,
};
use everpoint_format::pack::{decode_index, encode_index};
use everpoint_format::varint::{put, put_bytes};
use proptest::prelude::*;
use samples::{entries, entry, frame, manifest, read_manifest, record, runs};

#[test]
fn a_map_comes_back_as_it_was() {
    let bytes = manifest(&entries()).unwrap();
    assert_eq!(read_manifest(&bytes).unwrap(), (record(), entries()));
    let mut reader = ManifestReader::new(bytes.as_slice()).unwrap();
    while reader.next_entry().unwrap().is_some() {}
    assert_eq!(reader.packs(), [PackId([0xbb; 16]), PackId([0xaa; 16])]);
    assert!(reader.next_entry().unwrap().is_none(), "the end stays the end");
}

#[test]
fn names_that_are_no_utf8_are_stored_as_their_bytes_and_in_their_order() {
    let zero = || vec![Extent::Zero { length: 8192 }];
    let files: Vec<FileEntry> =
        ["a", "az", "a\\xe9", "a\\xe9/\\xff", "b\\x5cxe9", "b\\z"].map(|path| entry(path, zero())).into();
    let bytes = manifest(&files).unwrap();
    assert_eq!(read_manifest(&bytes).unwrap().1, files);
    let holds = |wanted: &[u8]| bytes.windows(wanted.len()).any(|window| window == wanted);
    assert!(holds(b"/\xff") && !holds(b"\\xff"), "the bytes, not the way they are shown");
    let unordered = [entry("a\\xe9", zero()), entry("az", zero())];
    assert!(manifest(&unordered).is_err());
}

#[test]
fn a_map_that_is_cut_or_continued_is_an_error() {
    let bytes = manifest(&entries()).unwrap();
    for length in 0..bytes.len() {
        assert!(read_manifest(&bytes[..length]).is_err(), "cut to {length}");
    }
    assert!(read_manifest(&[bytes.as_slice(), b"\0"].concat()).is_err());
}

#[test]
fn after_an_error_there_are_only_errors() {
    let mut bytes = manifest(&entries()).unwrap();
    // The first item behind the record is the name of a pack; no item has the kind 9.
    let head = manifest(&[]).unwrap().len() - 3;
    bytes[head] = 9;
    let mut reader = ManifestReader::new(bytes.as_slice()).unwrap();
    assert!(reader.next_entry().is_err());
    assert!(reader.next_entry().is_err());
}

#[test]
fn what_can_not_be_is_refused_when_written() {
    let good = || entry("b", vec![Extent::Zero { length: 8192 }]);
    let stored =
        |skip, length| Extent::Stored { length, pack: PackId([1; 16]), frame: frame(0, 64, 10, 100), skip };
    let cases = [
        ("same path", good()),
        ("earlier path", FileEntry { path: "a".into(), ..good() }),
        ("long path", FileEntry { path: "c".repeat(MAX_PATH + 1), ..good() }),
        ("size", FileEntry { path: "c".into(), size: 8191, ..good() }),
        ("empty extent", entry("c", vec![Extent::Zero { length: 0 }])),
        ("beyond its frame", entry("c", vec![stored(1, 100)])),
        ("overflow", entry("c", vec![Extent::Zero { length: u64::MAX }])),
        ("index", FileEntry { page_hashes: Some(u64::MAX), ..entry("c", vec![]) }),
    ];
    for (what, bad) in cases {
        let mut writer = ManifestWriter::new(Vec::new(), &record()).unwrap();
        writer.entry(&good()).unwrap();
        assert!(matches!(writer.entry(&bad), Err(FormatError::Invalid { .. })), "{what}");
    }
}

#[test]
fn a_list_that_claims_to_be_long_takes_no_memory() {
    let mut bytes = manifest(&[]).unwrap();
    bytes.truncate(bytes.len() - 3);
    bytes.push(2);
    put(&mut bytes, 0);
    put_bytes(&mut bytes, b"a");
    bytes.push(0);
    for value in [0, 0, 0, 0, 0, u64::MAX] {
        put(&mut bytes, value);
    }
    let endless = bytes.as_slice().chain(std::io::repeat(0));
    let mut reader = ManifestReader::new(endless).unwrap();
    assert!(matches!(reader.next_entry(), Err(FormatError::Invalid { .. })));
}

#[test]
fn an_index_comes_back_as_it_was() {
    let bytes = encode_index(&runs());
    assert_eq!(decode_index(&bytes).unwrap(), runs());
    for length in 0..bytes.len() {
        assert!(decode_index(&bytes[..length]).is_err(), "cut to {length}");
    }
    assert!(decode_index(&[bytes.as_slice(), b"x"].concat()).is_err());
}

fn any_extent() -> impl Strategy<Value = Extent> {
    let stored = (0_u8..4, 0_u32..5, 0_u32..4, any::<u32>(), 1_u32..1000, 1_u32..500).prop_map(
        |(pack, number, places, stored, raw, length)| Extent::Stored {
            length: length.min(raw),
            pack: PackId([pack; 16]),
            frame: frame(number, 64 + places * 1000, stored, raw),
            skip: raw - length.min(raw),
        },
    );
    prop_oneof![(1_u64..1 << 40).prop_map(|length| Extent::Zero { length }), stored]
}

/// Extents as a backup makes them: frames of some packs, one behind the other.
fn sequential(packs: &[u8]) -> Vec<Extent> {
    let mut ends = [(0_u32, 64_u32); 256];
    packs
        .iter()
        .map(|pack| {
            let (number, offset) = ends[*pack as usize];
            let place = frame(number, offset, 100 + number, 262_144);
            ends[*pack as usize] = (number + 1, offset + place.stored);
            Extent::Stored { length: place.raw, pack: PackId([*pack; 16]), frame: place, skip: 0 }
        })
        .collect()
}

proptest! {
    #[test]
    fn any_map_comes_back_as_it_was(
        files in prop::collection::btree_map("[a-cä/]{0,9}", prop::collection::vec(any_extent(), 0..12), 0..12),
        extremes: (u32, i64, Option<[u8; 16]>, Vec<u32>),
        hashes in prop::option::of(0..u64::MAX),
        packs: Vec<u8>,
    ) {
        let (mode, modified, content_hash, damaged) = extremes;
        let kinds = [FileKind::Pages, FileKind::Plain, FileKind::Directory, FileKind::External];
        let mut entries: Vec<FileEntry> = files
            .into_iter()
            .zip(kinds.iter().cycle())
            .map(|((path, extents), kind)| {
                let damaged = damaged.clone();
                let plain = entry(&path, extents);
                FileEntry { kind: *kind, mode, modified, content_hash, damaged, page_hashes: hashes, ..plain }
            })
            .collect();
        entries.push(entry("\u{10ffff}", sequential(&packs)));
        let bytes = manifest(&entries).unwrap();
        prop_assert_eq!(read_manifest(&bytes).unwrap().1, entries);
    }
}
