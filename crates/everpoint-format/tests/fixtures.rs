//! What version 1 wrote is read for ever, and this program still writes the same.
//!
//! `EVERPOINT_WRITE_FIXTURES=1 cargo test -p everpoint-format --test fixtures` writes those that are missing; one that
//! exists is never changed: a change of the format makes files of a new version beside it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod samples;

use std::io::{Read, Write};
use std::path::PathBuf;

use everpoint_format::codec::Codec;
use everpoint_format::keyslot::{self, KeyText};
use everpoint_format::offsite::{ClockRecord, OffsiteClaim, OffsiteOutcome, OffsiteSending};
use everpoint_format::records::{
    Attempt, Damage, Failure, Gap, Hold, Identity, LeaseRecord, Production, RepositoryConfig, Tombstone,
};
use everpoint_format::seal::{
    DataKey, FrameStreamReader, FrameStreamWriter, KeyRing, ObjectAddress, ObjectKind, RepositoryId,
};
use everpoint_format::{bundle, digest, pack};

const HERE: RepositoryId = RepositoryId(*b"repository no. 1");
const ADDRESS: ObjectAddress<'_> =
    ObjectAddress { repository: HERE, name: "clusters/orders/packs/ab/abcd", kind: ObjectKind::Pack };

/// The stored bytes; they must be `made` unless they depend on a compressor's version.
fn stored(name: &str, made: &[u8]) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/v1").join(name);
    if std::env::var_os("EVERPOINT_WRITE_FIXTURES").is_some() && !path.exists() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, made).unwrap();
    }
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn same(name: &str, made: &[u8]) -> Vec<u8> {
    let stored = stored(name, made);
    assert!(stored == made, "{name} is written differently than before");
    stored
}

fn ring() -> KeyRing {
    KeyRing::new(vec![DataKey::new(*b"older id", [1; 32]), DataKey::new(*b"newer id", [2; 32])])
}

/// Text that compresses, and a second frame of something else.
fn data() -> Vec<Vec<u8>> {
    vec![b"what every page was ".repeat(60), (0..=255).collect()]
}

fn object(ring: &KeyRing, codec: Codec) -> Vec<u8> {
    let mut writer = FrameStreamWriter::new(Vec::new(), &ADDRESS, ring, [0x5a; 32], codec).unwrap();
    for frame in data() {
        writer.write_all(&frame).unwrap();
        writer.cut().unwrap();
    }
    // Too short to be compressed.
    writer.finish(b"trailer").unwrap()
}

fn open(bytes: &[u8], ring: &KeyRing) {
    let mut reader = FrameStreamReader::new(bytes, &ADDRESS, ring).unwrap();
    let mut found = Vec::new();
    reader.read_to_end(&mut found).unwrap();
    assert_eq!(found, data().concat());
    assert_eq!(reader.trailer(), Some(&b"trailer"[..]));
}

#[test]
fn sealed_objects() {
    let clear = KeyRing::clear();
    open(&same("object-clear-raw", &object(&clear, Codec::Raw)), &clear);
    open(&same("object-encrypted-raw", &object(&ring(), Codec::Raw)), &ring());
    // Compressors may find other bytes for the same content in later versions: these are only read.
    open(&stored("object-clear-zstd", &object(&clear, Codec::Zstd(3))), &clear);
    open(&stored("object-encrypted-zstd", &object(&ring(), Codec::Zstd(1))), &ring());
    open(&stored("object-encrypted-lz4", &object(&ring(), Codec::Lz4)), &ring());
}

#[test]
fn an_object_sealed_before_a_rotation() {
    let before = KeyRing::new(ring().keys()[..1].to_vec());
    open(&same("object-encrypted-older-key", &object(&before, Codec::Raw)), &ring());
}

#[test]
fn manifest() {
    let bytes = same("manifest", &samples::manifest(&samples::entries()).unwrap());
    assert_eq!(samples::read_manifest(&bytes).unwrap(), (samples::record(), samples::entries()));
}

#[test]
fn pack_index() {
    let bytes = same("pack-index", &pack::encode_index(&samples::runs()));
    assert_eq!(pack::decode_index(&bytes).unwrap(), samples::runs());
}

