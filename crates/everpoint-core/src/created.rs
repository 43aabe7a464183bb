//! Tablespaces that a stretch of log creates.

use crate::digest::{LogEvent, RecordSpan};
use crate::path::PathPiece;
use crate::reader::{PathLog, events};
use crate::source::LogSource;

/// A tablespace that the log to be replayed creates: it is not in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedTablespace {
    /// Its oid.
    pub oid: u32,
    /// The directory that it had in production. Empty if none is known.
    pub path: String,
    /// Its transaction has committed where replay stops. Else there is no such tablespace, but replay makes a directory
    /// of it all the same.
    pub finished: bool,
}

/// The path that a record names. A server that was restored begins its timeline with a copy of the segment that it has
/// replayed, in which paths are emptied: then an older branch of the path has the record as it was written.
///
/// # Errors
/// What `source` says.
pub(crate) fn path_of<S: LogSource>(
    log: &PathLog<'_>,
    oid: u32,
    record: RecordSpan,
    source: &mut S,
) -> Result<String, S::Error> {
    for step in log.path.iter().rev().filter(|step| record.start < step.fork) {
        let holds = |from, to| from <= record.start && record.start < to;
        for piece in step.branch.pieces.iter().filter(|piece| holds(piece.span.from, piece.span.to)) {
            if !piece.may_hold(piece.counts.places) {
                continue;
            }
            let whole = PathPiece { branch: step.branch, piece, from: piece.span.from, to: piece.span.to };
            let named = events(source, &whole)?.events.into_iter().find_map(|event| match event {
                LogEvent::TablespaceCreate { tablespace, path, record: other, .. } => {
                    (tablespace == oid && other.start == record.start && !path.is_empty()).then_some(path)
                }
                _ => None,
            });
            if let Some(path) = named {
                return Ok(path);
            }
        }
    }
    Ok(String::new())
}
