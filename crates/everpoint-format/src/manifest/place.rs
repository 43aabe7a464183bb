//! Where extents are stored, written as what differs from the extent before: 4 bytes for a whole frame that follows.

use std::io::Read;

use super::{MAX_PACKS, invalid};
use crate::error::FormatError;
use crate::seal::{FrameRef, HEADER_LEN};
use crate::varint::{Fields, put, put_signed};

/// Bits of the first byte. None: zeros.
const STORED: u8 = 1;
/// Another pack than that of the stored extent before; its number follows.
const OTHER_PACK: u8 = 2;
/// The frame behind the one that was named last of this pack; its stored length follows.
const NEXT_FRAME: u8 = 4;
/// Any other frame of the pack; number, offset and stored length follow.
const OTHER_FRAME: u8 = 8;
/// A frame that is named has as many raw bytes as the frame named before; else their number follows.
const SAME_RAW: u8 = 16;
/// The whole frame; else skip and length follow.
const WHOLE: u8 = 32;
const ALL: u8 = STORED | OTHER_PACK | NEXT_FRAME | OTHER_FRAME | SAME_RAW | WHOLE;

/// An extent with the number of its pack in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Zeros.
    Zero {
        /// How many.
        length: u64,
    },
    /// Bytes of a frame.
    Stored {
        /// Number of the pack.
        pack: usize,
        /// The frame.
        frame: FrameRef,
        /// First byte in it.
        skip: u32,
        /// How many.
        length: u32,
    },
}

/// What differences refer to; the same for writer and reader at the same point of the map.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// The frame of each pack that was named last.
    last: Vec<FrameRef>,
    pack: usize,
    raw: u32,
}

/// So that the first frame of a pack is the one behind this.
const BEFORE_FIRST: FrameRef = FrameRef { number: u32::MAX, offset: HEADER_LEN as u32, stored: 0, raw: 0 };

const fn behind(frame: &FrameRef) -> (u32, u32) {
    (frame.number.wrapping_add(1), frame.offset.wrapping_add(frame.stored))
}

impl Places {
    /// Adds a pack to the table; its number.
    pub(super) fn name_pack(&mut self) -> Result<usize, FormatError> {
        if self.last.len() >= MAX_PACKS {
            return Err(invalid("more packs than one map may name"));
        }
        self.last.push(BEFORE_FIRST);
        Ok(self.last.len() - 1)
    }

    fn last_of(&mut self, pack: usize) -> Result<&mut FrameRef, FormatError> {
        self.last.get_mut(pack).ok_or_else(|| invalid("an extent in a pack that is not named"))
    }

    /// Appends an extent.
    pub(super) fn write(&mut self, out: &mut Vec<u8>, place: Place) -> Result<(), FormatError> {
        let (pack, frame, skip, length) = match place {
            Place::Stored { pack, frame, skip, length } => (pack, frame, skip, length),
            Place::Zero { length } => {
                out.push(0);
                put(out, length);
                return Ok(());
            }
        };
        let (raw, other_pack) = (self.raw, pack != self.pack);
        let last = self.last_of(pack)?;
        let (number, offset) = behind(last);
        let named = frame != *last;
        let next = named && (frame.number, frame.offset) == (number, offset);
        let whole = skip == 0 && length == frame.raw;
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        out.push(
            STORED
                | bit(other_pack, OTHER_PACK)
                | bit(next, NEXT_FRAME)
                | bit(named && !next, OTHER_FRAME)
                | bit(named && frame.raw == raw, SAME_RAW)
                | bit(whole, WHOLE),
        );
        if other_pack {
            put(out, pack as u64);
        }
        if named && !next {
            put_signed(out, i64::from(frame.number) - i64::from(number));
            put_signed(out, i64::from(frame.offset) - i64::from(offset));
        }
        if named {
            put(out, u64::from(frame.stored));
        }
        if named && frame.raw != raw {
            put(out, u64::from(frame.raw));
        }
        if !whole {
            put(out, u64::from(skip));
            put(out, u64::from(length));
        }
        *last = frame;
        (self.pack, self.raw) = (pack, frame.raw);
        Ok(())
    }

    /// Reads an extent.
    pub(super) fn read<R: Read>(&mut self, fields: &mut Fields<R>) -> Result<Place, FormatError> {
        let bits = fields.byte()?;
        if bits == 0 {
            return Ok(Place::Zero { length: fields.number()? });
        }
        let named = bits & (NEXT_FRAME | OTHER_FRAME) != 0;
        let both = bits & (NEXT_FRAME | OTHER_FRAME) == NEXT_FRAME | OTHER_FRAME;
        if bits & STORED == 0 || bits & !ALL != 0 || both || (!named && bits & SAME_RAW != 0) {
            return Err(invalid(format!("an extent of kind {bits}")));
        }
        let mut pack = self.pack;
        if bits & OTHER_PACK != 0 {
            pack = usize::try_from(fields.number()?).unwrap_or(usize::MAX);
        }
        let raw = self.raw;
        let last = self.last_of(pack)?;
        let mut frame = *last;
        if named {
            (frame.number, frame.offset) = behind(last);
        }
        if bits & OTHER_FRAME != 0 {
            frame.number = moved(frame.number, fields.signed()?)?;
            frame.offset = moved(frame.offset, fields.signed()?)?;
        }
        if named {
            frame.stored = fields.number32()?;
            frame.raw = if bits & SAME_RAW != 0 { raw } else { fields.number32()? };
        }
        *last = frame;
        (self.pack, self.raw) = (pack, frame.raw);
        let (skip, length) =
            if bits & WHOLE != 0 { (0, frame.raw) } else { (fields.number32()?, fields.number32()?) };
        Ok(Place::Stored { pack, frame, skip, length })
    }
}

fn moved(from: u32, by: i64) -> Result<u32, FormatError> {
    i64::from(from)
        .checked_add(by)
        .and_then(|to| u32::try_from(to).ok())
        .ok_or_else(|| invalid("a frame that lies nowhere"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_frames_in_a_row_take_four_bytes() {
        let mut places = Places::default();
        let (mut out, mut offset) = (Vec::new(), HEADER_LEN as u32);
        let pack = places.name_pack().unwrap();
        let mut costs = Vec::new();
        for number in 0..5 {
            let frame = FrameRef { number, offset, stored: 100_000 + number, raw: 262_144 };
            let before = out.len();
            places.write(&mut out, Place::Stored { pack, frame, skip: 0, length: frame.raw }).unwrap();
            costs.push(out.len() - before);
            offset += frame.stored;
        }
        assert_eq!(costs, [7, 4, 4, 4, 4]);
    }

    #[test]
    fn bits_that_contradict_each_other_are_refused() {
        let (next, other) = (STORED | NEXT_FRAME, STORED | OTHER_FRAME);
        for (bits, good) in [
            (next | WHOLE, true),
            (other | WHOLE, true),
            (STORED | WHOLE, true),
            (next | other | WHOLE, false),
            (NEXT_FRAME | WHOLE, false),
            (STORED | SAME_RAW | WHOLE, false),
            (next | 64, false),
            (next | 128, false),
        ] {
            let mut places = Places::default();
            places.name_pack().unwrap();
            let bytes = [bits, 2, 2, 2, 2, 2, 2];
            assert_eq!(places.read(&mut Fields(bytes.as_slice())).is_ok(), good, "{bits:#b}");
        }
    }
}
