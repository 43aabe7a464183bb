//! Finds the place at which writing a branch goes on, and rebuilds the open segment from what is stored of it.

use std::collections::VecDeque;

use everpoint_core::LogOffset;
use everpoint_core::join::NOTHING_BEFORE;
use everpoint_engine::EngineError;
use everpoint_repo::{LogStore, Piece, PieceKind, RepoError, code};

use super::fork::named_by;
use super::recent::Recent;
use super::segment::{OpenBranch, OpenSegment};
use super::tails::Tails;
use super::{Written, from_app, sink_error};
use crate::lineage::{Lineage, unknown_carry};

/// How often it looks anew: for each segment that a crash left unfinished, and when another writer replaces tails meanwhile.
const ATTEMPTS: usize = 20;

/// Opens a branch so that `from` is at or before its position; `apart`: what is stored before this is none of it.
pub(super) fn run(
    lineage: &Lineage<'_>,
    (log, apart): (&LogStore, Option<LogOffset>),
    history: &[u8],
    from: LogOffset,
    written: &mut Written,
) -> Result<OpenBranch, EngineError> {
    for _ in 0..ATTEMPTS {
        let found = Found::look(log, from).map_err(sink_error)?;
        if found.end < from {
            return Err(unreachable_position(log, from, found.end));
        }
        let apart = apart.filter(|at| *at == found.open_start);
        let named = apart.map_or_else(|| found.named(log), |_| Ok(Some(NOTHING_BEFORE)));
        let mut open = begin(lineage, log, history, (found.open_start, named.map_err(sink_error)?))?;
        match found.rebuild(&mut open, written) {
            // What follows the damage has to be sent again.
            Ok(Rebuilt::Open) if open.position < from => {
                return Err(unreachable_position(log, from, open.position));
            }
            Ok(Rebuilt::Open) => return Ok(open),
            // The segment that a crash left without a digest is whole now; what follows it may be stored as well.
            Ok(Rebuilt::Finished) => {}
            Err(error) if error.code == code::REPLACED => {}
            Err(error) => return Err(error),
        }
    }
    let object = log.segment_name(from);
    let message = "what is stored of it is replaced all the time; is another capture running?";
    Err(EngineError::new(code::REPLACED, "go on with", object, message).retryable())
}

fn unreachable_position(log: &LogStore, from: LogOffset, end: LogOffset) -> EngineError {
    let timeline = log.branch().timeline();
    let message = format!("only the start of its segment up to {end} is stored of this branch");
    EngineError::new("capture.position", "go on with", format!("timeline {timeline} at {from}"), message)
        .hint("the server follows another history than the one that was captured: begin at a segment")
}

/// What is stored from the beginning of a segment on.
struct Found {
    /// Start of the segment in which it ends.
    open_start: LogOffset,
    /// End of it.
    end: LogOffset,
    /// The tails of the open segment.
    tails: Vec<Piece>,
    /// The open segment is stored whole, but has no digest.
    unproven: bool,
}

impl Found {
    fn look(log: &LogStore, from: LogOffset) -> Result<Self, RepoError> {
        let start = log.segment_start(from);
        let mut found = Self { open_start: start, end: start, tails: Vec::new(), unproven: false };
        for piece in log.pieces_between(start, LogOffset(u64::MAX))? {
            if piece.span.from != found.end {
                break;
            }
            if piece.kind == PieceKind::Segment && !piece.has_digest {
                found.unproven = true;
                found.end = piece.span.to;
                break;
            }
            found.end = piece.span.to;
            if found.end == log.segment_start(found.end) && piece.kind == PieceKind::Segment {
                found.open_start = found.end;
            } else {
                found.tails.push(piece);
            }
            // Tails that hold a whole segment are made into one by rebuilding it.
            if piece.kind == PieceKind::Tail && found.end == log.segment_start(found.end) {
                break;
            }
        }
        Ok(found)
    }

