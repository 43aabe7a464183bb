//! Decodes the fake log, in pieces of any size.

use everpoint_core::{Carry, LogEvent, LogOffset, Micros, RecordSpan, TransactionEnd, Verdict};

use super::log::{FAKE_HEADER_BYTES, MAGIC, RECORD_HEADER_BYTES, checksum};
use crate::{Decoded, EngineError, LogDecoder, LogHead};

/// Reads the header of a fake segment.
pub(super) fn head(bytes: &[u8]) -> Result<LogHead, EngineError> {
    let wrong =
        || EngineError::new("fake.head", "read", "the beginning of a segment", "it is none of the fake log");
    let (magic, timeline) = (u32_at(bytes, 0).ok_or_else(wrong)?, u32_at(bytes, 4).ok_or_else(wrong)?);
    let (system, start) = (u64_at(bytes, 8).ok_or_else(wrong)?, u64_at(bytes, 16).ok_or_else(wrong)?);
    let segment_size = u64_at(bytes, 24).ok_or_else(wrong)?;
    if magic != MAGIC {
        return Err(wrong());
    }
    Ok(LogHead {
        system,
        version: 150_000,
        timeline,
        start: LogOffset(start),
        segment_size,
        log_format: MAGIC,
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Within a record, or between two: its first bytes are `record`.
    Reading,
    /// Nothing is known before the next segment header.
    Unknown,
    /// The rest of a record whose head was not seen.
    Skipping(u32),
    Ended(LogOffset),
    Broken(LogOffset),
}

/// See the module.
#[derive(Debug)]
pub struct FakeDecoder {
    segment_size: u64,
    position: LogOffset,
    header: Vec<u8>,
    record: Vec<u8>,
    record_start: LogOffset,
    previous: LogOffset,
    state: State,
    system: u64,
    timeline: u32,
    found: Found,
}

#[derive(Debug, Default)]
struct Found {
    first_record: Option<LogOffset>,
    first_previous: Option<LogOffset>,
    last_record: Option<RecordSpan>,
    head_unknown: bool,
    records: u64,
    events: Vec<LogEvent>,
}

impl FakeDecoder {
    /// A decoder for the bytes from `carry.position` on.
    #[must_use]
    pub fn new(segment_size: u64, carry: Carry) -> Self {
        let state = if carry.log_format == 0 { State::Unknown } else { State::Reading };
        Self {
            segment_size: segment_size.max(FAKE_HEADER_BYTES as u64 + 1),
            position: carry.position,
            header: Vec::new(),
            record: carry.bytes,
            record_start: carry.record_start,
            previous: carry.previous,
            state,
            system: 0,
            timeline: 0,
            found: Found::default(),
        }
    }

    fn byte(&mut self, byte: u8) {
        let within = self.position.0 % self.segment_size;
        if within < FAKE_HEADER_BYTES as u64 {
            self.header.push(byte);
            if self.header.len() == FAKE_HEADER_BYTES {
                self.begin_segment();
            }
            return;
        }
        match &mut self.state {
            State::Ended(at) if byte != 0 => self.state = State::Broken(*at),
            State::Unknown | State::Ended(_) | State::Broken(_) => {}
            State::Skipping(left) if *left > 1 => *left -= 1,
            State::Skipping(_) => self.state = State::Reading,
            State::Reading => self.record_byte(byte),
        }
    }

    fn begin_segment(&mut self) {
        let header = std::mem::take(&mut self.header);
        let start = LogOffset(self.position.0 - self.position.0 % self.segment_size);
        match head(&header) {
            Ok(found) if found.start == start && found.segment_size == self.segment_size => {
                (self.system, self.timeline) = (found.system, found.timeline);
            }
            _ => {
                self.state = State::Broken(start);
                return;
            }
        }
        let remaining = u32_at(&header, 32).unwrap_or_default();
        match self.state {
            State::Reading if self.record.is_empty() == (remaining == 0) => {}
            State::Reading => self.state = State::Broken(start),
            _ if remaining > 0 => {
                self.found.head_unknown = true;
                self.state = State::Skipping(remaining);
            }
            _ => self.state = State::Reading,
        }
    }

    fn record_byte(&mut self, byte: u8) {
        if self.record.is_empty() {
            self.record_start = self.position;
        }
        self.record.push(byte);
        let Some(length) = u32_at(&self.record, 0) else {
            return;
        };
        if length == 0 {
            self.record.clear();
            self.state = State::Ended(self.record_start);
            return;
        }
        if self.record.len() == 4 && self.found.first_record.is_none() {
            self.found.first_record = Some(self.record_start);
            self.found.first_previous = Some(self.previous);
        }
        if self.record.len() >= usize::try_from(length).unwrap_or(usize::MAX).max(RECORD_HEADER_BYTES) {
            self.finish_record();
        }
    }

    fn finish_record(&mut self) {
        let record = std::mem::take(&mut self.record);
        if u32_at(&record, 4) != Some(checksum(&record)) {
            self.state = State::Broken(self.record_start);
            return;
        }
        let span = RecordSpan { start: self.record_start, end: self.position.plus(1) };
        let time = u64_at(&record, 16).unwrap_or_default();
        self.found.events.push(LogEvent::Commit(TransactionEnd {
            xid: u64_at(&record, 8).unwrap_or_default(),
            time: Micros(i64::from_le_bytes(time.to_le_bytes())),
            record: span,
            subxids: Vec::new(),
            prepared: false,
        }));
        self.found.records += 1;
        self.found.last_record = Some(span);
        self.previous = span.start;
    }
}

impl LogDecoder for FakeDecoder {
    fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.byte(*byte);
            self.position = self.position.plus(1);
        }
    }

    fn cut(&mut self) -> Decoded {
        let verdict = match &self.state {
            State::Broken(at) => Verdict::Broken { at: *at, reason: "made up".to_owned() },
            State::Ended(at) => Verdict::EndsAt { at: *at },
            State::Reading if !self.record.is_empty() => Verdict::EndsAt { at: self.record_start },
            _ => Verdict::Intact,
        };
        if self.position.0.is_multiple_of(self.segment_size)
            && matches!(self.state, State::Ended(_) | State::Broken(_))
        {
            self.state = State::Unknown;
        }
        let found = std::mem::take(&mut self.found);
        Decoded {
            system: self.system,
            timeline: self.timeline,
            log_format: MAGIC,
            verdict,
            first_record: found.first_record,
            last_record: found.last_record,
            first_previous: found.first_previous,
            head_unknown: found.head_unknown,
            records: found.records,
            events: found.events,
        }
    }

    fn carry(&self) -> Carry {
        let known = matches!(self.state, State::Reading);
        Carry {
            record_start: if self.record.is_empty() { self.position } else { self.record_start },
            position: self.position,
            bytes: self.record.clone(),
            received: self.record.len() as u64,
            log_format: if known { MAGIC } else { 0 },
            checksum: 0,
            previous: self.previous,
        }
    }
}
