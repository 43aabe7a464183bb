//! Key slots and small records.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use everpoint_format::FormatError;
use everpoint_format::keyslot::{KeyText, unwrap, wrap};
use everpoint_format::offsite::{ClockRecord, OffsiteClaim, OffsiteOutcome, OffsiteSending};
use everpoint_format::records::{
    Attempt, Damage, Failure, Gap, Hold, Identity, LeaseRecord, Production, RepositoryConfig, Tombstone,
};
use everpoint_format::seal::{DataKey, RepositoryId};

const HERE: RepositoryId = RepositoryId([7; 16]);

#[test]
fn a_damaged_slot_is_told_from_a_wrong_key() {
    let key = KeyText::generate([9; 32]);
    let good = wrap(&[DataKey::new([1; 8], [2; 32])], &key, [5; 32], HERE, 1).unwrap();
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            match unwrap(&bad, &key, HERE, 1) {
                Err(FormatError::Damaged { .. } | FormatError::NotOurs { .. }) => {}
                other => panic!("byte {at} bit {bit}: {other:?}"),
            }
        }
    }
    for length in 0..good.len() {
        assert!(
            !matches!(unwrap(&good[..length], &key, HERE, 1), Ok(_) | Err(FormatError::WrongKey)),
            "cut to {length}"
        );
    }
    assert!(matches!(unwrap(&good, &KeyText::generate([8; 32]), HERE, 1), Err(FormatError::WrongKey)));
}

#[test]
fn a_slot_always_holds_a_key() {
    assert!(wrap(&[], &KeyText::generate([9; 32]), [5; 32], HERE, 1).is_err());
}

#[test]
fn secrets_do_not_show() {
    let key = KeyText::parse("a passphrase of mine").unwrap();
    let slot =
        wrap(&[DataKey::new([1; 8], *b"the secret of the data is here!!")], &key, [5; 32], HERE, 1).unwrap();
    let text = String::from_utf8_lossy(&slot).into_owned() + &format!("{key:?}");
    assert!(!text.contains("passphrase") && !text.contains("secret"));
}

#[test]
fn a_generated_key_survives_printing_and_parsing() {
    let key = KeyText::generate([0xa7; 32]);
    for text in [key.reveal(), format!("\n {} \n", key.reveal()), key.reveal().replace("a7", "A7")] {
        assert_eq!(KeyText::parse(&text).unwrap(), key);
    }
}

#[test]
fn records_come_back_as_they_were() {
    macro_rules! check {
        ($value:expr, $type:ident) => {
            let value = $value;
            let text = String::from_utf8(value.encode()).unwrap();
            assert_eq!($type::decode(text.as_bytes()).unwrap(), value);
            let extended = text.replacen('{', "{ \"of a later version\": [1],", 1);
            assert_eq!($type::decode(extended.as_bytes()).unwrap(), value, "unknown fields are skipped");
            let later =
                text.replace("\"version\": 1", "\"version\": 2").replace("_format\": 1", "_format\": 2");
            assert!(matches!(
                $type::decode(later.as_bytes()),
                Err(FormatError::UnknownVersion { version: 2 })
            ));
            assert!($type::decode(b"{}").is_err());
            assert!($type::decode(&text.as_bytes()[..text.len() - 1]).is_err());
        };
    }
    check!(RepositoryConfig::new(HERE, true, 1_769_697_000_000_000), RepositoryConfig);
    check!(Attempt::new("20260129-143000F", "full", -1, 4711), Attempt);
    check!(Failure::new(i64::MAX, "store.full", "no space: \"é\"\n"), Failure);
    check!(Damage { at: 1, object: "a/b".into(), message: "cut off".into() }, Damage);
    check!(Gap { from: u64::MAX - 1, to: u64::MAX, at: 0, reason: String::new() }, Gap);
    check!(Hold { at: 1, until: None, released: true }, Hold);
    check!(
        Production {
            identity: 1,
            branch: "00000002-0123456789abcdef".into(),
            position: 5,
            at: 1,
            by: "push".into()
        },
        Production
    );
    check!(Tombstone { at: 1, packs: vec!["ab".repeat(16), "cd".repeat(16)] }, Tombstone);
    let clock = ClockRecord { wall: -1, boot: Some("b1".into()), since_boot: Some(7) };
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
        provider_date: Some(5),
        message: String::new(),
        name,
        size: 9,
        sha256,
        contents: serde_json::from_str("{\"shop\": {\"to\": \"0/3000000\"}}").unwrap(),
    };
    check!(claim, OffsiteClaim);
    check!(sending, OffsiteSending);
    check!(outcome, OffsiteOutcome);
    check!(
        Identity {
            system_identifier: u64::MAX.to_string(),
            server_version: 160_015,
            segment_size: 1 << 24,
            since: 5
        },
        Identity
    );
    check!(
        LeaseRecord {
            holder: "backup".into(),
            token: "ab".into(),
            ttl_millis: u64::MAX,
            released: true,
            host: "db".into(),
            process: 1
        },
        LeaseRecord
    );
}
