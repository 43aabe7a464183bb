//! A branch that begins: whether what is stored of the one from which it forks off is what its server had.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use everpoint_core::join::{Compared, NOTHING_BEFORE, goes_on};
use everpoint_core::{HistoryEntry, LogOffset, Span, followed};
use everpoint_engine::{Engine, EngineError, ReadLog};
use everpoint_repo::{LogStore, Piece, RepoError, code};

use super::LogWriter;
use super::recent::Recent;
use crate::archive_get::{self, Choice};
use crate::lineage::{Before, Lineage, branch_id};
use crate::log_file::SegmentName;
use crate::{AppError, ClusterContext};

/// So many bytes before a fork are compared, if there are so many.
const WINDOW: u64 = 64 << 10;
/// The first page of a segment.
const PAGE: usize = 8192;

impl LogWriter {
    /// Compares, and remembers for the opening of the branch what came out.
    pub(super) fn forks_off(
        &mut self,
        timeline: u32,
        history: &[u8],
        from: LogOffset,
        read: &mut ReadLog<'_>,
    ) -> Result<bool, AppError> {
        self.apart = None;
        let log = self.lineage().log(branch_id(timeline, history));
        // Only with a segment a branch begins.
        if history.is_empty() || log.segment_start(from) != from {
            return Ok(true);
        }
        let joined = is_joined(&self.context, &self.lineage(), &log, history, from, read)?;
        self.apart = (!joined).then(|| (log.branch().clone(), from));
        Ok(joined)
    }
}

/// Whether the branch with this history, of which the segment at `start` is to be stored, goes on from what is stored before.
/// `read` gives what its server has; `None`: it has that no longer.
///
/// # Errors
/// If one of the two can't be read.
pub(crate) fn is_joined(
    context: &ClusterContext,
    lineage: &Lineage<'_>,
    log: &LogStore,
    history: &[u8],
    start: LogOffset,
    read: &mut ReadLog<'_>,
) -> Result<bool, AppError> {
    if let Some(named) = named(log, start)? {
        return Ok(named != NOTHING_BEFORE);
    }
    let Some(before) = lineage.predecessor(log, history, start)? else {
        return Ok(true);
    };
    if before.log.branch() == log.branch() {
        return Ok(true);
    }
    let steps = followed(&lineage.engine.history(history)?);
    let Some(step) = steps.iter().find(|step| step.until >= start).cloned() else {
        return Ok(true);
    };
    let timeline = log.branch().timeline();
    let fork = Fork { context, lineage, history, timeline, before: &before, start, step, steps };
    Ok(goes_on(fork.before(read)?, fork.within(read)?))
}

/// What the first piece of a segment says of the one before; `None` if nothing of it is stored.
fn named(log: &LogStore, start: LogOffset) -> Result<Option<[u8; 32]>, AppError> {
    let pieces = log.pieces_between(start, start.plus(1))?;
    let Some(first) = pieces.iter().find(|piece| piece.has_digest && piece.span.from == start) else {
        return Ok(None);
    };
    Ok(named_by(log, first)?)
}

/// What a piece says of the one before; `None` if it can't be read, or another has taken its place.
pub(super) fn named_by(log: &LogStore, piece: &Piece) -> Result<Option<[u8; 32]>, RepoError> {
    match log.digest(piece) {
        Ok(digest) => Ok(digest.previous_hash),
        Err(error) if error.is_damaged() || error.is_missing() || error.code == code::REPLACED => Ok(None),
        Err(error) => Err(error),
    }
}

struct Fork<'a> {
    context: &'a ClusterContext,
    lineage: &'a Lineage<'a>,
    history: &'a [u8],
    /// The timeline that begins.
    timeline: u32,
    /// The whole segment before, as it is stored.
    before: &'a Before,
    start: LogOffset,
    /// The timeline of what lies before `start`, and where it was left.
    step: HistoryEntry,
    /// All on the way.
    steps: Vec<HistoryEntry>,
}

