//! Reads along a path what the facts don't tell, piece by piece, through a [`LogSource`].

use crate::continuity::{Continuity, Run, continuity};
use crate::digest::{LogEvent, RecordSpan, TransactionEnd};
use crate::facts::{BackupFacts, BranchFacts, LogFacts};
use crate::path::{PathPiece, PathStep, path, path_pieces};
use crate::position::{LogOffset, Span};
use crate::source::LogSource;
use crate::window::usable;

/// The log and the backups as seen from one branch.
pub(crate) struct PathLog<'a> {
    /// From the root to the branch.
    pub(crate) path: Vec<PathStep<'a>>,
    /// All pieces on it, whether they hold together or not.
    pub(crate) pieces: Vec<PathPiece<'a>>,
    /// Where they hold together.
    pub(crate) continuity: Continuity<'a>,
    /// Backups that can be used, the earliest first.
    pub(crate) backups: Vec<&'a BackupFacts>,
}

impl<'a> PathLog<'a> {
    /// Looks along the path to `leaf`.
    pub(crate) fn new(
        log: &'a LogFacts,
        leaf: &'a BranchFacts,
        backups: &'a [BackupFacts],
        skip: &[String],
    ) -> Self {
        let path = path(log, leaf);
        Self {
            pieces: path_pieces(&path),
            continuity: continuity(&path),
            backups: usable(&path, backups, skip),
            path,
        }
    }

    /// The run that holds these bytes.
    pub(crate) fn run(&self, span: Span) -> Option<&Run<'a>> {
        self.continuity.runs.iter().find(|run| run.holds(span))
    }
}

/// The events of a piece that count.
pub(crate) struct Events {
    pub(crate) events: Vec<LogEvent>,
    /// What the record did that ends first in the piece is not known.
    pub(crate) head_unknown: bool,
}

/// Reads the events of a piece that lie in the part that counts.
pub(crate) fn events<S: LogSource>(source: &mut S, piece: &PathPiece<'_>) -> Result<Events, S::Error> {
    let digest = source.digest(piece.branch, piece.piece)?;
    let cut_front = piece.from > piece.piece.span.from;
    let counts = |event: &LogEvent| {
        let record = event.record();
        piece.piece.span.ends_in(record)
            && record.end <= piece.to
            && (!cut_front || record.start >= piece.from)
    };
    Ok(Events {
        events: digest.events.into_iter().filter(counts).collect(),
        head_unknown: digest.head_unknown,
    })
}

/// The last whole record of the run that begins at or before `at`.
pub(crate) fn last_record<S: LogSource>(
    source: &mut S,
    run: &Run<'_>,
    at: LogOffset,
) -> Result<Option<RecordSpan>, S::Error> {
    let holding = run.pieces.iter().rposition(|piece| piece.from <= at);
    let Some(index) = holding else { return Ok(None) };
    let (before, after) = run.pieces.split_at(index.saturating_add(1));
    // A record that begins in this piece may end in a later one: the first in which any record ends.
    let mut found = None;
    if let Some(next) = after.iter().find(|piece| piece.piece.last_record.is_some()) {
        found = in_piece(source, next, at)?;
    }
    for piece in before.iter().rev() {
        if found.is_some() {
            break;
        }
        found = match piece.piece.last_record {
            None => None,
            Some(last) if last.start <= at && last.end <= piece.to => Some(last),
            Some(_) => in_piece(source, piece, at)?,
        };
    }
    Ok(found)
}

fn in_piece<S: LogSource>(
    source: &mut S,
    piece: &PathPiece<'_>,
    at: LogOffset,
) -> Result<Option<RecordSpan>, S::Error> {
    // No record straddles the place where a piece stops to count, so that the last one before it is whole.
    let limit = at.min(LogOffset(piece.to.0.saturating_sub(1)));
    let found = source.last_record(piece.branch, piece.piece, limit)?;
    let cut_front = piece.from > piece.piece.span.from;
    Ok(found.filter(|record| record.end <= piece.to && (!cut_front || record.start >= piece.from)))
}

/// The last commit of the run that lies before `to`, the first position that is not replayed.
pub(crate) fn last_commit<S: LogSource>(
    source: &mut S,
    run: &Run<'_>,
    to: LogOffset,
) -> Result<Option<TransactionEnd>, S::Error> {
    let pieces = run.pieces.iter().rev();
    for piece in pieces.filter(|piece| piece.from < to && piece.piece.may_hold(piece.piece.counts.commits)) {
        let found = events(source, piece)?.events.into_iter().rev().find_map(|event| match event {
            LogEvent::Commit(end) if end.record.end <= to => Some(end),
            _ => None,
        });
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}