#[test]
fn bundle_index() {
    let bytes = same("bundle-index", &samples::bundle_table().encode());
    assert_eq!(bundle::BundleTable::decode(&mut &*bytes).unwrap(), samples::bundle_table());
}

#[test]
fn log_digest() {
    let bytes = same("digest", &digest::encode(&samples::digest()));
    assert_eq!(digest::decode(&bytes).unwrap(), samples::digest());
}

#[test]
fn key_slots() {
    let keys = ring().keys().to_vec();
    let texts = [
        (
            "keyslot-generated",
            "everpoint-key-1-4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b-",
        ),
        ("keyslot-passphrase", "correct horse battery staple"),
    ];
    for (name, text) in texts {
        let key = if name == "keyslot-generated" {
            KeyText::generate([0x4b; 32])
        } else {
            KeyText::parse(text).unwrap()
        };
        assert!(key.reveal().starts_with(text));
        let bytes = same(name, &keyslot::wrap(&keys, &key, [0xa5; 32], HERE, 3).unwrap());
        assert_eq!(keyslot::unwrap(&bytes, &key, HERE, 3).unwrap(), keys);
    }
    let text = same("key-text", KeyText::generate([0x4b; 32]).reveal().as_bytes());
    assert_eq!(KeyText::parse(std::str::from_utf8(&text).unwrap()).unwrap(), KeyText::generate([0x4b; 32]));
}

#[test]
fn records() {
    let time = 1_769_697_000_000_000;
    macro_rules! check {
        ($name:literal, $type:ident, $value:expr) => {
            let value = $value;
            assert_eq!($type::decode(&same($name, &value.encode())).unwrap(), value);
        };
    }
    check!("config.json", RepositoryConfig, RepositoryConfig::new(HERE, true, time));
    check!("attempt.json", Attempt, Attempt::new("20260129-143000F", "full", time, 4711));
    check!("failure.json", Failure, Failure::new(time, "store.full", "no space is left"));
    check!("damage.json", Damage, Damage { at: time, object: "a/b".into(), message: "cut off".into() });
    check!("gap.json", Gap, Gap { from: 0x300_0000, to: 0x400_0000, at: time, reason: "recycled".into() });
    check!("hold.json", Hold, Hold { at: time, until: Some(time + 1), released: false });
    check!(
        "production.json",
        Production,
        Production {
            identity: 2,
            branch: "00000002-0123456789abcdef".to_owned(),
            position: 0x0300_0148,
            at: time,
            by: "server".to_owned(),
        }
    );
    check!("tombstone.json", Tombstone, Tombstone { at: time, packs: vec!["0f".repeat(16)] });
    let clock = ClockRecord { wall: time, boot: Some("b1".into()), since_boot: Some(7) };
    let (host, token, name) = ("db1".to_owned(), "ab".repeat(16), "everpoint-20260129.tar.age".to_owned());
    let claim = OffsiteClaim {
        clock: clock.clone(),
        holder: "daemon".into(),
        host: host.clone(),
        process: 4711,
        token: token.clone(),
        name: name.clone(),
    };
    let sha256 = "0f".repeat(32);
    let sending = OffsiteSending {
        clock: clock.clone(),
        host,
        process: 4711,
        token,
        name: name.clone(),
        size: 9,
        sha256: sha256.clone(),
        request: String::new(),
        contents: Default::default(),
    };
    let outcome = OffsiteOutcome {
        status: "arrived".into(),
        clock,
        provider_date: Some(time),
        message: String::new(),
        name,
        size: 9,
        sha256,
        contents: serde_json::from_str("{\"shop\": {\"to\": \"0/3000000\"}}").unwrap(),
    };
    check!("offsite-claim.json", OffsiteClaim, claim);
    check!("offsite-sending.json", OffsiteSending, sending);
    check!("offsite-outcome.json", OffsiteOutcome, outcome);
    let system_identifier = "7460012345678901234".to_owned();
    check!(
        "identity.json",
        Identity,
        Identity { system_identifier, server_version: 160_015, segment_size: 16 << 20, since: time }
    );
    let (holder, token, host) = ("backup".to_owned(), "ab".repeat(16), "db1".to_owned());
    check!(
        "lease.json",
        LeaseRecord,
        LeaseRecord { holder, token, ttl_millis: 60_000, released: false, host, process: 4711 }
    );
}
