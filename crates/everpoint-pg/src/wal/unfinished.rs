//! The record that is being received.

use everpoint_core::{Carry, LogOffset};

use super::contents;
use super::format::RECORD_HEADER_BYTES;
use super::record::RecordHeader;

const HEADER_BYTES: usize = RECORD_HEADER_BYTES as usize;

/// The head of a record, what is needed of its body, and a running checksum of all of the body.
#[derive(Debug)]
pub(super) struct Unfinished {
    pub(super) start: u64,
    /// Complete header, once there are 24 bytes.
    pub(super) header: Option<RecordHeader>,
    head: Vec<u8>,
    received: u64,
    body_checksum: u32,
    kept: Vec<u8>,
    keep: usize,
}

impl Unfinished {
    pub(super) fn at(start: u64) -> Self {
        Self {
            start,
            header: None,
            head: Vec::with_capacity(HEADER_BYTES),
            received: 0,
            body_checksum: 0,
            kept: Vec::new(),
            keep: 0,
        }
    }

    pub(super) fn from_carry(carry: Carry) -> Self {
        let (head, body) = match carry.bytes.split_at_checked(HEADER_BYTES) {
            Some((head, body)) => (head.to_vec(), body),
            None => (carry.bytes.clone(), [].as_slice()),
        };
        let held = carry.bytes.len() as u64;
        let received = if head.len() < HEADER_BYTES { held } else { carry.received.max(held) };
        let body_checksum = if received == held { crc32c::crc32c(body) } else { carry.checksum };
        let header = RecordHeader::parse(&head);
        let keep = header.as_ref().map_or(0, contents::needed_bytes);
        let kept = body.get(..keep).unwrap_or(body).to_vec();
        Self { start: carry.record_start.0, header, head, received, body_checksum, kept, keep }
    }

    /// Completes `carry`, which says where the decoder stands.
    pub(super) fn to_carry(&self, carry: Carry) -> Carry {
        let mut bytes = Vec::with_capacity(self.head.len() + self.kept.len());
        bytes.extend_from_slice(&self.head);
        bytes.extend_from_slice(&self.kept);
        Carry {
            record_start: LogOffset(self.start),
            bytes,
            received: self.received,
            checksum: self.body_checksum,
            ..carry
        }
    }

    /// Length of the whole record, as soon as its first four bytes are there.
    pub(super) fn total(&self) -> Option<u64> {
        self.head.first_chunk::<4>().map(|bytes| u64::from(u32::from_le_bytes(*bytes)))
    }

    /// Bytes that are still to come; `None` while not known.
    pub(super) fn remaining(&self) -> Option<u64> {
        self.total().map(|total| total.saturating_sub(self.received))
    }

    pub(super) fn is_complete(&self) -> bool {
        self.header.is_some() && self.remaining() == Some(0)
    }

    /// Says how many bytes of the body are needed.
    pub(super) fn keep(&mut self, bytes: usize) {
        self.keep = bytes;
    }

    /// Takes what is missing of the header; returns how many bytes.
    pub(super) fn take_head(&mut self, slice: &[u8]) -> usize {
        let missing = HEADER_BYTES.saturating_sub(self.head.len());
        let taken = slice.get(..missing).unwrap_or(slice);
        self.head.extend_from_slice(taken);
        self.received += taken.len() as u64;
        self.header = RecordHeader::parse(&self.head);
        taken.len()
    }

    /// Takes bytes of the body; returns how many.
    pub(super) fn take_body(&mut self, slice: &[u8]) -> usize {
        let remaining = usize::try_from(self.remaining().unwrap_or_default()).unwrap_or(usize::MAX);
        let taken = slice.get(..remaining).unwrap_or(slice);
        self.body_checksum = crc32c::crc32c_append(self.body_checksum, taken);
        self.received += taken.len() as u64;
        let wanted = self.keep.saturating_sub(self.kept.len());
        self.kept.extend_from_slice(taken.get(..wanted).unwrap_or(taken));
        taken.len()
    }

    /// The kept part of the body.
    pub(super) fn body(&self) -> &[u8] {
        &self.kept
    }

    /// The record's checksum: of the body, then of the header up to the checksum itself.
    pub(super) fn checksum(&self) -> u32 {
        let covered = self.head.get(..HEADER_BYTES - 4).unwrap_or_default();
        crc32c::crc32c_append(self.body_checksum, covered)
    }
}
