//! Digests come back as they were, and a reader of this version can live with a writer of a later one.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod samples;

use everpoint_core::{Digest, LogEvent, LogOffset, Micros, RecordSpan, Span, TransactionEnd, Verdict};
use everpoint_format::FormatError;
use everpoint_format::digest::{decode, encode};
use everpoint_format::varint::{put, put_bytes, put_signed};
use proptest::prelude::*;
use samples::{digest, events};

#[test]
fn every_kind_of_event_comes_back_as_it_was() {
    assert_eq!(decode(&encode(&digest())).unwrap(), digest());
    let record = RecordSpan { start: LogOffset(5), end: LogOffset(9) };
    for digest in [
        Digest {
            verdict: Verdict::EndsAt { at: LogOffset(7) },
            previous_hash: None,
            first_record: None,
            ..digest()
        },
        Digest { verdict: Verdict::Broken { at: LogOffset(7), reason: "a checksum".into() }, ..digest() },
        Digest {
            last_record: None,
            first_previous: None,
            head_unknown: true,
            covered_until: None,
            ..digest()
        },
        Digest { events: vec![LogEvent::SegmentSwitch { record }], ..digest() },
        Digest { events: vec![LogEvent::Extension { manager: 128, record }], ..digest() },
    ] {
        assert_eq!(decode(&encode(&digest)).unwrap(), digest);
    }
}

#[test]
fn a_digest_that_is_cut_or_of_another_version_is_an_error() {
    let mut bytes = encode(&digest());
    for length in 0..bytes.len() {
        assert!(decode(&bytes[..length]).is_err(), "cut to {length}");
    }
    bytes[0] = 2;
    assert!(matches!(decode(&bytes), Err(FormatError::UnknownVersion { version: 2 })));
}

#[test]
fn events_of_unknown_kinds_are_skipped_and_what_follows_keeps_its_place() {
    let all = events();
    let known = Digest { events: all[..1].to_vec(), ..digest() };
    let bytes = encode(&known);
    let body = event(&Digest { events: Vec::new(), ..digest() }, &bytes);
    // A record 0x40 bytes behind the commit, of a kind that nobody knows, with contents that nobody knows.
    let mut unknown = Vec::new();
    put_signed(&mut unknown, 0x40);
    put(&mut unknown, 30);
    unknown.extend_from_slice(b"rows of a relation");
    let mut later = Vec::new();
    put_signed(&mut later, 0x40);
    put(&mut later, 24);
    let mut both = encode(&Digest { events: Vec::new(), ..digest() });
    both.pop();
    put(&mut both, 3);
    both.extend_from_slice(body);
    both.push(200);
    put_bytes(&mut both, &unknown);
    both.push(12);
    put_bytes(&mut both, &later);
    let start = all[0].record().start.plus(0x80);
    let record = RecordSpan { start, end: start.plus(24) };
    assert_eq!(decode(&both).unwrap().events, [all[0].clone(), LogEvent::SegmentSwitch { record }]);
}

/// The bytes of the only event in `with`.
fn event<'a>(without: &Digest, with: &'a [u8]) -> &'a [u8] {
    &with[encode(without).len()..]
}

#[test]
fn a_commit_takes_few_bytes() {
    let mut position = 0x1_2345_6000;
    let commits: Vec<LogEvent> = (0..1000)
        .map(|i| {
            position += 300;
            LogEvent::Commit(TransactionEnd {
                xid: 1_000_000 + i,
                time: Micros(1_769_697_000_000_000 + 900 * i.cast_signed()),
                record: RecordSpan { start: LogOffset(position), end: LogOffset(position + 46) },
                subxids: Vec::new(),
                prepared: false,
            })
        })
        .collect();
    let bytes = encode(&Digest { events: commits, ..digest() }).len();
    assert!(bytes < 13 * 1000 + 200, "{bytes} bytes");
}

fn any_record() -> impl Strategy<Value = RecordSpan> {
    (any::<u64>(), 0_u64..1 << 30).prop_map(|(start, length)| {
        let start = LogOffset(start);
        RecordSpan { start, end: start.plus(length) }
    })
}

fn any_end() -> impl Strategy<Value = TransactionEnd> {
    (any::<u64>(), any::<i64>(), any_record(), any::<Vec<u64>>(), any::<bool>()).prop_map(
        |(xid, time, record, subxids, prepared)| TransactionEnd {
            xid,
            time: Micros(time),
            record,
            subxids,
            prepared,
        },
    )
}

fn any_event() -> impl Strategy<Value = LogEvent> {
    prop_oneof![
        any_end().prop_map(LogEvent::Commit),
        any_end().prop_map(LogEvent::Abort),
        (any::<u64>(), ".{0,9}", any_record()).prop_map(|(xid, gid, record)| LogEvent::Prepare {
            xid,
            gid,
            record
        }),
        (any::<bool>(), any::<[i32; 5]>(), any_record())
            .prop_map(|(minimal, limits, record)| { LogEvent::Parameters { minimal, limits, record } }),
        (any::<u64>(), any::<u32>(), any::<Vec<u32>>(), any_record()).prop_map(
            |(xid, database, tablespaces, record)| {
                LogEvent::DatabaseDrop { xid, database, tablespaces, record }
            }
        ),
    ]
}

proptest! {
    #[test]
    fn any_digest_comes_back_as_it_was(
        events in prop::collection::vec(any_event(), 0..9),
        numbers: (u64, u32, u32, u64),
        span in (any::<u64>(), 0_u64..1 << 30),
        hashes: ([u8; 32], Option<[u8; 32]>),
        covered: Option<i64>,
    ) {
        let from = LogOffset(span.0);
        let digest = Digest {
            system: numbers.0,
            timeline: numbers.1,
            log_format: numbers.2,
            span: Span { from, to: from.plus(span.1) },
            content_hash: hashes.0,
            previous_hash: hashes.1,
            covered_until: covered.map(Micros),
            records: numbers.3,
            events,
            ..digest()
        };
        prop_assert_eq!(decode(&encode(&digest)).unwrap(), digest);
    }
}
