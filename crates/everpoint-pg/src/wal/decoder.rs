//! Decodes WAL as it flows by: checks every page header, checksum and link, and keeps only what it needs of each
//! record.

mod pages;
mod piece;

use everpoint_core::{Carry, LogOffset, RecordSpan, Verdict};
use everpoint_engine::{Decoded, LogDecoder};

use super::contents;
use super::format::{WAL_PAGE_BYTES, WalFormat, aligned};
use super::page::header_bytes;
use super::record::{RecordHeader, manager};
use super::unfinished::Unfinished;
use piece::Piece;

/// A record as the decoder saw it, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenRecord {
    /// Where it lies.
    pub span: RecordSpan,
    /// Its fixed header.
    pub header: RecordHeader,
}

/// What the bytes at the current position are.
#[derive(Debug)]
enum State {
    /// The next record begins at the next aligned position. Unless `known`, the rest of a record whose head was
    /// never seen may come first.
    Between { known: bool },
    /// Within a record.
    Inside(Unfinished),
    /// Within a record whose head was never seen.
    Skipping { remaining: u64 },
    /// After a segment switch: nothing more in this segment.
    Switched,
    /// Zeros: the log ends at `from`.
    Ended { from: u64 },
    /// Broken: nothing more is read in this segment.
    Broken { at: u64, reason: String },
}

/// Decodes the WAL of one branch, fed in pieces of any size.
///
/// Memory: a page header and the unfinished record's needed bytes. Only records that end transactions or name
/// databases, tablespaces and restore points are kept whole; of all others the fixed header and a running checksum.
#[derive(Debug)]
pub struct WalDecoder {
    segment_size: u64,
    position: u64,
    state: State,
    /// Bytes of a page header that is not complete.
    page_head: Vec<u8>,
    /// Decoding began within a page header, whose first bytes nobody has.
    page_head_lost: bool,
    /// Start of the last whole record; `None` while not known.
    previous: Option<u64>,
    format: Option<WalFormat>,
    system: u64,
    timeline: u32,
    piece: Piece,
    /// Whole records since they were last taken, if somebody wants them.
    seen: Option<Vec<SeenRecord>>,
}

impl WalDecoder {
    /// A decoder for the bytes from `carry.position` on, of a log with segments of `segment_size` bytes (a power of
    /// two from 1 MiB to 1 GiB).
    #[must_use]
    pub fn new(segment_size: u64, carry: Carry) -> Self {
        let position = carry.position.0;
        let in_page = position % WAL_PAGE_BYTES;
        let previous = (carry.previous.0 != 0).then_some(carry.previous.0);
        let format = u16::try_from(carry.log_format).ok().and_then(WalFormat::from_magic);
        let head_unknown = carry.bytes.is_empty() && carry.received > 0;
        let state = match carry.received {
            _ if !carry.bytes.is_empty() => State::Inside(Unfinished::from_carry(carry)),
            0 => State::Between { known: previous.is_some() || in_page != 0 },
            u64::MAX => State::Between { known: false },
            remaining => State::Skipping { remaining },
        };
        Self {
            segment_size: segment_size.max(WAL_PAGE_BYTES),
            position,
            state,
            page_head: Vec::with_capacity(40),
            page_head_lost: in_page != 0
                && in_page < header_bytes(position, segment_size.max(WAL_PAGE_BYTES)),
            previous,
            format,
            system: 0,
            timeline: 0,
            piece: Piece::begin(position, head_unknown),
            seen: None,
        }
    }

    /// Notes every whole record from now on, for [`WalDecoder::take_seen`].
    pub(crate) fn note_records(&mut self) {
        self.seen = Some(Vec::new());
    }

