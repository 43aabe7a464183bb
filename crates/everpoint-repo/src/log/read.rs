//! Reading segments, whole or as far as their tails go.

use std::cell::RefCell;

use everpoint_core::LogOffset;
use everpoint_format::seal::ObjectKind;

use super::parallel;
use super::{LogStore, PieceKind};
use crate::RepoError;
use crate::error::code;
use crate::object::{format_error, missing};

/// How often a plan is made anew when tails are replaced while they are read.
const ATTEMPTS: usize = 5;

impl LogStore {
    /// Reads a whole segment in pieces, of at most 1 MiB where it is an object of its own, else 8 MiB.
    ///
    /// # Errors
    /// `repo.missing` if it is not stored whole, `repo.damaged` if it fails its checks; what was handed out by then is
    /// authentic, but not all.
    pub fn read_segment(&self, start: LogOffset, out: &mut dyn FnMut(&[u8])) -> Result<(), RepoError> {
        // What was handed out can't be taken back: only the first place that has any of it is read.
        let state = RefCell::new((out, false));
        let hand_out = |bytes: &[u8]| {
            let (out, begun) = &mut *state.borrow_mut();
            *begun = true;
            out(bytes);
        };
        let unless_begun = |result: Result<(), RepoError>| {
            if state.borrow().1 { Ok(result) } else { result.map(Ok) }
        };
        let found = self.either(
            start,
            || unless_begun(self.read_single(start, &mut |bytes| hand_out(bytes))),
            |bundle| unless_begun(self.read_bundled(bundle, start, &mut |bytes| hand_out(bytes))),
        )?;
        found.unwrap_or_else(|| Err(missing("read", &self.segment(start))))
    }

    /// As [`LogStore::read_segment`], of a segment that is an object of its own.
    pub(super) fn read_single(&self, start: LogOffset, out: &mut dyn FnMut(&[u8])) -> Result<(), RepoError> {
        let name = self.segment(start);
        let mut reader = self.shared.read_stream(&name, ObjectKind::Segment)?;
        let mut length = 0_u64;
        while let Some(bytes) = reader.next_frame().map_err(|error| format_error("read", &name, error))? {
            length = length.saturating_add(bytes.len() as u64);
            out(bytes);
        }
        if length == self.names.size { Ok(()) } else { Err(self.wrong_size(&name, length)) }
    }

    /// Reads a whole segment, decompressing with up to `workers` threads. Memory: the segment, and 2 MiB a thread.
    ///
    /// # Errors
    /// As [`LogStore::read_segment`].
    pub fn read_segment_into(&self, start: LogOffset, workers: usize) -> Result<Vec<u8>, RepoError> {
        let found = self.either(
            start,
            || self.read_single_into(start, workers),
            |bundle| self.read_bundled_into(bundle, start, workers),
        )?;
        found.ok_or_else(|| missing("read", &self.segment(start)))
    }

    /// As [`LogStore::read_segment_into`], of a segment that is an object of its own.
    pub(super) fn read_single_into(&self, start: LogOffset, workers: usize) -> Result<Vec<u8>, RepoError> {
        let name = self.segment(start);
        let bytes = parallel::read(&self.shared, &name, ObjectKind::Segment, self.names.size, workers)?;
        let length = bytes.len() as u64;
        if length == self.names.size { Ok(bytes) } else { Err(self.wrong_size(&name, length)) }
    }

    /// The bytes of a segment as far as they are stored from its start without a hole, and where they end: from the
    /// whole segment, else from its tails. `None` if nothing of its start is stored.
    ///
    /// # Errors
    /// If it could not be told or read.
    pub fn read_stored(
        &self,
        position: LogOffset,
        workers: usize,
    ) -> Result<Option<(Vec<u8>, LogOffset)>, RepoError> {
        let start = self.names.start(position);
        let mut replaced = None;
        for _ in 0..ATTEMPTS {
            match self.read_segment_into(start, workers) {
                Ok(bytes) => return Ok(Some((bytes, start.plus(self.names.size)))),
                Err(error) if error.is_missing() => {}
                Err(error) => return Err(error),
            }
            match self.read_tails(start) {
                Err(error) if error.code == code::REPLACED => replaced = Some(error),
                result => return result,
            }
        }
        replaced.map_or(Ok(None), Err)
    }

    fn read_tails(&self, start: LogOffset) -> Result<Option<(Vec<u8>, LogOffset)>, RepoError> {
        let (mut bytes, mut end) = (Vec::new(), start);
        for piece in self.pieces_between(start, start.plus(1))? {
            if piece.kind == PieceKind::Segment {
                // Stored whole since we looked.
                let message = "its tails were replaced by the segment";
                return Err(RepoError::new(code::REPLACED, "read", self.segment(start), message).retryable());
            }
            if piece.span.from != end {
                break;
            }
            bytes.extend(self.read_tail(&piece)?.1);
            end = piece.span.to;
        }
        if bytes.is_empty() && self.shared.store.head(&self.segment(start))?.is_some() {
            let message = "its tails were replaced by the segment";
            return Err(RepoError::new(code::REPLACED, "read", self.segment(start), message).retryable());
        }
        Ok((!bytes.is_empty()).then_some((bytes, end)))
    }

    fn wrong_size(&self, name: &str, length: u64) -> RepoError {
        RepoError::damaged("read", name, format!("it holds {length} bytes, not {}", self.names.size))
    }
}
