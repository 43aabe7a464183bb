//! The index of a bundle: where in its frames the segments lie, and their digests.

use std::io::Read;

use crate::error::FormatError;
use crate::seal::{FrameRef, HEADER_LEN};
use crate::varint::{Fields, put};

const VERSION: u8 = 1;
/// Raw bytes of a bundle's data frames, but for its last one: several small segments, or half of one of PostgreSQL's
/// usual size, so that a reader of one segment expands little that it does not want.
pub const BUNDLE_FRAME: u32 = 8 << 20;
/// Most segments of a bundle that are believed.
const MAX_SEGMENTS: u64 = 1 << 16;

/// A segment of a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BundleSegment {
    /// BLAKE3 of its bytes.
    pub hash: [u8; 32],
    /// Bytes of its digest.
    pub digest: u32,
}

/// What a bundle holds: whole segments that follow each other, joined and cut into frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleTable {
    /// Where its first segment begins.
    pub first: u64,
    /// Bytes of a segment.
    pub segment_size: u64,
    /// Raw bytes of each data frame but the last, which holds the rest.
    pub frame_size: u32,
    /// Stored bytes of each data frame.
    pub frames: Vec<u32>,
    /// Its segments, in order.
    pub segments: Vec<BundleSegment>,
}

/// A part of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FramePart {
    /// The frame.
    pub frame: FrameRef,
    /// First byte of it that is wanted.
    pub skip: u32,
    /// How many.
    pub length: u32,
}

fn invalid(why: &str) -> FormatError {
    FormatError::Invalid { what: "the index of a bundle".to_owned(), why: why.to_owned() }
}

impl BundleTable {
    /// Bytes of all segments.
    #[must_use]
    pub fn raw_bytes(&self) -> u64 {
        self.segment_size.saturating_mul(self.segments.len() as u64)
    }

    /// Encodes it. The digests follow it in the index, joined.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        for value in [self.first, self.segment_size, u64::from(self.frame_size), self.frames.len() as u64] {
            put(&mut out, value);
        }
        self.frames.iter().for_each(|stored| put(&mut out, u64::from(*stored)));
        put(&mut out, self.segments.len() as u64);
        for segment in &self.segments {
            out.extend_from_slice(&segment.hash);
            put(&mut out, u64::from(segment.digest));
        }
        out
    }

    /// Decodes it, and leaves `from` where the digests begin.
    ///
    /// # Errors
    /// `UnknownVersion`, `Truncated`, `Invalid`.
    pub fn decode(from: &mut dyn Read) -> Result<Self, FormatError> {
        let mut fields = Fields(from);
        let version = fields.byte()?;
        if version != VERSION {
            return Err(FormatError::UnknownVersion { version: u16::from(version) });
        }
        let (first, segment_size, frame_size) = (fields.number()?, fields.number()?, fields.number32()?);
        if !segment_size.is_power_of_two() || !(1 << 20..=1 << 30).contains(&segment_size) {
            return Err(invalid("a size that no segment has"));
        }
        if frame_size == 0 || frame_size > BUNDLE_FRAME {
            return Err(invalid("frames of an impossible size"));
        }
        let (mut frames, mut segments) = (Vec::new(), Vec::new());
        for _ in 0..fields.number()? {
            frames.push(fields.number32()?);
        }
        let count = fields.number()?;
        if count == 0 || count > MAX_SEGMENTS {
            return Err(invalid("none, or too many segments"));
        }
        for _ in 0..count {
            segments.push(BundleSegment { hash: fields.array()?, digest: fields.number32()? });
        }
        let table = Self { first, segment_size, frame_size, frames, segments };
        if table.raw_bytes().div_ceil(u64::from(frame_size)) != table.frames.len() as u64 {
            return Err(invalid("more or fewer frames than its segments fill"));
        }
        if first.checked_add(table.raw_bytes()).is_none() || first % segment_size != 0 {
            return Err(invalid("segments where none can be"));
        }
        Ok(table)
    }

    /// Where the segment number `number` lies; empty if there is none.
    ///
    /// # Errors
    /// `Invalid` if its frames lie where none can be.
    pub fn parts(&self, number: usize) -> Result<Vec<FramePart>, FormatError> {
        if number >= self.segments.len() {
            return Ok(Vec::new());
        }
        let size = u64::from(self.frame_size);
        let from = self.segment_size.saturating_mul(number as u64);
        let to = from.saturating_add(self.segment_size);
        let (mut parts, mut offset, mut begin) = (Vec::new(), HEADER_LEN as u64, 0_u64);
        for (frame, stored) in self.frames.iter().enumerate() {
            let end = begin.saturating_add(size).min(self.raw_bytes());
            if end > from && begin < to {
                let narrow = |value: u64| u32::try_from(value).map_err(|_| invalid("frames beyond 4 GiB"));
                let (low, high) = (begin.max(from), end.min(to));
                parts.push(FramePart {
                    frame: FrameRef {
                        number: narrow(frame as u64)?,
                        offset: narrow(offset)?,
                        stored: *stored,
                        raw: narrow(end - begin)?,
                    },
                    skip: narrow(low - begin)?,
                    length: narrow(high - low)?,
                });
            }
            (offset, begin) = (offset.saturating_add(u64::from(*stored)), end);
        }
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(segment_size: u64, segments: usize) -> BundleTable {
        let frames = (segment_size * segments as u64).div_ceil(u64::from(BUNDLE_FRAME));
        BundleTable {
            first: segment_size * 7,
            segment_size,
            frame_size: BUNDLE_FRAME,
            frames: (0..u32::try_from(frames).unwrap()).map(|number| 1000 + number).collect(),
            segments: vec![BundleSegment { hash: [3; 32], digest: 9 }; segments],
        }
    }

    #[test]
    fn parts_tile_every_segment() {
        for (size, count) in [(1 << 20, 19), (16 << 20, 3), (4 << 20, 3)] {
            let table = table(size, count);
            let mut at = 0_u64;
            for number in 0..count {
                for part in table.parts(number).unwrap() {
                    assert_eq!(
                        u64::from(part.frame.number) * u64::from(BUNDLE_FRAME) + u64::from(part.skip),
                        at
                    );
                    assert!(part.skip + part.length <= part.frame.raw);
                    let before = u64::from(part.frame.number);
                    assert_eq!(
                        u64::from(part.frame.offset),
                        64 + before * 1000 + before * before.saturating_sub(1) / 2
                    );
                    at += u64::from(part.length);
                }
                assert_eq!(at, size * (number as u64 + 1));
            }
            assert!(table.parts(count).unwrap().is_empty());
        }
    }

    #[test]
    fn a_table_survives_and_wrong_ones_are_refused() {
        let good = table(1 << 20, 9);
        let bytes = good.encode();
        assert_eq!(BundleTable::decode(&mut &*bytes).unwrap(), good);
        for length in 0..bytes.len() {
            assert!(BundleTable::decode(&mut &bytes[..length]).is_err());
        }
        for bad in [
            BundleTable { frames: vec![5; 3], ..good.clone() },
            BundleTable { segment_size: 3 << 20, ..good.clone() },
            BundleTable { first: 5, ..good.clone() },
            BundleTable { frame_size: 0, ..good.clone() },
            BundleTable { segments: Vec::new(), frames: Vec::new(), ..good },
        ] {
            assert!(BundleTable::decode(&mut &*bad.encode()).is_err(), "{bad:?}");
        }
    }
}