    /// What the first tail of the open segment says of the segment before.
    fn named(&self, log: &LogStore) -> Result<Option<[u8; 32]>, RepoError> {
        self.tails.first().map_or(Ok(None), |first| named_by(log, first))
    }

    fn rebuild(&self, open: &mut OpenBranch, written: &mut Written) -> Result<Rebuilt, EngineError> {
        if self.unproven {
            let mut failure = None;
            let log = open.log.clone();
            let read = log.read_segment(self.open_start, &mut |bytes| {
                if failure.is_none() {
                    failure = open.feed(bytes).err();
                }
            });
            return match (read, failure) {
                (Ok(()), None) => open.finish_segment(written).map(|()| Rebuilt::Finished),
                // Beginning it has removed what can't be read: the server sends it again, from where its tails end.
                (Err(error), _) if error.is_damaged() || error.is_missing() => Ok(Rebuilt::Finished),
                (Err(error), _) | (Ok(()), Some(error)) => Err(sink_error(error)),
            };
        }
        for (at, tail) in self.tails.iter().enumerate() {
            let bytes = match open.log.read_tail(tail) {
                Ok((_, bytes)) => bytes,
                Err(error) if error.is_damaged() => {
                    tracing::warn!(%error, "a tail can't be read: the log is received again from there");
                    let (good, unread) = self.tails.split_at_checked(at).unwrap_or_default();
                    open.durable = open.position;
                    open.tails.resume(good);
                    open.damaged = unread.to_vec();
                    return Ok(Rebuilt::Open);
                }
                Err(error) => return Err(sink_error(error)),
            };
            open.feed(&bytes).map_err(sink_error)?;
            open.cut();
        }
        open.durable = open.position;
        open.tails.resume(&self.tails);
        if !self.tails.is_empty() && self.end == open.log.segment_start(self.end) {
            return open.finish_segment(written).map(|()| Rebuilt::Finished);
        }
        Ok(Rebuilt::Open)
    }
}

enum Rebuilt {
    /// The segment is open, its position is where what is stored ends.
    Open,
    /// A segment was completed: look again.
    Finished,
}

fn begin(
    lineage: &Lineage<'_>,
    log: &LogStore,
    history: &[u8],
    (start, named): (LogOffset, Option<[u8; 32]>),
) -> Result<OpenBranch, EngineError> {
    let before = lineage.predecessor(log, history, start).map_err(from_app)?;
    // What begins apart goes on so.
    let before = before.filter(|_| named != Some(NOTHING_BEFORE));
    let (carry, end) = match &before {
        Some(before) => before.carry_and_end(lineage.engine).map_err(from_app)?,
        None => (unknown_carry(start), Vec::new()),
    };
    // The server of this branch has the last segment of another one under another name.
    let own = before.as_ref().is_some_and(|before| before.log.branch() == log.branch());
    let mut recent = Recent::of(if own { &end } else { &[] });
    if let Some(before) = before.as_ref().filter(|_| own && recent.is_empty()) {
        // The switch of segments that ends it lies further ahead.
        recent = Recent::default();
        before.log.read_segment(before.start, &mut |bytes| recent.push(bytes)).map_err(sink_error)?;
    }
    let covered_stored = log.covered().map_err(sink_error)?;
    let unfinished = (!carry.bytes.is_empty()).then_some(carry.record_start);
    Ok(OpenBranch {
        unfinished,
        decoder: lineage.engine.decoder(log.segment_size(), carry),
        segment: OpenSegment::new(start),
        tails: Tails::default(),
        damaged: Vec::new(),
        previous_hash: before.map(|before| before.hash).or(named.filter(|named| *named == NOTHING_BEFORE)),
        log: log.clone(),
        system: None,
        position: start,
        recent,
        durable: start,
        covered_waiting: VecDeque::new(),
        covered_stored,
        covered_at: None,
        joins: false,
    })
}
