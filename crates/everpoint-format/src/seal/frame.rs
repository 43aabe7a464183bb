//! One frame: header, payload, tag.

use super::{FRAME_HEADER_LEN, LAST, MAX_FRAME_RAW, MAX_TRAILER_RAW, TAG_LEN};
use crate::codec::expand;
use crate::error::FormatError;

/// The parts of a frame.
pub(super) struct Frame<'a> {
    pub(super) head: &'a [u8; FRAME_HEADER_LEN],
    pub(super) payload: &'a [u8],
    pub(super) tag: &'a [u8; TAG_LEN],
    raw: usize,
}

impl<'a> Frame<'a> {
    pub(super) fn split(number: u32, bytes: &'a [u8], limit: usize) -> Result<Self, FormatError> {
        let (stored, raw) = lengths(bytes, limit)?;
        let parts = bytes.split_first_chunk::<FRAME_HEADER_LEN>().and_then(|(head, rest)| {
            rest.split_last_chunk::<TAG_LEN>().map(|(payload, tag)| (head, payload, tag))
        });
        match parts {
            Some((head, payload, tag)) if stored == bytes.len() => Ok(Self { head, payload, tag, raw }),
            _ => Err(damaged(number)),
        }
    }

    pub(super) const fn flags(&self) -> u8 {
        self.head[9]
    }

    pub(super) const fn is_raw(&self) -> bool {
        self.head[8] == 0
    }

    pub(super) fn expand(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), FormatError> {
        expand(self.head[8], payload, self.raw, out)
    }
}

pub(super) fn damaged(number: u32) -> FormatError {
    FormatError::Damaged { what: format!("frame {number}") }
}

/// Stored bytes (header and tag included) and raw bytes of the frame that begins here, of an object that is no bundle.
///
/// # Errors
/// `Truncated` or `Invalid`.
pub fn frame_lengths(frame: &[u8]) -> Result<(usize, usize), FormatError> {
    lengths(frame, MAX_FRAME_RAW)
}

/// As [`frame_lengths`], where a data frame holds at most `limit` bytes.
fn lengths(frame: &[u8], limit: usize) -> Result<(usize, usize), FormatError> {
    let Some(head) = frame.first_chunk::<FRAME_HEADER_LEN>() else {
        return Err(FormatError::Truncated { what: "the header of a frame".to_owned() });
    };
    let payload = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let raw = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
    let limit = if head[9] & LAST == 0 { limit } else { MAX_TRAILER_RAW };
    let wrong = |why: String| FormatError::Invalid { what: "the header of a frame".to_owned(), why };
    if head[9] & !LAST != 0 || head[10..] != [0, 0] {
        return Err(wrong("flags that this version does not know".to_owned()));
    }
    // Compression that does not pay is not used, so no payload is longer than what it holds.
    if raw > limit || payload > raw || (head[8] == 0 && payload != raw) {
        return Err(wrong(format!("{payload} bytes for {raw}")));
    }
    Ok((FRAME_HEADER_LEN + payload + TAG_LEN, raw))
}
