//! Damaged and random log: never a panic, never a flipped bit unnoticed, the same result however it is cut.
//!
//! Fault model: single flipped bits, zeroed stretches, swapped pages and random bytes, anywhere in real log.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod wal_rig;

use everpoint_core::{Carry, LogOffset, Verdict};
use everpoint_engine::{Decoded, LogDecoder as _};
use everpoint_pg::control::Control;
use everpoint_pg::recovery::rewrite_for_copy;
use everpoint_pg::wal::{
    RecordParts, SegmentHead, WalDecoder, WalFormat, digest_of_segment, last_carry_of_segment, records,
    unknown_carry,
};
use wal_rig::Server;

const SEGMENT: u64 = 1 << 20;

/// A small generator of numbers: xorshift, the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// Three consecutive full segments of real log, with records of all sizes.
fn real_log() -> (LogOffset, Vec<u8>) {
    let mut server = Server::start(18, 1, true, &[]);
    server.sql("create table t(i int, v text)");
    for round in 0..6 {
        server.sql(&format!("insert into t select i, repeat('{round}', i) from generate_series(1, 400) i"));
        server.sql("select pg_logical_emit_message(true, 'big', repeat('0123456789', 40000))");
        server.sql(
            "begin; insert into t values (1); savepoint a; insert into t values (2); rollback to a; commit",
        );
        server.sql("begin; insert into t values (0); prepare transaction 'p'");
        server.sql("commit prepared 'p'");
    }
    server.crash();
    let segments: Vec<_> = server
        .segments()
        .into_iter()
        .filter_map(|(_, bytes)| Some((SegmentHead::parse(&bytes).ok()?.start, bytes)))
        .filter(|(start, bytes)| {
            let digest = digest_of_segment(bytes, *start, SEGMENT, None);
            // Full: what follows the last record is the beginning of another.
            digest.last_record.is_some_and(|last| start.plus(SEGMENT).since(last.end) < 500_000)
                && !matches!(digest.verdict, Verdict::Broken { .. })
        })
        .collect();
    let start = segments[0].0;
    let bytes: Vec<u8> = segments.iter().take(3).flat_map(|(_, bytes)| bytes.clone()).collect();
    assert_eq!(bytes.len() as u64, 3 * SEGMENT);
    (start, bytes)
}

fn decode(bytes: &[u8], start: LogOffset) -> Decoded {
    digest_of_segment(bytes, start, SEGMENT, None)
}

/// Fed through one decoder in pieces of random size, with a new decoder from the carry at every cut.
fn decode_cut(bytes: &[u8], start: LogOffset, random: &mut Random) -> Vec<Decoded> {
    let mut carry: Carry = unknown_carry(start);
    let mut rest = bytes;
    let mut found = Vec::new();
    let mut first = 40;
    while !rest.is_empty() {
        let mut decoder = WalDecoder::new(SEGMENT, carry);
        // The first page header is never cut: a decoder that knows nothing yet would lose that page.
        let (head, after) = rest.split_at(std::mem::take(&mut first).min(rest.len()));
        decoder.feed(head);
        rest = after;
        for _ in 0..=random.below(3) {
            let scale = [3, 50, 9000, 300_000][random.below(4)];
            let (piece, after) = rest.split_at(random.below(scale).min(rest.len()));
            decoder.feed(piece);
            rest = after;
        }
        found.push(decoder.cut());
        carry = decoder.carry();
    }
    found
}

fn cuts_do_not_matter(start: LogOffset, bytes: &[u8]) {
    let whole = decode(bytes, start);
    for seed in 1..60 {
        let pieces = decode_cut(bytes, start, &mut Random(seed * 7919));
        let events: Vec<_> = pieces.iter().flat_map(|piece| piece.events.clone()).collect();
        assert_eq!(events, whole.events, "seed {seed}");
        assert_eq!(pieces.iter().map(|piece| piece.records).sum::<u64>(), whole.records, "seed {seed}");
        let broken = pieces.iter().any(|piece| matches!(piece.verdict, Verdict::Broken { .. }));
        assert!(!broken, "seed {seed}: {:?}", pieces.iter().map(|it| &it.verdict).collect::<Vec<_>>());
        assert_eq!(pieces.iter().find_map(|piece| piece.first_record), whole.first_record);
        assert_eq!(pieces.iter().rev().find_map(|piece| piece.last_record), whole.last_record);
    }
}

/// The bytes that belong to whole records.
fn covered(start: LogOffset, bytes: &[u8]) -> Vec<(usize, usize)> {
    records(bytes, start, SEGMENT, None)
        .map(|record| (record.span.start.since(start) as usize, record.span.end.since(start) as usize))
        .collect()
}

