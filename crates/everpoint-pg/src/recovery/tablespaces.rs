//! Keeps the log that a copy replays from creating directories outside of the copy.
//!
//! The record of CREATE TABLESPACE holds a path, and replay makes that directory, on a host where production may live
//! in it. Emptied, the path means a tablespace inside the data directory (`pg_tblspc/<oid>`), or wherever a link that
//! is there already leads.

use everpoint_core::{Carry, LogOffset};
use everpoint_engine::{EngineError, LogDecoder as _};

use crate::fields::Fields;
use crate::wal::{
    PageHeader, RECORD_HEADER_BYTES, RecordHeader, RecordParts, WAL_PAGE_BYTES, WalDecoder, WalFormat,
    is_tablespace_create, last_carry_of_segment, page_header_bytes, records,
};

/// No record of a tablespace is longer: headers, oid, a path of at most 1024 bytes.
const LONGEST: u64 = 2048;

/// Empties the paths of all tablespaces that a segment creates, also of those whose record begins in the segment
/// before or ends in the one after. `neighbour` gives the whole segment that begins at a position, if there is one.
/// Returns whether anything was changed.
///
/// # Errors
/// If a neighbour is needed and can't be read, or a record can't be understood: then the segment must not be replayed by
/// a copy.
pub fn rewrite_for_copy(
    segment: &mut [u8],
    start: LogOffset,
    segment_size: u64,
    neighbour: &mut dyn FnMut(LogOffset) -> Result<Option<Vec<u8>>, EngineError>,
) -> Result<bool, EngineError> {
    let Ok(page) = PageHeader::parse(segment) else {
        return Ok(false);
    };
    // Without the segment before, replay can't read such a record either.
    let carry = if page.continues && u64::from(page.remaining) <= LONGEST {
        let before = LogOffset(start.0.saturating_sub(segment_size));
        neighbour(before)?.map(|bytes| last_carry_of_segment(&bytes, before, segment_size, None))
    } else {
        None
    };
    let mut found: Vec<(u64, u64)> = records(segment, start, segment_size, carry.clone())
        .filter(|record| is_tablespace_create(&record.header))
        .map(|record| (record.span.start.0, u64::from(record.header.total)))
        .collect();
    let mut after = None;
    if let Some(unfinished) = unfinished_at_end(segment, start, segment_size, carry) {
        after = neighbour(start.plus(segment_size))?;
        let whole = after.as_deref().and_then(|after| complete(&unfinished, after, segment_size));
        found.extend(whole);
    }
    let before = found.iter().any(|(record, _)| *record < start.0);
    let before = if before { neighbour(LogOffset(start.0.saturating_sub(segment_size)))? } else { None };
    let pieces = Pieces { before: before.as_deref(), after: after.as_deref(), start: start.0, segment_size };
    for (record, total) in &found {
        pieces
            .empty_path(segment, *record, *total, page.format)
            .ok_or_else(|| failed(start, "a record that creates a tablespace can't be rewritten"))?;
    }
    Ok(!found.is_empty())
}

fn failed(start: LogOffset, message: &str) -> EngineError {
    let object = format!("the log segment at {}", crate::lsn::Lsn::from(start));
    EngineError::new("pg.tablespace_record", "make safe for a copy", object, message)
}

/// The record that begins in the segment and goes on in the next, if it may create a tablespace.
fn unfinished_at_end(
    segment: &[u8],
    start: LogOffset,
    segment_size: u64,
    carry: Option<Carry>,
) -> Option<Carry> {
    let end = last_carry_of_segment(segment, start, segment_size, carry);
    let total = u64::from(Fields::new(&end.bytes).u32()?);
    let kind = RecordHeader::parse(&end.bytes).is_none_or(|header| is_tablespace_create(&header));
    (end.record_start >= start && total <= LONGEST && kind).then_some(end)
}

/// Start and length of the unfinished record, if it turns out to be one that creates a tablespace.
fn complete(unfinished: &Carry, after: &[u8], segment_size: u64) -> Option<(u64, u64)> {
    let mut decoder = WalDecoder::new(segment_size, unfinished.clone());
    decoder.note_records();
    decoder.feed(after.get(..2 * WAL_PAGE_BYTES as usize).unwrap_or(after));
    let seen = decoder.take_seen();
    let record = seen.first().filter(|record| record.span.start == unfinished.record_start)?;
    is_tablespace_create(&record.header).then_some((record.span.start.0, u64::from(record.header.total)))
}

/// A segment's neighbours, as far as they are needed.
struct Pieces<'a> {
    before: Option<&'a [u8]>,
    after: Option<&'a [u8]>,
    start: u64,
    segment_size: u64,
}

impl Pieces<'_> {
    fn empty_path(&self, segment: &mut [u8], record: u64, total: u64, format: WalFormat) -> Option<()> {
        let ranges = self.ranges(record, total);
        let mut bytes = Vec::new();
        for (position, length) in &ranges {
            bytes.extend_from_slice(self.read(segment, *position, *length)?);
        }
        let (head, body) = bytes.split_at_checked(RECORD_HEADER_BYTES as usize)?;
        let main = RecordParts::parse(body, format).ok()?.main.len();
        // The oid stays, the path behind it goes.
        let path = bytes.len().checked_sub(main)?.checked_add(4)?;
        let checksum_at = head.len().checked_sub(4)?;
        bytes.get_mut(path..)?.fill(0);
        let checksum = crc32c::crc32c(bytes.get(RECORD_HEADER_BYTES as usize..)?);
        let checksum = crc32c::crc32c_append(checksum, bytes.get(..checksum_at)?);
        bytes.get_mut(checksum_at..checksum_at + 4)?.copy_from_slice(&checksum.to_le_bytes());
        let mut rest = bytes.as_slice();
        for (position, length) in ranges {
            let (piece, after) = rest.split_at_checked(length)?;
            rest = after;
            if let Some(place) = self.inside(segment, position, length) {
                place.copy_from_slice(piece);
            }
        }
        Some(())
    }

    /// Where the bytes of a record lie, between the page headers: positions and lengths.
    fn ranges(&self, record: u64, total: u64) -> Vec<(u64, usize)> {
        let mut ranges = Vec::new();
        let (mut position, mut left) = (record, total);
        while left > 0 {
            let in_page = position % WAL_PAGE_BYTES;
            if in_page == 0 {
                position += page_header_bytes(position, self.segment_size);
                continue;
            }
            let length = left.min(WAL_PAGE_BYTES - in_page);
            ranges.push((position, length as usize));
            position += length;
            left -= length;
        }
        ranges
    }

    fn read<'b>(&'b self, segment: &'b [u8], position: u64, length: usize) -> Option<&'b [u8]> {
        let end = self.start + self.segment_size;
        let (bytes, from) = if position < self.start {
            (self.before?, self.start.checked_sub(self.segment_size)?)
        } else if position >= end {
            (self.after?, end)
        } else {
            (segment, self.start)
        };
        let at = usize::try_from(position.checked_sub(from)?).ok()?;
        bytes.get(at..at.checked_add(length)?)
    }

    fn inside<'b>(&self, segment: &'b mut [u8], position: u64, length: usize) -> Option<&'b mut [u8]> {
        let at = usize::try_from(position.checked_sub(self.start)?).ok()?;
        segment.get_mut(at..at.checked_add(length)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_log_is_left_alone() {
        let mut bytes = vec![7; 20_000];
        let mut none = |_| Ok(None);
        assert!(!rewrite_for_copy(&mut bytes, LogOffset(0), 1 << 20, &mut none).unwrap());
        assert!(bytes.iter().all(|byte| *byte == 7));
    }
}
