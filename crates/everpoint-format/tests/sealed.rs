//! What sealing promises: bytes come back as they were, or not at all.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::io::{Read, Write};

use everpoint_format::FormatError;
use everpoint_format::codec::{Codec, Compressor};
use everpoint_format::seal::{
    DataKey, FrameOpened, FrameOpener, FrameRef, FrameSealer, FrameStreamReader, FrameStreamWriter,
    HEADER_LEN, KeyRing, MAX_FRAME_RAW, ObjectAddress, ObjectKind, RepositoryId, frame_lengths,
};
use proptest::prelude::*;

const REPOSITORY: RepositoryId = RepositoryId([7; 16]);
const NAME: &str = "clusters/a/packs/00/0011";
const SALT: [u8; 32] = [9; 32];
const CODECS: [Codec; 4] = [Codec::Raw, Codec::Zstd(1), Codec::Zstd(19), Codec::Lz4];

fn address(name: &str) -> ObjectAddress<'_> {
    ObjectAddress { repository: REPOSITORY, name, kind: ObjectKind::Pack }
}

fn rings() -> [KeyRing; 2] {
    [KeyRing::clear(), KeyRing::new(vec![DataKey::new([1; 8], [2; 32])])]
}

/// An object of these frames, and where each frame lies; the last one is the trailer.
fn object(ring: &KeyRing, codec: Codec, frames: &[Vec<u8>], trailer: &[u8]) -> (Vec<u8>, Vec<FrameRef>) {
    let mut compressor = Compressor::new();
    let mut sealer = FrameSealer::new(&address(NAME), ring, SALT).unwrap();
    let mut out = sealer.header().to_vec();
    let mut places: Vec<FrameRef> =
        frames.iter().map(|raw| sealer.seal(&mut compressor, codec, raw, &mut out).unwrap()).collect();
    places.push(sealer.finish(&mut compressor, trailer, &mut out).unwrap());
    (out, places)
}

fn frame<'a>(object: &'a [u8], place: &FrameRef) -> &'a [u8] {
    &object[place.offset as usize..][..place.stored as usize]
}

/// Reads an object from front to back; the data and the trailer.
fn read(
    bytes: &[u8],
    address: &ObjectAddress<'_>,
    ring: &KeyRing,
) -> Result<(Vec<u8>, Vec<u8>), FormatError> {
    let mut reader = FrameStreamReader::new(bytes, address, ring)?;
    let mut data = Vec::new();
    reader.read_to_end(&mut data)?;
    Ok((data, reader.trailer().unwrap().to_vec()))
}

fn sample() -> Vec<Vec<u8>> {
    vec![b"a page ".repeat(40), vec![0; 300], (0..=255).collect(), Vec::new()]
}

#[test]
fn every_flipped_bit_is_an_error() {
    for ring in rings() {
        let (good, _) = object(&ring, Codec::Zstd(1), &sample(), b"index");
        assert_eq!(read(&good, &address(NAME), &ring).unwrap().0, sample().concat());
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                assert!(read(&bad, &address(NAME), &ring).is_err(), "byte {at} bit {bit}");
            }
        }
    }
}

#[test]
fn every_truncation_and_anything_behind_the_end_is_an_error() {
    for ring in rings() {
        let (good, _) = object(&ring, Codec::Lz4, &sample(), b"");
        for length in 0..good.len() {
            let cut = read(&good[..length], &address(NAME), &ring);
            assert!(matches!(cut, Err(FormatError::Truncated { .. })), "cut to {length}: {cut:?}");
        }
        let longer = [good.as_slice(), b"x"].concat();
        assert!(read(&longer, &address(NAME), &ring).is_err());
        let twice = [good.as_slice(), &good].concat();
        assert!(read(&twice, &address(NAME), &ring).is_err());
    }
}

#[test]
fn frames_that_are_swapped_dropped_repeated_or_of_another_object_are_errors() {
    for ring in rings() {
        let alike: Vec<Vec<u8>> = (0..3_u8).map(|i| vec![i; 500]).collect();
        let (good, places) = object(&ring, Codec::Raw, &alike, b"index");
        let parts: Vec<&[u8]> = places.iter().map(|place| frame(&good, place)).collect();
        let build = |order: &[usize]| {
            let mut out = good[..HEADER_LEN].to_vec();
            order.iter().for_each(|i| out.extend_from_slice(parts[*i]));
            out
        };
        assert!(read(&build(&[0, 1, 2, 3]), &address(NAME), &ring).is_ok());
        for order in [
            &[1, 0, 2, 3][..],
            &[0, 2, 3],
            &[0, 1, 3],
            &[1, 2, 3],
            &[0, 0, 1, 2, 3],
            &[3],
            &[0, 1, 2],
            &[3, 3],
        ] {
            assert!(read(&build(order), &address(NAME), &ring).is_err(), "{order:?}");
        }
        let opener = FrameOpener::new(&address(NAME), &good[..HEADER_LEN], &ring).unwrap();
        let mut raw = Vec::new();
        assert_eq!(opener.open(1, parts[1], &mut raw).unwrap(), FrameOpened::Data);
        assert_eq!(opener.open(3, parts[3], &mut raw).unwrap(), FrameOpened::Last);
        for (number, at) in [(0, 1), (2, 1), (257, 1), (1 << 31 | 1, 1)] {
            assert!(matches!(opener.open(number, parts[at], &mut raw), Err(FormatError::Damaged { .. })));
        }
    }
}