impl Fork<'_> {
    /// Compares the end of the segment before.
    fn before(&self, read: &mut ReadLog<'_>) -> Result<Compared, AppError> {
        let mut recent = Recent::default();
        self.before.log.read_segment(self.before.start, &mut |bytes| recent.push(bytes))?;
        let span = Span { from: LogOffset(self.start.0.saturating_sub(recent.known())), to: self.start };
        let Some(theirs) = read(self.step.timeline, span)? else {
            return Ok(Compared::Nothing);
        };
        if recent.is_same(self.start, span.from, &theirs) {
            return Ok(Compared::Same(span.to.since(span.from)));
        }
        let given = self.given(&self.before.log, self.before.start)?;
        let into = given.len().saturating_sub(theirs.len());
        Ok(Compared::of(given.get(into..).unwrap_or_default(), &theirs))
    }

    /// Compares what of the segment in which the branch begins is still of those before it, with the youngest of which something
    /// of that is stored.
    fn within(&self, read: &mut ReadLog<'_>) -> Result<Compared, AppError> {
        for step in self.steps.iter().rev().filter(|step| step.until >= self.start) {
            let Some(branch) = self.lineage.ancestor(self.history, step.timeline)? else { continue };
            let log = self.lineage.log(branch);
            match self.within_of(&log, step.until, read)? {
                Compared::Nothing => {}
                // What is not joined itself joins nothing.
                Compared::Same(_) if named(&log, self.start)? == Some(NOTHING_BEFORE) => {
                    return Ok(Compared::Other);
                }
                found => return Ok(found),
            }
        }
        Ok(Compared::Nothing)
    }

    fn within_of(
        &self,
        log: &LogStore,
        until: LogOffset,
        read: &mut ReadLog<'_>,
    ) -> Result<Compared, AppError> {
        let (stored, end) = match log.read_stored(self.start, 1) {
            Ok(Some(stored)) => stored,
            Ok(None) => return Ok(Compared::Nothing),
            Err(error) if error.is_damaged() => return Ok(Compared::Nothing),
            Err(error) => return Err(error.into()),
        };
        let end = until.min(end);
        let from = LogOffset(end.0.saturating_sub(WINDOW)).max(self.start);
        if from >= end {
            return Ok(Compared::Nothing);
        }
        // The segment lies under the name of the youngest, which begins with a copy of the others'.
        let Some(theirs) = read(self.timeline, Span { from, to: end })? else {
            return Ok(Compared::Nothing);
        };
        let into = usize::try_from(from.since(self.start)).unwrap_or(usize::MAX);
        match Compared::of(stored.get(into..).unwrap_or_default(), &theirs) {
            Compared::Other => {
                Ok(Compared::of(self.given(log, self.start)?.get(into..).unwrap_or_default(), &theirs))
            }
            same => Ok(same),
        }
    }

    /// A segment as a restore hands it out: with records that name places of tablespaces rewritten.
    fn given(&self, log: &LogStore, start: LogOffset) -> Result<Vec<u8>, AppError> {
        let history = log.history()?.unwrap_or_default();
        let choice = Choice::of(*self.lineage, log.branch().clone(), history);
        Ok(archive_get::segment(self.context, &choice, log, start, true)?.unwrap_or_default())
    }
}

/// Reads from the segments in a directory the log of the way that leads to `timeline`, which has the segment at `start` and
/// what follows.
pub(crate) fn read_beside(
    engine: &dyn Engine,
    directory: &Path,
    segment_size: u64,
    (timeline, start): (u32, LogOffset),
    (of, span): (u32, Span),
) -> Result<Option<Vec<u8>>, EngineError> {
    let begin = LogOffset(span.from.0 - span.from.0.checked_rem(segment_size).unwrap_or_default());
    let name = SegmentName::at(if begin >= start { timeline } else { of }, begin, segment_size).to_string();
    let path = directory.join(&name);
    let failed = |error: std::io::Error| {
        let object = path.display().to_string();
        EngineError::new("log.unreadable", "read", object, error.to_string())
    };
    let mut file = match File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed)?,
    };
    let mut page = vec![0; PAGE];
    if file.metadata().map_err(failed)?.len() != segment_size {
        return Ok(None);
    }
    file.read_exact(&mut page).map_err(failed)?;
    // One that is kept for later use is none of it.
    if engine.log_head(&page).ok().is_none_or(|head| head.start != begin || head.timeline > timeline) {
        return Ok(None);
    }
    file.seek(SeekFrom::Start(span.from.since(begin))).map_err(failed)?;
    let mut bytes = vec![0; usize::try_from(span.to.since(span.from)).unwrap_or_default()];
    file.read_exact(&mut bytes).map_err(failed)?;
    Ok(Some(bytes))
}

/// What is said of a branch that is not joined to what is stored.
pub(crate) fn not_joined(cluster: &str, timeline: u32, at: LogOffset) -> String {
    format!(
        "what is stored before {} is not what the server of timeline {timeline} had there (it was set back, or is a copy), or it \
         has no longer what would tell: from there on the log is stored by itself, and older backups do not reach it; take a \
         backup now: everpoint backup {cluster}",
        crate::text::lsn(at)
    )
}