fn every_flipped_bit_shows(start: LogOffset, bytes: &[u8]) {
    let spans = covered(start, bytes);
    let whole = decode(bytes, start);
    let mut random = Random(42);
    let mut damaged = bytes.to_vec();
    for _ in 0..400 {
        let (from, to) = spans[random.below(spans.len())];
        let at = from + random.below(to - from);
        let in_page_header = at % 8192 < 40;
        if in_page_header {
            continue;
        }
        let bit = 1 << random.below(8);
        damaged[at] ^= bit;
        let digest = decode(&damaged, start);
        // It breaks at or before the record, or the log seems to end there: never is it whole.
        let at_record = match &digest.verdict {
            Verdict::Broken { at, .. } | Verdict::EndsAt { at } => at.since(start) as usize,
            Verdict::Intact => panic!("bit {bit} of byte {at:#x} is not noticed"),
        };
        assert!(at_record <= at, "byte {at:#x}: {:?}", digest.verdict);
        assert!(digest.records < whole.records);
        assert!(whole.events.starts_with(&digest.events));
        damaged[at] ^= bit;
    }
}

/// Nothing of this may panic, whatever it says.
fn try_everything(bytes: &mut [u8], start: LogOffset, random: &mut Random) {
    let digest = decode(bytes, start);
    let carry = last_carry_of_segment(bytes, start, SEGMENT, None);
    drop(digest_of_segment(bytes, start, SEGMENT, Some(carry)));
    drop(decode_cut(bytes, start, random));
    assert_eq!(records(bytes, start, SEGMENT, None).count() as u64, digest.records);
    let mut none = |_| Ok(None);
    let _ = rewrite_for_copy(bytes, start, SEGMENT, &mut none);
    let _ = Control::parse(bytes);
    let from = random.below(bytes.len());
    for format in [WalFormat::V13, WalFormat::V14, WalFormat::V15, WalFormat::V18] {
        let to = (from + random.below(300)).min(bytes.len());
        let _ = RecordParts::parse(&bytes[from..to], format);
    }
}

#[test]
fn damaged_log_is_noticed_and_never_panics() {
    let (start, bytes) = real_log();
    cuts_do_not_matter(start, &bytes);
    every_flipped_bit_shows(start, &bytes);
    let mut random = Random(7);
    for round in 0..120 {
        let mut damaged = bytes[..SEGMENT as usize / 2].to_vec();
        for _ in 0..=random.below(4) {
            let at = random.below(damaged.len() - 20_000);
            let length = random.below(10_000);
            match random.below(4) {
                0 => damaged[at] ^= 1 << random.below(8),
                1 => damaged[at..at + length].fill(0),
                2 => damaged.copy_within(at..at + length, random.below(10_000)),
                _ => damaged[at..at + 64].iter_mut().for_each(|byte| *byte = random.next() as u8),
            }
        }
        if round % 4 == 0 {
            damaged.truncate(random.below(damaged.len()).max(1));
        }
        try_everything(&mut damaged, start, &mut random);
    }
    for _ in 0..200 {
        let mut noise: Vec<u8> = (0..20_000).map(|_| random.next() as u8).collect();
        // Sometimes with a page header that is believed.
        if random.below(2) == 0 {
            noise[..64].copy_from_slice(&bytes[..64]);
        }
        try_everything(&mut noise, start, &mut random);
    }
}

#[test]
fn a_record_of_hundreds_of_megabytes_is_not_kept_in_memory() {
    // One record of 900 MB, made up: its pages are right, its content zeros.
    let total: u32 = 900_000_000;
    let segment: u64 = 1 << 30;
    let mut header = Vec::new();
    header.extend_from_slice(&total.to_le_bytes());
    header.extend_from_slice(&[0; 12]);
    header.extend_from_slice(&[0, 21, 0, 0]);
    let zeros = vec![0; 1 << 20];
    let mut checksum = 0;
    let mut left = total as usize - 24;
    while left > 0 {
        let count = left.min(zeros.len());
        checksum = crc32c::crc32c_append(checksum, &zeros[..count]);
        left -= count;
    }
    header.extend_from_slice(&crc32c::crc32c_append(checksum, &header).to_le_bytes());

    let mut decoder = WalDecoder::new(segment, unknown_carry(LogOffset(segment)));
    let (mut position, mut received) = (segment, 0_usize);
    while received < total as usize {
        let long = position == segment;
        let mut page = vec![0; 8192];
        page[..2].copy_from_slice(&0xD118_u16.to_le_bytes());
        page[2] = if long { 2 } else { 1 };
        page[4] = 1;
        page[8..16].copy_from_slice(&position.to_le_bytes());
        let head = if long { 40 } else { 24 };
        if long {
            page[24] = 9;
            page[32..36].copy_from_slice(&(segment as u32).to_le_bytes());
            page[36..40].copy_from_slice(&8192_u32.to_le_bytes());
            page[40..64].copy_from_slice(&header);
        } else {
            page[16..20].copy_from_slice(&(total - received as u32).to_le_bytes());
        }
        let room = (8192 - head).min(total as usize - received);
        decoder.feed(&page[..head + room]);
        received += room;
        position += 8192;
        assert!(decoder.carry().bytes.len() <= 24);
    }
    let found = decoder.cut();
    assert_eq!((found.verdict, found.records, found.system), (Verdict::Intact, 1, 9));
}