    /// The whole records noted since the last call.
    pub(crate) fn take_seen(&mut self) -> Vec<SeenRecord> {
        self.seen.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Where the next byte belongs.
    #[must_use]
    pub const fn position(&self) -> LogOffset {
        LogOffset(self.position)
    }

    /// The layout of the log; `None` before the first page header was seen.
    #[must_use]
    pub const fn format(&self) -> Option<WalFormat> {
        self.format
    }

    fn broken(&mut self, at: u64, reason: impl Into<String>) {
        self.state = State::Broken { at, reason: reason.into() };
    }

    /// Takes bytes that lie within one page and one part of it; returns how many were used (at least one).
    fn step(&mut self, bytes: &[u8]) -> usize {
        let to_segment_end = self.segment_size - self.position % self.segment_size;
        match self.state {
            State::Broken { .. } => return bytes.len(),
            State::Switched => return self.skip_to_segment_end(bytes, to_segment_end),
            State::Ended { from } => return self.zeros(bytes, to_segment_end, from),
            _ => {}
        }
        let in_page = self.position % WAL_PAGE_BYTES;
        let header = header_bytes(self.position, self.segment_size);
        if in_page < header {
            return self.page_header(bytes, header - in_page);
        }
        let slice = first(bytes, WAL_PAGE_BYTES - in_page);
        match &mut self.state {
            State::Skipping { remaining } => {
                let skipped = first(slice, *remaining).len();
                *remaining = remaining.saturating_sub(skipped as u64);
                if *remaining == 0 {
                    self.state = State::Between { known: true };
                }
                skipped
            }
            State::Inside(_) => self.record_bytes(slice),
            _ => self.begin_record(slice),
        }
    }

    fn skip_to_segment_end(&mut self, bytes: &[u8], to_segment_end: u64) -> usize {
        let skipped = first(bytes, to_segment_end).len();
        if skipped as u64 == to_segment_end {
            self.state = State::Between { known: true };
        }
        skipped
    }

    /// After the log's end only zeros may follow in the segment: anything else means that something in between is
    /// missing.
    fn zeros(&mut self, bytes: &[u8], to_segment_end: u64, from: u64) -> usize {
        let slice = first(bytes, to_segment_end);
        if slice.iter().any(|byte| *byte != 0) {
            self.broken(from, "zeros are followed by other bytes");
        } else if slice.len() as u64 == to_segment_end {
            self.piece.ended.get_or_insert(from);
            self.previous = None;
            self.state = State::Between { known: false };
        }
        slice.len()
    }

    fn begin_record(&mut self, slice: &[u8]) -> usize {
        // Nothing tells where in this page a record begins: the next page's header does.
        if matches!(self.state, State::Between { known: false }) {
            return slice.len();
        }
        let padding = aligned(self.position) - self.position;
        if padding > 0 {
            return first(slice, padding).len();
        }
        self.state = State::Inside(Unfinished::at(self.position));
        self.record_bytes(slice)
    }

    fn record_bytes(&mut self, slice: &[u8]) -> usize {
        let State::Inside(record) = &mut self.state else {
            return slice.len();
        };
        if record.header.is_none() {
            let used = record.take_head(slice);
            self.head_taken(self.position + used as u64);
            return used;
        }
        let used = record.take_body(slice);
        if record.is_complete() {
            self.finish_record(self.position + used as u64);
        }
        used
    }

    /// Looks at a header that has grown: its length says whether there is a record at all.
    fn head_taken(&mut self, position: u64) {
        let State::Inside(record) = &mut self.state else {
            return;
        };
        let start = record.start;
        match record.total() {
            Some(0) => {
                self.state = State::Ended { from: start };
                return;
            }
            Some(_) if self.piece.first_record.is_none() && start >= self.piece.from => {
                self.piece.first_record = Some(start);
                self.piece.first_previous = self.previous;
            }
            _ => {}
        }
        let Some(header) = record.header else { return };
        if self.piece.first_record == Some(start) {
            self.piece.first_previous = Some(header.previous);
        }
        let fault = header.fault(self.format).or_else(|| link_fault(&header, start, self.previous));
        if let Some(reason) = fault {
            return self.broken(start, reason);
        }
        record.keep(contents::needed_bytes(&header));
        if record.is_complete() {
            self.finish_record(position);
        }
    }

    fn finish_record(&mut self, end: u64) {
        let state = std::mem::replace(&mut self.state, State::Between { known: true });
        let State::Inside(record) = state else { return };
        let Some(header) = record.header else { return };
        let span = RecordSpan { start: LogOffset(record.start), end: LogOffset(end) };
        if record.checksum() != header.checksum {
            return self.broken(record.start, "the record's checksum is wrong");
        }
        // Only a carry made by hand into the middle of a page leaves the layout unknown until the next page.
        if let Some(format) = self.format {
            match contents::event(&header, record.body(), span, format) {
                Ok(event) => self.piece.events.extend(event),
                Err(reason) => return self.broken(record.start, reason),
            }
        }
        if header.manager >= manager::FIRST_CUSTOM {
            self.piece.note_extension(header.manager, span);
        }
        self.previous = Some(record.start);
        self.piece.last_record = Some(span);
        self.piece.records += 1;
        if let Some(seen) = &mut self.seen {
            seen.push(SeenRecord { span, header });
        }
        if contents::is_switch(&header) && !aligned(end).is_multiple_of(self.segment_size) {
            self.state = State::Switched;
        }
    }
}

/// What is wrong with the link to the record before, in words.
fn link_fault(header: &RecordHeader, start: u64, previous: Option<u64>) -> Option<String> {
    match previous {
        Some(previous) if previous != header.previous => Some(format!(
            "the record says that the one before begins at {:X}, but that one begins at {previous:X}",
            header.previous
        )),
        _ if header.previous >= start => Some("the record links to a later one".to_owned()),
        _ => None,
    }
}

/// At most `limit` bytes from the front.
fn first(bytes: &[u8], limit: u64) -> &[u8] {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    bytes.get(..limit).unwrap_or(bytes)
}

impl LogDecoder for WalDecoder {
    fn feed(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let used = self.step(rest);
            self.position = self.position.saturating_add(used as u64);
            rest = rest.get(used..).unwrap_or_default();
        }
    }

