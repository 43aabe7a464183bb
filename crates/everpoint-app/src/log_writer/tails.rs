//! Many small tails of an open segment become few large ones: a server that commits a little all day would leave thousands
//! of objects, which every reader would have to open.

use everpoint_core::{LogOffset, Span};
use everpoint_engine::EngineError;
use everpoint_repo::{Piece, PieceKind, code};

use super::piece::{decoded, digest, join};
use super::segment::OpenBranch;
use super::sink_error;

/// Tails are put together up to this many bytes, which are held in memory for it.
const LARGEST: u64 = 16 << 20;

/// The tails of the open segment, in order. Each says of how many generations of smaller ones it was made.
#[derive(Debug, Default)]
pub(super) struct Tails(Vec<(Piece, u32)>);

impl Tails {
    /// Takes those that an earlier process has stored.
    pub(super) fn resume(&mut self, pieces: &[Piece]) {
        self.0 = pieces.iter().map(|piece| (*piece, 0)).collect();
    }

    pub(super) fn push(&mut self, span: Span) {
        self.0.push((Piece { span, stored: span, kind: PieceKind::Tail, has_digest: true }, 0));
    }

    /// The last tails, if there are `count` of one generation that may become one.
    fn due(&self, count: usize) -> Option<(Vec<Piece>, u32)> {
        let first = self.0.len().checked_sub(count.max(2))?;
        let last = self.0.get(first..)?;
        let (begin, generation) = last.first()?;
        let (end, _) = last.last()?;
        let alike = last.iter().all(|(piece, other)| other == generation && piece.span == piece.stored);
        let small = end.span.to.since(begin.span.from) <= LARGEST;
        (alike && small).then(|| (last.iter().map(|(piece, _)| *piece).collect(), *generation))
    }

    fn replace(&mut self, span: Span, generation: u32) {
        self.0.retain(|(piece, _)| piece.span.from < span.from);
        self.push(span);
        if let Some((_, made)) = self.0.last_mut() {
            *made = generation;
        }
    }
}

impl OpenBranch {
    /// Makes one tail of the last `count` of one generation, as long as there are so many.
    pub(super) fn merge_tails(&mut self, count: usize) -> Result<(), EngineError> {
        while let Some((pieces, generation)) = self.tails.due(count) {
            match self.merge(&pieces) {
                Ok(span) => self.tails.replace(span, generation.saturating_add(1)),
                // The whole segment was stored by another: its tails are gone or will be.
                Err(error) if error.code == code::REPLACED => self.tails = Tails::default(),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn merge(&self, pieces: &[Piece]) -> Result<Span, EngineError> {
        let (mut bytes, mut found, mut covered, mut previous) = (Vec::new(), None, None, None);
        for piece in pieces {
            let (digest, part) = self.log.read_tail(piece).map_err(sink_error)?;
            bytes.extend_from_slice(&part);
            covered = covered.max(digest.covered_until);
            previous = digest.previous_hash.or(previous);
            found = Some(join(found, decoded(digest)));
        }
        let from = pieces.first().map_or(LogOffset(0), |piece| piece.span.from);
        let span = Span { from, to: from.plus(bytes.len() as u64) };
        let Some(found) = found else { return Ok(span) };
        let hash = *blake3::hash(&bytes).as_bytes();
        let digest = digest(self.log.branch(), span, hash, previous, covered, found);
        self.log.merge_tails(&digest, &bytes).map_err(sink_error)?;
        Ok(span)
    }
}
