//! Records of CREATE TABLESPACE at every place where a record can be split by pages and segments.
//!
//! Fault model: made-up log, right in every header, link and checksum; the neighbour of a segment may be missing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use everpoint_core::{LogEvent, LogOffset, Verdict};
use everpoint_pg::recovery::rewrite_for_copy;
use everpoint_pg::wal::digest_of_segment;

const SEGMENT: u64 = 1 << 20;
const START: u64 = 3 * SEGMENT;

/// Writes log as a server does, from the beginning of a segment.
struct LogWriter {
    bytes: Vec<u8>,
    previous: u64,
}

impl LogWriter {
    fn new() -> Self {
        Self { bytes: Vec::new(), previous: START - 64 }
    }

    fn position(&self) -> u64 {
        START + self.bytes.len() as u64
    }

    fn header(&mut self, remaining: usize) {
        let position = self.position();
        let long = position.is_multiple_of(SEGMENT);
        let flags = u16::from(remaining > 0) | if long { 2 } else { 0 };
        self.bytes.extend_from_slice(&0xD110_u16.to_le_bytes());
        self.bytes.extend_from_slice(&flags.to_le_bytes());
        self.bytes.extend_from_slice(&1_u32.to_le_bytes());
        self.bytes.extend_from_slice(&position.to_le_bytes());
        self.bytes.extend_from_slice(&(remaining as u32).to_le_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        if long {
            self.bytes.extend_from_slice(&77_u64.to_le_bytes());
            self.bytes.extend_from_slice(&(SEGMENT as u32).to_le_bytes());
            self.bytes.extend_from_slice(&8192_u32.to_le_bytes());
        }
    }

    fn record(&mut self, manager: u8, main: &[u8]) {
        let mut body = if main.len() < 256 {
            vec![255, main.len() as u8]
        } else {
            [&[254][..], &(main.len() as u32).to_le_bytes()].concat()
        };
        body.extend_from_slice(main);
        let mut record = Vec::new();
        record.extend_from_slice(&(24 + body.len() as u32).to_le_bytes());
        record.extend_from_slice(&5_u32.to_le_bytes());
        record.extend_from_slice(&self.previous.to_le_bytes());
        record.extend_from_slice(&[0, manager, 0, 0]);
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&body), &record);
        record.extend_from_slice(&checksum.to_le_bytes());
        record.extend_from_slice(&body);
        if self.position().is_multiple_of(8192) {
            self.header(0);
        }
        self.previous = self.position();
        let mut rest = record.as_slice();
        loop {
            let room = (8192 - self.position() % 8192) as usize;
            let (piece, after) = rest.split_at(room.min(rest.len()));
            self.bytes.extend_from_slice(piece);
            rest = after;
            if rest.is_empty() {
                break;
            }
            self.header(rest.len());
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
    }

    /// Fills up until a record would begin `before` bytes before the end of the segment.
    fn fill_to(&mut self, before: u64) {
        let end = START + SEGMENT - before;
        while end - self.position() > 4000 {
            self.record(21, &[1; 1000]);
        }
        let rest = (end - self.position()) as usize;
        // Two records, so that any multiple of 8 can be filled: headers of 24 bytes and 2 or 5 for the length.
        let first = 200;
        self.record(21, &vec![1; first - 26]);
        let left = rest - first;
        let overhead = if left - 26 < 256 { 26 } else { 29 };
        self.record(21, &vec![1; left - overhead]);
    }
}

fn create(path: &str) -> Vec<u8> {
    [&16_999_u32.to_le_bytes()[..], path.as_bytes(), &[0]].concat()
}

fn paths(bytes: &[u8]) -> Vec<String> {
    let digest = digest_of_segment(bytes, LogOffset(START), SEGMENT, None);
    assert!(!matches!(digest.verdict, Verdict::Broken { .. }), "{:?}", digest.verdict);
    digest
        .events
        .into_iter()
        .filter_map(|event| match event {
            LogEvent::TablespaceCreate { path, tablespace: 16_999, .. } => Some(path),
            _ => None,
        })
        .collect()
}

#[test]
fn a_path_is_emptied_wherever_its_record_is_split() {
    for length in [1, 30, 222, 300, 1000] {
        let path = format!("/{}", "p".repeat(length));
        for before in (8..=(length as u64 + 64).next_multiple_of(8)).step_by(8) {
            let mut log = LogWriter::new();
            log.header(0);
            log.fill_to(before);
            assert_eq!(log.position(), START + SEGMENT - before);
            log.record(5, &create(&path));
            for _ in 0..20 {
                log.record(21, &[2; 900]);
            }
            log.bytes.resize(2 * SEGMENT as usize, 0);
            assert_eq!(paths(&log.bytes).concat(), path, "{length} {before}");

            let whole = log.bytes;
            let mut safe = whole.clone();
            let mut changed = 0;
            for (index, segment) in safe.chunks_mut(SEGMENT as usize).enumerate() {
                let start = LogOffset(START + index as u64 * SEGMENT);
                let mut neighbour = |at: LogOffset| {
                    let from = at.0.checked_sub(START).map(|from| from as usize);
                    Ok(from.and_then(|from| whole.get(from..from + SEGMENT as usize)).map(<[u8]>::to_vec))
                };
                changed += u32::from(rewrite_for_copy(segment, start, SEGMENT, &mut neighbour).unwrap());
            }
            assert!(changed > 0);
            assert_eq!(paths(&safe), [String::new()], "{length} {before}");
            let differing = whole.iter().zip(&safe).filter(|(a, b)| a != b).count();
            assert!(differing <= path.len() + 4, "{differing} bytes differ");
        }
    }
}

#[test]
fn a_missing_neighbour_leaves_a_record_that_nobody_can_replay() {
    let mut log = LogWriter::new();
    log.header(0);
    log.fill_to(48);
    log.record(5, &create("/somewhere/else/than/here"));
    log.bytes.resize(2 * SEGMENT as usize, 0);
    let (first, second) = log.bytes.split_at_mut(SEGMENT as usize);
    let mut none = |_| Ok(None);
    assert!(!rewrite_for_copy(first, LogOffset(START), SEGMENT, &mut none).unwrap());
    assert!(!rewrite_for_copy(second, LogOffset(START + SEGMENT), SEGMENT, &mut none).unwrap());
    // A neighbour that can't be read is another matter: the record may be replayed.
    let mut failing =
        |_| Err(everpoint_engine::EngineError::new("test", "read", "a segment", "it can't be read"));
    assert!(rewrite_for_copy(first, LogOffset(START), SEGMENT, &mut failing).is_err());
    assert!(rewrite_for_copy(second, LogOffset(START + SEGMENT), SEGMENT, &mut failing).is_err());
}