    fn cut(&mut self) -> Decoded {
        let piece = std::mem::take(&mut self.piece);
        self.piece.from = self.position;
        let verdict = match &self.state {
            State::Broken { at, reason } => Verdict::Broken { at: LogOffset(*at), reason: reason.clone() },
            State::Ended { from } => Verdict::EndsAt { at: LogOffset(*from) },
            State::Inside(record) => Verdict::EndsAt { at: LogOffset(record.start) },
            State::Skipping { .. } => {
                self.piece.head_unknown = true;
                Verdict::EndsAt { at: LogOffset(piece.from) }
            }
            State::Between { .. } | State::Switched => match piece.ended {
                Some(at) => Verdict::EndsAt { at: LogOffset(at) },
                None => Verdict::Intact,
            },
        };
        // A broken segment ends here: the next one is read on its own.
        if self.position.is_multiple_of(self.segment_size) && matches!(self.state, State::Broken { .. }) {
            self.previous = None;
            self.timeline = 0;
            self.page_head.clear();
            self.state = State::Between { known: false };
        }
        Decoded {
            system: self.system,
            timeline: self.timeline,
            log_format: self.format.map_or(0, |format| u32::from(format.magic())),
            verdict,
            first_record: piece.first_record.map(LogOffset),
            last_record: piece.last_record,
            first_previous: piece.first_previous.map(LogOffset),
            head_unknown: piece.head_unknown,
            records: piece.records,
            events: piece.into_events(),
        }
    }

    fn carry(&self) -> Carry {
        let position = LogOffset(self.position);
        let empty = Carry {
            record_start: position,
            position,
            previous: LogOffset(self.previous.unwrap_or_default()),
            log_format: self.format.map_or(0, |format| u32::from(format.magic())),
            ..Carry::default()
        };
        match &self.state {
            State::Inside(record) => record.to_carry(empty),
            State::Skipping { remaining } => Carry { received: *remaining, previous: LogOffset(0), ..empty },
            State::Broken { .. } | State::Between { known: false } => {
                Carry { received: u64::MAX, previous: LogOffset(0), ..empty }
            }
            State::Ended { .. } => Carry { previous: LogOffset(0), ..empty },
            State::Between { .. } | State::Switched => empty,
        }
    }
}
