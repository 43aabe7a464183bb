//! What part of the log is stored.

use everpoint_core::{BranchId, Digest, LogOffset, Micros, PieceFacts, Span, followed};
use everpoint_repo::{LogStore, Piece, RepoError, code};

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
    let (mut end, pieces) = (from, proven(log, from)?);
    for (at, piece) in pieces.iter().enumerate() {
        if piece.span.from > end && behind_switch(log, pieces.get(..at), end)? != Some(piece.span.from) {
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
    // What is stored before it says whether it begins behind a switch.
    let pieces = proven(log, log.segment_start(span.from))?;
    for (at, piece) in pieces.iter().enumerate().filter(|(_, piece)| piece.span.to > span.from) {
        if piece.span.from >= span.to {
            break;
        }
        if piece.span.from > end {
            end = behind_switch(log, pieces.get(..at), end)?.unwrap_or(end);
        }
        if piece.span.from > end {
            found.push(Span { from: end, to: piece.span.from });
        }
        end = end.max(piece.span.to);
    }
    if end < span.to {
        let before = pieces.partition_point(|piece| piece.span.to <= end);
        end = behind_switch(log, pieces.get(..before), end)?.unwrap_or(end);
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
    for (at, piece) in pieces.iter().enumerate().filter(|(_, piece)| piece.span.from >= first.span.from) {
        if piece.span.from > end {
            end = beyond(&gaps, end);
        }
        // What a server wrote behind a switch is nothing, and it may no longer have that.
        if piece.span.from > end && behind_switch(log, pieces.get(..at), end)? == Some(piece.span.from) {
            end = piece.span.from;
        }
        if piece.span.from > end || !piece.has_digest {
            return Ok(Some(end.min(piece.span.from)));
        }
        end = end.max(piece.span.to);
    }
    Ok(Some(beyond(&gaps, end)))
}

/// Where the log goes on if the stored log, of which these are the last pieces, ends at `end` behind a switch of segments:
/// at the next segment. `None` if it ends otherwise, or that can't be told.
fn behind_switch(
    log: &LogStore,
    before: Option<&[Piece]>,
    end: LogOffset,
) -> Result<Option<LogOffset>, RepoError> {
    let start = log.segment_start(end);
    let within = before.unwrap_or_default().iter().rev().take_while(|piece| piece.span.to > start);
    for piece in within.filter(|piece| piece.has_digest && start < end) {
        let facts = match log.digest(piece) {
            Ok(digest) => PieceFacts::from(&Digest { span: piece.span, ..digest }),
            // Then it is as if nobody knew.
            Err(error) if error.is_missing() || error.is_damaged() || error.code == code::REPLACED => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        if facts.last_record.is_some() {
            return Ok(facts.switched.map(|_| start.plus(log.segment_size())));
        }
    }
    Ok(None)
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use everpoint_core::{LogEvent, RecordSpan, Verdict};
    use everpoint_engine::fake::FakeEngine;
    use everpoint_store::MemoryStore;

    use super::*;
    use crate::testing::{SEGMENT, SYSTEM, context, log, stored_log};

    /// Stores a tail whose last record ends there, a switch of segments or not.
    fn tail(store: &LogStore, from: u64, to: u64, record_end: Option<u64>, switch: bool) {
        let span = Span { from: LogOffset(from), to: LogOffset(to) };
        let bytes = vec![1; usize::try_from(to - from).unwrap()];
        let record = record_end.map(|end| RecordSpan { start: LogOffset(end - 24), end: LogOffset(end) });
        let digest = Digest {
            system: SYSTEM,
            timeline: 1,
            log_format: 1,
            span,
            content_hash: *blake3::hash(&bytes).as_bytes(),
            previous_hash: None,
            verdict: Verdict::Intact,
            first_record: record.map(|record| record.start),
            last_record: record,
            first_previous: None,
            head_unknown: false,
            covered_until: None,
            records: 1,
            events: record
                .filter(|_| switch)
                .map(|record| LogEvent::SegmentSwitch { record })
                .into_iter()
                .collect(),
        };
        store.put_tail(&digest, &bytes).unwrap();
    }

    #[test]
    fn nothing_is_missing_behind_a_switch_of_segments() {
        for switch in [true, false] {
            let memory = MemoryStore::new();
            let made = context(Arc::new(memory.clone()), &Arc::new(FakeEngine::new(log(0))));
            made.cluster.identity_for(SYSTEM, 150_000, SEGMENT, false).unwrap();
            let store = stored_log(&memory, 1, &[]);
            let at = |segment: u64, into: u64| segment * SEGMENT + into;
            tail(&store, at(1, 0), at(1, 1000), Some(at(1, 996)), switch);
            // Padding only.
            tail(&store, at(1, 1000), at(1, 2000), None, false);
            let lost = Span { from: LogOffset(at(1, 2000)), to: LogOffset(at(2, 0)) };
            assert_eq!(resume_position(&store).unwrap(), Some(lost.from), "the server may still have it");
            assert_eq!(missing(&store, lost).unwrap().is_empty(), switch);
            let more = missing(&store, Span { from: lost.from, to: LogOffset(at(3, 0)) }).unwrap();
            let begins = if switch { lost.to } else { lost.from };
            assert_eq!(more, [Span { from: begins, to: LogOffset(at(3, 0)) }]);
            tail(&store, at(2, 0), at(2, 500), Some(at(2, 500)), false);
            let end = if switch { LogOffset(at(2, 500)) } else { lost.from };
            assert_eq!(contiguous_end(&store, LogOffset(at(1, 0))).unwrap(), end);
            assert_eq!(resume_position(&store).unwrap(), Some(end));
        }
    }
}
