//! A log simple enough to write by hand, with what makes real ones hard: records that cross segments, segment headers
//! in between, zeros at the end, forks within a segment.

use everpoint_core::{LogOffset, Micros, RecordSpan};

/// Bytes of the header with which each segment begins: magic, timeline, system, start, segment size, bytes that are
/// still to come of a record that began earlier, four zeros.
pub const FAKE_HEADER_BYTES: usize = 40;
/// Bytes of a record before its payload: length of all of it, checksum, transaction id, time.
pub(super) const RECORD_HEADER_BYTES: usize = 24;
pub(super) const MAGIC: u32 = 0xFA4E_0001;

/// A record as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FakeRecord {
    /// Where it lies.
    pub span: RecordSpan,
    /// The transaction that it commits.
    pub xid: u64,
    /// When.
    pub time: Micros,
}

/// A log in memory.
#[derive(Debug, Clone)]
pub struct FakeLog {
    system: u64,
    timeline: u32,
    segment_size: u64,
    start: LogOffset,
    bytes: Vec<u8>,
    records: Vec<FakeRecord>,
}

impl FakeLog {
    /// An empty log that begins at `start`, the start of a segment.
    #[must_use]
    pub const fn new(system: u64, timeline: u32, segment_size: u64, start: LogOffset) -> Self {
        Self { system, timeline, segment_size, start, bytes: Vec::new(), records: Vec::new() }
    }

    /// The log of a new timeline that forks from this one at `at`, the end of a record: it begins with a copy of what
    /// the segment holds before the fork.
    #[must_use]
    pub fn fork(&self, timeline: u32, at: LogOffset) -> Self {
        let start = LogOffset(at.0 - at.0 % self.segment_size);
        let records = self.records.iter().filter(|record| record.span.end > start && record.span.end <= at);
        Self {
            timeline,
            start,
            bytes: self.slice(start, at).to_vec(),
            records: records.copied().collect(),
            ..*self
        }
    }

    /// First position.
    #[must_use]
    pub const fn start(&self) -> LogOffset {
        self.start
    }

    /// First position after the last byte.
    #[must_use]
    pub const fn end(&self) -> LogOffset {
        self.start.plus(self.bytes.len() as u64)
    }

    /// Bytes of a segment.
    #[must_use]
    pub const fn segment_size(&self) -> u64 {
        self.segment_size
    }

    /// System identifier.
    #[must_use]
    pub const fn system(&self) -> u64 {
        self.system
    }

    /// Number of the timeline.
    #[must_use]
    pub const fn timeline(&self) -> u32 {
        self.timeline
    }

    /// The records, in order.
    #[must_use]
    pub fn records(&self) -> &[FakeRecord] {
        &self.records
    }

    /// Bytes from `from` to `to`, as far as the log has them.
    #[must_use]
    pub fn slice(&self, from: LogOffset, to: LogOffset) -> &[u8] {
        let at = |position: LogOffset| usize::try_from(position.since(self.start)).unwrap_or(usize::MAX);
        let to = at(to).min(self.bytes.len());
        self.bytes.get(at(from).min(to)..to).unwrap_or_default()
    }

    /// Writes a record that commits `xid`, with that many bytes of payload.
    pub fn commit(&mut self, xid: u64, time: Micros, payload: usize) -> RecordSpan {
        let mut record = Vec::with_capacity(RECORD_HEADER_BYTES + payload);
        let length = u32::try_from(RECORD_HEADER_BYTES + payload).unwrap_or(u32::MAX);
        record.extend_from_slice(&length.to_le_bytes());
        record.extend_from_slice(&[0; 4]);
        record.extend_from_slice(&xid.to_le_bytes());
        record.extend_from_slice(&time.0.to_le_bytes());
        record.extend((0..payload).map(|at| (at as u64).wrapping_mul(xid | 1).to_le_bytes()[0] | 1));
        let sum = checksum(&record).to_le_bytes();
        record.iter_mut().skip(4).zip(sum).for_each(|(byte, sum)| *byte = sum);
        self.header_if_due(0);
        let start = self.end();
        for (at, byte) in record.iter().enumerate() {
            self.header_if_due(record.len() - at);
            self.bytes.push(*byte);
        }
        let span = RecordSpan { start, end: self.end() };
        self.records.push(FakeRecord { span, xid, time });
        span
    }

    /// Fills the rest of the segment with zeros: nothing follows in it.
    pub fn switch(&mut self) {
        while !self.end().0.is_multiple_of(self.segment_size) {
            self.bytes.push(0);
        }
    }

    fn header_if_due(&mut self, remaining: usize) {
        if !self.end().0.is_multiple_of(self.segment_size) {
            return;
        }
        let start = self.end();
        let remaining = u32::try_from(remaining).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&MAGIC.to_le_bytes());
        self.bytes.extend_from_slice(&self.timeline.to_le_bytes());
        self.bytes.extend_from_slice(&self.system.to_le_bytes());
        self.bytes.extend_from_slice(&start.0.to_le_bytes());
        self.bytes.extend_from_slice(&self.segment_size.to_le_bytes());
        self.bytes.extend_from_slice(&remaining.to_le_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
    }
}

/// FNV-1a of a record, its own four bytes counted as zeros.
pub(super) fn checksum(record: &[u8]) -> u32 {
    record.iter().enumerate().fold(0x811C_9DC5, |sum: u32, (at, byte)| {
        let byte = if (4..8).contains(&at) { 0 } else { *byte };
        (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}
