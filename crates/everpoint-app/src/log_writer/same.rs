//! Whether a server goes on with what is stored of its log, asked without storing anything.

use everpoint_core::{LogFacts, LogKeeping, LogOffset, Span};
use everpoint_engine::{EngineError, ServerIdentity};
use everpoint_repo::{LogStore, RepoError};

use super::diverged;
use super::recent::Recent;
use crate::captured::Captured;
use crate::lineage::branch_id;
use crate::{ClusterContext, text};

/// Less than this says too little: what comes before it is compared, too.
const ENOUGH: u64 = 64 << 10;

/// The stored log goes on where the server of this branch never was. `captured` was looked up before the server was asked.
pub(crate) fn ends_before(captured: &Captured, server: &ServerIdentity) -> Option<EngineError> {
    let same = captured.branch == branch_id(server.timeline, &server.history);
    (same && !server.in_recovery && server.position < captured.position).then(|| {
        let message =
            format!("the server's own log ends at {}, before what is stored", text::lsn(server.position));
        diverged("compare", captured.timeline, captured.position, &message)
    })
}

/// The server has gone on beside what is stored: it was set back, or a copy has stored its log. `None`: it has not, or that
/// can't be told.
pub(crate) fn beside(
    context: &ClusterContext,
    log: &LogFacts,
    keeping: Option<&LogKeeping>,
) -> Option<EngineError> {
    // Again: what was captured since it was asked before is no other log.
    let server = context.engine.identify().ok()?;
    let captured = Captured::of(log, Some(&server))?;
    let shorter = ends_before(&captured, &server);
    if shorter.is_some()
        || server.in_recovery
        || captured.branch != branch_id(server.timeline, &server.history)
    {
        return shorter;
    }
    let identities = context.cluster.identities().ok()?;
    let system = server.system.to_string();
    let (identity, known) =
        identities.into_iter().rev().find(|(_, known)| known.system_identifier == system)?;
    let store = context.cluster.log(identity, captured.branch.clone(), known.segment_size);
    let has = |from| keeping.is_some_and(|keeping| keeping.has(from, server.position, server.segment_size));
    let stored = Stored::read(&store, captured.position);
    let stored = stored.inspect_err(|error| tracing::debug!(%error, "the log can't be compared")).ok()??;
    let span = stored.span(store.segment_start(stored.position), has)?;
    let again = context.engine.read_log(captured.timeline, span)?;
    let other = !stored.recent.is_same(stored.position, span.from, &again);
    other.then(|| {
        diverged(
            "compare",
            captured.timeline,
            span.from,
            "the server has other bytes there than those that are stored",
        )
    })
}

/// The end of what is stored of a branch.
struct Stored {
    recent: Recent,
    position: LogOffset,
}

impl Stored {
    fn read(log: &LogStore, end: LogOffset) -> Result<Option<Self>, RepoError> {
        let start = log.segment_start(LogOffset(end.0.saturating_sub(1)));
        let Some((bytes, position)) = log.read_stored(start, 1)? else { return Ok(None) };
        let mut recent = Recent::default();
        let before = start.0.checked_sub(log.segment_size()).map(LogOffset);
        if let Some(before) = before.filter(|_| (bytes.len() as u64) < ENOUGH)
            && log.segment_hash(before)?.is_some()
        {
            log.read_segment(before, &mut |bytes| recent.push(bytes))?;
        }
        recent.push(&bytes);
        Ok(Some(Self { recent, position }))
    }

    /// What of it the server is asked for; `None`: nothing of it that it has for certain, or that says anything.
    fn span(&self, segment: LogOffset, has: impl Fn(LogOffset) -> bool) -> Option<Span> {
        let begin = LogOffset(self.position.0.saturating_sub(self.recent.known()));
        let to = begin.plus(self.recent.real());
        let from = [begin, begin.max(segment)].into_iter().find(|from| *from < to && has(*from))?;
        Some(Span { from, to })
    }
}
