//! What part of the log is stored.

use everpoint_core::{BranchId, LogOffset, Micros, Span, followed};
use everpoint_repo::{LogStore, Piece, RepoError};

use crate::lineage::Lineage;
use crate::{AppError, ClusterContext};

/// Whether the log holds everything from `from` to `to`.
///
/// # Errors
/// If it can't be listed.
pub fn covers(log: &LogStore, from: LogOffset, to: LogOffset) -> Result<bool, RepoError> {
    Ok(from >= to || contiguous_end(log, from)? >= to)
}

/// First position at or after `from` that is not stored.
///
/// # Errors
/// If the log can't be listed.
pub fn contiguous_end(log: &LogStore, from: LogOffset) -> Result<LogOffset, RepoError> {
    let mut end = from;
    for piece in proven(log, from)? {
        if piece.span.from > end {
            break;
        }
        end = end.max(piece.span.to);
    }
    Ok(end)
}

/// What is missing of `span`.
///
/// # Errors
/// If the log can't be listed.
pub fn missing(log: &LogStore, span: Span) -> Result<Vec<Span>, RepoError> {
    let (mut found, mut end) = (Vec::new(), span.from);
    for piece in proven(log, span.from)? {
        if piece.span.from >= span.to {
            break;
        }
        if piece.span.from > end {
            found.push(Span { from: end, to: piece.span.from });
        }
        end = end.max(piece.span.to);
    }
    if end < span.to {
        found.push(Span { from: end, to: span.to });
    }
    Ok(found)
}

/// Where capture of a branch goes on: at its end, or at the first hole in it that is not a known gap. `None` if nothing of
/// it is stored.
///
/// # Errors
/// If the log can't be listed.
pub fn resume_position(log: &LogStore) -> Result<Option<LogOffset>, RepoError> {
    let pieces = log.pieces()?;
    // What retention let go is no hole that could be filled: only islands are left before it.
    let expired = log.expired()?.unwrap_or_default();
    let Some(first) = pieces.iter().find(|piece| piece.span.from >= expired).or(pieces.last()) else {
        return Ok(None);
    };
    let mut gaps: Vec<Span> = log.gaps()?.into_iter().map(|(span, _)| span).collect();
    gaps.sort_unstable_by_key(|gap| gap.from);
    let mut end = first.span.from;
    for piece in pieces.iter().filter(|piece| piece.span.from >= first.span.from) {
        if piece.span.from > end {
            end = beyond(&gaps, end);
        }
        if piece.span.from > end || !piece.has_digest {
            return Ok(Some(end.min(piece.span.from)));
        }
        end = end.max(piece.span.to);
    }
    Ok(Some(beyond(&gaps, end)))
}

/// Where the known gaps that begin at `end` or before lead. `gaps` are sorted.
fn beyond(gaps: &[Span], end: LogOffset) -> LogOffset {
    gaps.iter().fold(end, |end, gap| if gap.from <= end { end.max(gap.to) } else { end })
}

/// The branch of a timeline of which the newest log is stored; `None` if nothing of that timeline is.
///
/// # Errors
/// If the repository can't be read.
pub fn newest_of(lineage: &Lineage<'_>, timeline: u32) -> Result<Option<BranchId>, AppError> {
    let mut candidates = lineage.of_timeline(timeline)?;
    if candidates.len() < 2 {
        return Ok(candidates.pop());
    }
    let mut best: Option<((Option<Micros>, LogOffset), BranchId)> = None;
    for branch in candidates {
        let log = lineage.log(branch.clone());
        let end = log.pieces()?.last().map(|piece| piece.span.to).unwrap_or_default();
        let rank = (log.covered()?.map(|(_, until)| until), end);
        if best.as_ref().is_none_or(|(known, _)| rank > *known) {
            best = Some((rank, branch));
        }
    }
    Ok(best.map(|(_, branch)| branch))
}

/// First position at or after `start` that is not stored on the way to this branch, whose history this is. A standby may have
/// begun a backup on the branch before it.
///
/// # Errors
/// If the repository can't be read.
pub fn reached(
    context: &ClusterContext,
    identity: u32,
    branch: &BranchId,
    history: &[u8],
    start: LogOffset,
) -> Result<LogOffset, AppError> {
    let Some(size) = segment_size(context, identity)? else { return Ok(start) };
    let lineage = lineage(context, identity, size);
    let steps = if history.is_empty() { Vec::new() } else { context.engine.history(history)? };
    let mut end = start;
    for step in followed(&steps) {
        if step.until > end
            && let Some(older) = lineage.ancestor(history, step.timeline)?
        {
            end = contiguous_end(&lineage.log(older), end)?.min(step.until);
        }
    }
    Ok(contiguous_end(&lineage.log(branch.clone()), end)?)
}

fn lineage(context: &ClusterContext, identity: u32, segment_size: u64) -> Lineage<'_> {
    Lineage { cluster: &context.cluster, engine: context.engine.as_ref(), identity, segment_size }
}

fn segment_size(context: &ClusterContext, identity: u32) -> Result<Option<u64>, AppError> {
    let identities = context.cluster.identities()?;
    Ok(identities
        .into_iter()
        .find(|(number, _)| *number == identity)
        .map(|(_, identity)| identity.segment_size))
}

/// The pieces from the segment of `from` on that can be relied upon.
fn proven(log: &LogStore, from: LogOffset) -> Result<Vec<Piece>, RepoError> {
    let mut pieces = log.pieces_between(from, LogOffset(u64::MAX))?;
    pieces.retain(|piece| piece.has_digest && piece.span.to > from);
    Ok(pieces)
}