#[test]
fn an_object_in_another_place_is_an_error() {
    for ring in rings() {
        let (good, _) = object(&ring, Codec::Zstd(1), &sample(), b"index");
        let elsewhere = [
            ObjectAddress { name: "clusters/b/packs/00/0011", ..address(NAME) },
            ObjectAddress { repository: RepositoryId([8; 16]), ..address(NAME) },
            ObjectAddress { kind: ObjectKind::Segment, ..address(NAME) },
        ];
        for place in elsewhere {
            assert!(matches!(read(&good, &place, &ring), Err(error) if is_damaged(&error)), "{place:?}");
        }
        // The same frame of a second attempt under the same name, that drew another salt.
        let mut other = FrameSealer::new(&address(NAME), &ring, [10; 32]).unwrap();
        let mut moved = other.header().to_vec();
        other.seal(&mut Compressor::new(), Codec::Zstd(1), &sample()[0], &mut moved).unwrap();
        moved.splice(..HEADER_LEN, good[..HEADER_LEN].iter().copied());
        let opener = FrameOpener::new(&address(NAME), &moved, &ring).unwrap();
        assert!(opener.open(0, &moved[HEADER_LEN..], &mut Vec::new()).is_err());
    }
}

/// Whether an error says damage.
fn is_damaged(error: &FormatError) -> bool {
    matches!(error, FormatError::Damaged { .. })
}

#[test]
fn keys_are_told_apart() {
    let [clear, ring] = rings();
    let (sealed, _) = object(&ring, Codec::Raw, &sample(), b"");
    let (open, _) = object(&clear, Codec::Raw, &sample(), b"");
    let unknown = KeyRing::new(vec![DataKey::new([3; 8], [2; 32])]);
    assert!(matches!(read(&sealed, &address(NAME), &unknown), Err(FormatError::KeyUnknown { .. })));
    assert!(matches!(read(&sealed, &address(NAME), &clear), Err(FormatError::KeyUnknown { .. })));
    let impostor = KeyRing::new(vec![DataKey::new([1; 8], [3; 32])]);
    assert!(matches!(read(&sealed, &address(NAME), &impostor), Err(error) if is_damaged(&error)));
    assert!(read(&open, &address(NAME), &ring).is_err(), "a clear object must not pass for an encrypted one");
    let rotated = KeyRing::new(vec![DataKey::new([1; 8], [2; 32]), DataKey::new([4; 8], [5; 32])]);
    assert!(read(&sealed, &address(NAME), &rotated).is_ok(), "an older key still opens");
    assert!(!format!("{:?}", DataKey::new([1; 8], [0xab; 32])).contains("ab"));
    assert!(!format!("{rotated:?}").contains("5, 5"));
}

#[test]
fn what_is_encrypted_does_not_show() {
    let [clear, ring] = rings();
    let secret = b"a secret that must not show";
    let shows = |bytes: &[u8]| bytes.windows(secret.len()).any(|window| window == secret);
    assert!(shows(&object(&clear, Codec::Raw, &[secret.to_vec()], b"").0));
    assert!(!shows(&object(&ring, Codec::Raw, &[secret.to_vec()], b"").0));
}

#[test]
fn frames_have_a_largest_size() {
    let mut sealer = FrameSealer::new(&address(NAME), &KeyRing::clear(), SALT).unwrap();
    let mut out = Vec::new();
    let raw = vec![1; MAX_FRAME_RAW + 1];
    assert!(sealer.seal(&mut Compressor::new(), Codec::Zstd(1), &raw, &mut out).is_err());
    assert!(out.is_empty(), "a refused frame leaves nothing behind");
    assert!(sealer.seal(&mut Compressor::new(), Codec::Zstd(1), &raw[1..], &mut out).is_ok());
}

