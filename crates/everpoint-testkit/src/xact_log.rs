//! A small reader of PostgreSQL 13's log: only the ends of transactions. That version's package comes without
//! pg_waldump. The layout of pages and of these records is the same in 14, where pg_waldump checks this reader.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::history::{Ended, print_lsn, segment_size};

const PAGE: u64 = 8192;
/// Headers of pages: the first page of a segment has the long one.
const SHORT_HEADER: usize = 24;
const LONG_HEADER: usize = 40;
const RECORD_HEADER: usize = 24;
/// Flag of a page: what the page before began is not continued, a crash cut it off.
const OVERWRITES: u16 = 8;
/// Microseconds from the Unix epoch to PostgreSQL's, 2000-01-01.
const EPOCH: i64 = 946_684_800_000_000;

/// Reads the ends of transactions from `from` (the start of a record) to the end of the log, which must reach `until`.
pub(crate) fn read(directory: &Path, timeline: u32, from: u64, until: u64) -> Result<Vec<Ended>> {
    let mut log = Log::open(directory, timeline)?;
    let mut ends = Vec::new();
    // A timeline may begin at the start of a page: its first record is behind the header.
    let mut position = if from.is_multiple_of(PAGE) { from + log.header(from) as u64 } else { from };
    let mut previous: Option<u64> = None;
    loop {
        let Some((start, record)) = log.record(position)? else {
            break;
        };
        // A recycled file goes on with old records: they name another predecessor.
        if previous.is_some_and(|last| record.previous != last) {
            break;
        }
        if record.manager == 1
            && let Some(end) = parse_end(&record, start)?
        {
            ends.push(end);
        }
        previous = Some(start);
        position = record.next;
    }
    // The log writer flushes whole pages: `until` may lie within a record whose rest is still to come.
    ensure!(
        position >= until || log.goes_beyond(position, until)?,
        "the log was read to {} instead of {}",
        print_lsn(position),
        print_lsn(until)
    );
    Ok(ends)
}

/// What lies at a position.
enum Collected {
    /// Bytes of records, and where they end.
    Bytes(Vec<u8>, u64),
    /// A record that a crash cut off; the log goes on there.
    Overwritten(u64),
    /// Nothing: the log ends.
    End,
}

struct Record {
    xid: u32,
    previous: u64,
    info: u8,
    manager: u8,
    body: Vec<u8>,
    next: u64,
}

struct Log<'a> {
    directory: &'a Path,
    timeline: u32,
    segment_size: u64,
    segment: Option<(u64, Vec<u8>)>,
}

impl<'a> Log<'a> {
    fn open(directory: &'a Path, timeline: u32) -> Result<Self> {
        let segment_size = segment_size(directory, timeline)?;
        Ok(Self { directory, timeline, segment_size, segment: None })
    }

    /// The page at `start`, if the log has it and it was written for that place.
    fn page(&mut self, start: u64) -> Result<Option<Vec<u8>>> {
        let number = start / self.segment_size;
        if self.segment.as_ref().is_none_or(|(held, _)| *held != number) {
            let per_high = (1_u64 << 32) / self.segment_size;
            let name = format!("{:08X}{:08X}{:08X}", self.timeline, number / per_high, number % per_high);
            let path = self.directory.join(&name);
            if !path.exists() {
                return Ok(None);
            }
            let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            self.segment = Some((number, bytes));
        }
        let offset = usize::try_from(start % self.segment_size)?;
        let Some((_, bytes)) = &self.segment else {
            return Ok(None);
        };
        let Some(page) = bytes.get(offset..offset.saturating_add(usize::try_from(PAGE)?)) else {
            return Ok(None);
        };
        // Where a timeline begins within a segment, the pages before that were copied from its parent.
        let foreign = u32_at(page, 4).is_none_or(|timeline| timeline > self.timeline);
        if u64_at(page, 8) != Some(start) || foreign {
            return Ok(None);
        }
        Ok(Some(page.to_vec()))
    }

    /// Collects `count` bytes of records from `position` on, across pages; tells where they end.
    fn collect(&mut self, mut position: u64, count: usize) -> Result<Collected> {
        let mut bytes = Vec::with_capacity(count);
        while bytes.len() < count {
            let start = position / PAGE * PAGE;
            let Some(page) = self.page(start)? else { return Ok(Collected::End) };
            let within = usize::try_from(position - start)?;
            let within = if within == 0 { self.header(start) } else { within };
            if position == start && !bytes.is_empty() && u16_at(&page, 2).unwrap_or(0) & OVERWRITES != 0 {
                return Ok(Collected::Overwritten(start + within as u64));
            }
            let rest = page.get(within..).unwrap_or_default();
            let take = rest.len().min(count - bytes.len());
            bytes.extend_from_slice(rest.get(..take).unwrap_or_default());
            position = start + u64::try_from(within + take)?;
        }
        Ok(Collected::Bytes(bytes, position))
    }

