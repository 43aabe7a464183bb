//! The stored log of a branch, in brief.

use everpoint_core::{
    BranchFacts, BranchId, Digest, HistoryEntry, KnownGap, LogOffset, Micros, PieceFacts, Span, parent_branch,
};
use everpoint_format::identity::Identity;
use everpoint_repo::{LogStore, Piece, PieceKind, RepoError, code};

use crate::{AppError, ClusterContext, text};

/// How often a branch is read anew when a capture replaces tails meanwhile.
const ATTEMPTS: usize = 5;

/// Reads the branches of an identity.
///
/// # Errors
/// If the repository can't be read.
pub(super) fn load_branches(
    context: &ClusterContext,
    number: u32,
    identity: &Identity,
) -> Result<Vec<BranchFacts>, AppError> {
    let mut histories: Vec<(BranchId, Vec<HistoryEntry>)> = Vec::new();
    for id in context.cluster.branches(number)? {
        let store = context.cluster.log(number, id.clone(), identity.segment_size);
        histories.push((id, history(context, &store)?));
    }
    let known: Vec<(&BranchId, &[HistoryEntry])> =
        histories.iter().map(|(id, steps)| (id, steps.as_slice())).collect();
    let mut branches = Vec::new();
    for (id, steps) in &histories {
        let store = context.cluster.log(number, id.clone(), identity.segment_size);
        let stored = load_branch(&store)?;
        branches.push(BranchFacts {
            identity: number,
            id: id.clone(),
            timeline: id.timeline(),
            segment_size: identity.segment_size,
            parent: parent_branch(steps, known.iter().copied()),
            pieces: stored.pieces,
            covered: stored.covered,
            gaps: stored.gaps,
            expired: stored.expired,
        });
    }
    Ok(branches)
}

/// The steps of a branch's history. One that can't be read leaves its branch without a past, and the others as they are.
fn history(context: &ClusterContext, store: &LogStore) -> Result<Vec<HistoryEntry>, AppError> {
    let read = match store.history() {
        Ok(None) => return Ok(Vec::new()),
        Ok(Some(bytes)) => context.engine.history(&bytes).map_err(AppError::from),
        Err(error) if error.is_damaged() => Err(error.into()),
        Err(error) => return Err(error.into()),
    };
    Ok(read.unwrap_or_else(|error| {
        tracing::warn!(%error, branch = %store.branch(), "where a branch comes from can't be read");
        Vec::new()
    }))
}

/// What is stored of a branch.
struct Stored {
    pieces: Vec<PieceFacts>,
    covered: Option<(LogOffset, Micros)>,
    gaps: Vec<KnownGap>,
    expired: Option<LogOffset>,
}

fn load_branch(store: &LogStore) -> Result<Stored, AppError> {
    let mut attempt = 1;
    loop {
        match load_branch_once(store) {
            // A tail became part of a segment between the listing and the reading.
            Err(error) if error.code == code::REPLACED && attempt < ATTEMPTS => attempt += 1,
            result => return Ok(result?),
        }
    }
}

/// A piece whose digest can't be read is no part of the log: it leaves a gap that says why.
fn load_branch_once(store: &LogStore) -> Result<Stored, RepoError> {
    // Read first: by the time when the pieces are listed, what it speaks of is among them.
    let covered = covered(store)?;
    let known = store.gaps()?.into_iter();
    let mut gaps: Vec<KnownGap> = known.map(|(span, gap)| KnownGap { span, reason: gap.reason }).collect();
    let mut pieces = Vec::new();
    let mut stored = store.readable_between(LogOffset(0), LogOffset(u64::MAX))?;
    // At the end it is being stored, or its process died: nothing of it was promised to anybody.
    stored.pop_if(|last| !last.has_digest);
    for piece in stored {
        match store.digest(&piece) {
            Ok(digest) => pieces.push(PieceFacts::from(&Digest { span: piece.span, ..digest })),
            Err(error) if error.is_missing() || error.is_damaged() => {
                tracing::warn!(%error, "a part of the log can't be used");
                gaps.push(KnownGap { span: piece.span, reason: unusable(&piece, &error) });
            }
            Err(error) => return Err(error),
        }
    }
    let end = pieces.iter().map(|piece| piece.span.to).max();
    if let (Some((to, _)), Some(from)) = (covered, end)
        && from < to
    {
        gaps.push(KnownGap { span: Span { from, to }, reason: "it was stored once, and is gone".to_owned() });
    }
    // Read last: what was let go while the pieces were listed lies before it.
    Ok(Stored { pieces, covered, gaps, expired: store.expired()? })
}

fn unusable(piece: &Piece, error: &RepoError) -> String {
    if error.is_missing() && piece.kind == PieceKind::Segment {
        return format!("the segment from {} is stored, but its digest is not", text::lsn(piece.stored.from));
    }
    format!("what is stored can't be used: {error}")
}

/// Until when nothing more was committed; not knowing it only makes windows end with the last commit.
fn covered(store: &LogStore) -> Result<Option<(LogOffset, Micros)>, RepoError> {
    match store.covered() {
        Err(error) if error.is_damaged() => {
            tracing::warn!(%error, "until when the log is covered is not known");
            Ok(None)
        }
        result => result,
    }
}