#[test]
fn several_threads_seal_the_same_object_as_one() {
    let raw: Vec<u8> = (0..(5 * MAX_FRAME_RAW + 77) / 8).flat_map(|i| (i * i).to_le_bytes()).collect();
    let sealed = |workers: Option<usize>| {
        let mut sealer = FrameSealer::new(&address(NAME), &rings()[1], SALT).unwrap();
        let mut out = sealer.header().to_vec();
        let first = sealer.seal(&mut Compressor::new(), Codec::Raw, b"before", &mut out).unwrap();
        assert_eq!(first.offset as usize, HEADER_LEN);
        match workers {
            Some(workers) => drop(sealer.seal_many(Codec::Zstd(1), &raw, workers, &mut out).unwrap()),
            None => raw.chunks(MAX_FRAME_RAW).for_each(|chunk| {
                sealer.seal(&mut Compressor::new(), Codec::Zstd(1), chunk, &mut out).unwrap();
            }),
        }
        assert_eq!(sealer.offset(), out.len() as u64);
        sealer.finish(&mut Compressor::new(), b"end", &mut out).unwrap();
        out
    };
    let one = sealed(None);
    assert!([0, 1, 2, 3, 7, 100].into_iter().all(|workers| sealed(Some(workers)) == one));
    assert_eq!(read(&one, &address(NAME), &rings()[1]).unwrap().0, [b"before", raw.as_slice()].concat());
}

#[test]
fn headers_that_can_not_be_are_refused() {
    let head = |payload: u32, raw: u32, rest: [u8; 4]| {
        [&payload.to_le_bytes()[..], &raw.to_le_bytes(), &rest].concat()
    };
    let largest = u32::try_from(MAX_FRAME_RAW).unwrap();
    assert!(frame_lengths(&head(5, 9, [1, 0, 0, 0])).is_ok());
    assert!(frame_lengths(&head(9, 9, [0, 1, 0, 0])).is_ok());
    assert!(frame_lengths(&head(5, largest, [1, 0, 0, 0])).is_ok());
    assert!(frame_lengths(&head(5, largest + 1, [1, 1, 0, 0])).is_ok(), "a last frame may be larger");
    for (what, bad) in [
        ("longer than what it holds", head(10, 9, [1, 0, 0, 0])),
        ("not compressed, yet shorter", head(8, 9, [0, 0, 0, 0])),
        ("too large", head(5, largest + 1, [1, 0, 0, 0])),
        ("a last frame too large", head(5, u32::MAX, [1, 1, 0, 0])),
        ("an unknown flag", head(5, 9, [1, 2, 0, 0])),
        ("reserved", head(5, 9, [1, 0, 1, 0])),
    ] {
        assert!(matches!(frame_lengths(&bad), Err(FormatError::Invalid { .. })), "{what}");
    }
}

#[test]
fn incompressible_frames_are_stored_as_they_are() {
    let noise: Vec<u8> =
        (0..20_000_u32).flat_map(|i| blake3::hash(&i.to_le_bytes()).as_bytes()[..4].to_vec()).collect();
    for codec in CODECS {
        let (_, places) = object(&KeyRing::clear(), codec, std::slice::from_ref(&noise), b"");
        assert_eq!(places[0].stored as usize, noise.len() + 28, "{codec:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn frames_come_back_as_they_were(
        frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..8),
        trailer in prop::collection::vec(any::<u8>(), 0..500),
        repeat in 1_usize..40,
        codec in prop::sample::select(CODECS.to_vec()),
        encrypted in 0_usize..2,
    ) {
        let ring = &rings()[encrypted];
        let frames: Vec<Vec<u8>> = frames.iter().map(|frame| frame.repeat(repeat)).collect();
        let (bytes, places) = object(ring, codec, &frames, &trailer);
        prop_assert_eq!(read(&bytes, &address(NAME), ring).unwrap(), (frames.concat(), trailer));
        let opener = FrameOpener::new(&address(NAME), &bytes[..HEADER_LEN], ring).unwrap();
        let mut raw = Vec::new();
        for (place, expected) in places.iter().zip(&frames).rev() {
            let sealed = frame(&bytes, place);
            prop_assert_eq!(frame_lengths(sealed).unwrap(), (place.stored as usize, place.raw as usize));
            opener.open(place.number, sealed, &mut raw).unwrap();
            prop_assert_eq!(&raw, expected);
        }
    }

    #[test]
    fn a_stream_comes_back_however_it_is_written(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200_000), 0..12),
        encrypted in 0_usize..2,
    ) {
        let ring = &rings()[encrypted];
        let mut writer = FrameStreamWriter::new(Vec::new(), &address(NAME), ring, SALT, Codec::Zstd(1)).unwrap();
        for piece in &pieces {
            writer.write_all(piece).unwrap();
        }
        let bytes = writer.finish(b"end").unwrap();
        prop_assert_eq!(read(&bytes, &address(NAME), ring).unwrap(), (pieces.concat(), b"end".to_vec()));
    }

    #[test]
    fn random_bytes_are_refused(header in any::<[u8; HEADER_LEN]>(), body in prop::collection::vec(any::<u8>(), 0..200)) {
        let ring = &rings()[0];
        prop_assert!(FrameOpener::new(&address(NAME), &header, ring).is_err());
        let (good, _) = object(ring, Codec::Raw, &[], b"");
        prop_assert!(read(&[&good[..HEADER_LEN], body.as_slice()].concat(), &address(NAME), ring).is_err());
    }
}
