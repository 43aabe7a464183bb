//! Whole segments: their digest, their records, the unfinished record at their end, what their first page says.

use std::collections::VecDeque;

use everpoint_core::{Carry, LogOffset, RecordSpan};
use everpoint_engine::{Decoded, LogDecoder as _};

use super::decoder::{SeenRecord, WalDecoder};
use super::format::{RECORD_ALIGNMENT, WAL_PAGE_BYTES, aligned};
use super::page::{LONG_HEADER_BYTES, PageHeader, header_bytes};

/// Bytes that an iterator over records decodes at once.
const STRIDE_BYTES: usize = 64 * 1024;

/// What the first page of a segment says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHead {
    /// System identifier of the cluster that wrote it.
    pub system: u64,
    /// Timeline of the first page (a segment in which a timeline forks begins with pages of the old one).
    pub timeline: u32,
    /// Position of its first byte.
    pub start: LogOffset,
    /// Bytes of a segment.
    pub segment_size: u64,
    /// The page magic.
    pub log_format: u32,
}

impl SegmentHead {
    /// Reads the first 40 bytes of a segment.
    ///
    /// # Errors
    /// In words, if they are not the beginning of a segment of a known version.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let header = PageHeader::parse(bytes)?;
        let segment = header.segment.ok_or_else(|| "it is not the first page of a segment".to_owned())?;
        let segment_size = u64::from(segment.segment_size);
        if !crate::lsn::is_segment_size(segment_size) {
            return Err(format!("segments can't have {segment_size} bytes"));
        }
        Ok(Self {
            system: segment.system,
            timeline: header.timeline,
            start: LogOffset(header.position),
            segment_size,
            log_format: u32::from(header.format.magic()),
        })
    }
}

/// A carry for a segment of whose predecessor nothing is known.
#[must_use]
pub fn unknown_carry(start: LogOffset) -> Carry {
    Carry { record_start: start, position: start, ..Carry::default() }
}

/// Decodes a piece of the log that begins at `start`: a whole segment or a part of one.
///
/// `carry` is what [`last_carry_of_segment`] or the decoder of the piece before gave; without it a record that began
/// earlier is reported as unknown head. A carry for another position counts as none.
#[must_use]
pub fn digest_of_segment(bytes: &[u8], start: LogOffset, segment_size: u64, carry: Option<Carry>) -> Decoded {
    let mut decoder = WalDecoder::new(segment_size, carry_at(start, carry));
    decoder.feed(bytes);
    decoder.cut()
}

fn carry_at(start: LogOffset, carry: Option<Carry>) -> Carry {
    carry.filter(|carry| carry.position == start).unwrap_or_else(|| unknown_carry(start))
}

/// The unfinished record at the end of a whole segment that begins at `start`, found without decoding all of it:
/// backwards to the last page on which a record begins, and forwards from there.
///
/// If no record begins in the segment (one huge record covers it), the carry of the segment before is needed and all
/// of the bytes are decoded; without it the result says that nothing is known.
#[must_use]
pub fn last_carry_of_segment(
    bytes: &[u8],
    start: LogOffset,
    segment_size: u64,
    before: Option<Carry>,
) -> Carry {
    let page_bytes = WAL_PAGE_BYTES as usize;
    let pages = bytes.len() / page_bytes;
    for index in (0..pages).rev() {
        let page_start = start.plus((index * page_bytes) as u64);
        let Some(tail) = bytes.get(index * page_bytes..) else {
            continue;
        };
        if begins_record(tail, page_start, segment_size) {
            let mut decoder = WalDecoder::new(segment_size, unknown_carry(page_start));
            decoder.feed(tail);
            return decoder.carry();
        }
    }
    let mut decoder = WalDecoder::new(segment_size, carry_at(start, before));
    decoder.feed(bytes);
    decoder.carry()
}

/// Whether a record begins on the page with which `bytes` begins.
fn begins_record(bytes: &[u8], page: LogOffset, segment_size: u64) -> bool {
    let head = header_bytes(page.0, segment_size);
    let Ok(header) = PageHeader::parse(bytes.get(..LONG_HEADER_BYTES as usize).unwrap_or(bytes)) else {
        return false;
    };
    if header.position != page.0 {
        return false;
    }
    let rest = if header.continues { aligned(u64::from(header.remaining)) } else { 0 };
    let offset = head.saturating_add(rest);
    if offset.saturating_add(RECORD_ALIGNMENT) > WAL_PAGE_BYTES {
        return false;
    }
    let at = usize::try_from(offset).unwrap_or(usize::MAX);
    bytes.get(at..).and_then(|rest| rest.first_chunk::<4>()).is_some_and(|length| *length != [0; 4])
}

/// The whole, intact records that end in a piece of the log, in order.
#[derive(Debug)]
pub struct Records<'a> {
    decoder: WalDecoder,
    rest: &'a [u8],
    ready: VecDeque<SeenRecord>,
}

impl Iterator for Records<'_> {
    type Item = SeenRecord;

    fn next(&mut self) -> Option<SeenRecord> {
        while self.ready.is_empty() && !self.rest.is_empty() {
            let (piece, rest) = self.rest.split_at_checked(STRIDE_BYTES).unwrap_or((self.rest, &[]));
            self.rest = rest;
            self.decoder.feed(piece);
            self.ready.extend(self.decoder.take_seen());
            // What the decoder gathers for a digest is not wanted here.
            drop(self.decoder.cut());
        }
        self.ready.pop_front()
    }
}

/// The records that end in `bytes`, which begin at `start`.
#[must_use]
pub fn records(bytes: &[u8], start: LogOffset, segment_size: u64, carry: Option<Carry>) -> Records<'_> {
    let mut decoder = WalDecoder::new(segment_size, carry_at(start, carry));
    decoder.note_records();
    Records { decoder, rest: bytes, ready: VecDeque::new() }
}

/// Where the records lie that end in `bytes`, which begin at `start`.
pub fn record_starts(
    bytes: &[u8],
    start: LogOffset,
    segment_size: u64,
    carry: Option<Carry>,
) -> impl Iterator<Item = RecordSpan> + '_ {
    records(bytes, start, segment_size, carry).map(|record| record.span)
}