    fn header(&self, page: u64) -> usize {
        if page.is_multiple_of(self.segment_size) { LONG_HEADER } else { SHORT_HEADER }
    }

    /// The record at `position`, or, if a crash cut that one off, the first behind it; and where it starts.
    fn record(&mut self, mut position: u64) -> Result<Option<(u64, Record)>> {
        loop {
            match self.whole(position)? {
                Collected::Bytes(bytes, end) => {
                    return Ok(self.parse(&bytes, end).map(|record| (position, record)));
                }
                Collected::Overwritten(behind) => position = behind,
                Collected::End => return Ok(None),
            }
        }
    }

    /// All bytes of the record at `position`.
    fn whole(&mut self, position: u64) -> Result<Collected> {
        let head = self.collect(position, RECORD_HEADER)?;
        let Collected::Bytes(bytes, _) = &head else { return Ok(head) };
        let length = u32_at(bytes, 0).unwrap_or(0) as usize;
        if length < RECORD_HEADER { Ok(Collected::End) } else { self.collect(position, length) }
    }

    /// Whether the record that begins at `position` ends behind `until`. Its length is never split by a page.
    fn goes_beyond(&mut self, position: u64, until: u64) -> Result<bool> {
        let Collected::Bytes(length, start) = self.collect(position, 4)? else { return Ok(false) };
        let mut rest = u64::from(u32_at(&length, 0).unwrap_or(0));
        if rest < RECORD_HEADER as u64 {
            return Ok(false);
        }
        let mut end = start - 4;
        while rest > 0 {
            if end.is_multiple_of(PAGE) {
                end += self.header(end) as u64;
            }
            let take = rest.min(PAGE - end % PAGE);
            end += take;
            rest -= take;
        }
        Ok(end > until)
    }

    fn parse(&self, bytes: &[u8], end: u64) -> Option<Record> {
        let (info, manager) = (*bytes.get(16)?, *bytes.get(17)?);
        // A switch of segments fills the rest of its segment.
        let switched = manager == 0 && info & 0xF0 == 0x40;
        let end = if switched { end.next_multiple_of(self.segment_size) } else { end.next_multiple_of(8) };
        let next = if end.is_multiple_of(PAGE) { end + self.header(end) as u64 } else { end };
        let body = bytes.get(RECORD_HEADER..)?.to_vec();
        Some(Record { xid: u32_at(bytes, 4)?, previous: u64_at(bytes, 8)?, info, manager, body, next })
    }
}

fn parse_end(record: &Record, position: u64) -> Result<Option<Ended>> {
    let (committed, prepared) = match record.info & 0x70 {
        0x00 => (true, false),
        0x20 => (false, false),
        0x30 => (true, true),
        0x40 => (false, true),
        _ => return Ok(None),
    };
    let at = || format!("a record at {} is not understood", print_lsn(position));
    let data = main_data(&record.body).with_context(at)?;
    let time = i64::from_le_bytes(data.get(..8).with_context(at)?.try_into()?) + EPOCH;
    let has_more = record.info & 0x80 != 0;
    let xid = if prepared && has_more { twophase_xid(data, committed).with_context(at)? } else { record.xid };
    ensure!(!prepared || has_more, "{}", at());
    Ok(Some(Ended { lsn: position, xid, time, committed }))
}

/// The data of a record that has no blocks.
fn main_data(body: &[u8]) -> Option<&[u8]> {
    let mut rest = body;
    loop {
        match rest.first()? {
            255 => return rest.get(2..2 + usize::from(*rest.get(1)?)),
            254 => return rest.get(5..5 + u32_at(rest, 1)? as usize),
            253 => rest = rest.get(3..)?,
            252 => rest = rest.get(5..)?,
            _ => return None,
        }
    }
}

/// The transaction that a COMMIT PREPARED or ROLLBACK PREPARED ends. Before it stand, if their flag is set: the
/// database and its tablespace, subtransactions, files dropped, and invalidation messages (of a commit).
fn twophase_xid(data: &[u8], committed: bool) -> Option<u32> {
    let flags = u32_at(data, 8)?;
    let mut place = 12;
    if flags & 1 != 0 {
        place += 8;
    }
    for (flag, size, present) in [(2, 4, true), (4, 12, true), (8, 16, committed)] {
        if present && flags & flag != 0 {
            place += 4 + u32_at(data, place)? as usize * size;
        }
    }
    if flags & 16 == 0 {
        return None;
    }
    u32_at(data, place)
}

fn u16_at(bytes: &[u8], place: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(place..place.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], place: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(place..place.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], place: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(place..place.checked_add(8)?)?.try_into().ok()?))
}
