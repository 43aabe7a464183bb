//! The path from the root of the log to a branch, and the pieces that lie on it.

use crate::facts::{BackupFacts, BranchFacts, LogFacts, PieceFacts};
use crate::position::{LogOffset, Span};

/// The part of a path that is taken from one branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathStep<'a> {
    /// The branch.
    pub branch: &'a BranchFacts,
    /// What is taken from it. A segment that holds the fork is taken from the younger branch where that has it: it
    /// holds the same bytes before the fork. The last step ends at the end of the number range.
    pub span: Span,
    /// Where the path forks off it: a backup of this branch must have stopped at or before this.
    pub fork: LogOffset,
}

/// A piece on a path, or the part of it that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathPiece<'a> {
    /// Its branch.
    pub branch: &'a BranchFacts,
    /// The piece.
    pub piece: &'a PieceFacts,
    /// First position of it that counts.
    pub from: LogOffset,
    /// First position that no longer counts: where the path forks off, or where the piece can't be replayed further.
    pub to: LogOffset,
}

impl PathPiece<'_> {
    /// Whether the whole end of the piece counts, so that its facts about the end hold.
    #[must_use]
    pub fn is_whole_to_the_end(&self) -> bool {
        self.to == self.piece.span.to
    }

    /// Whether events of the piece may name this transaction.
    pub(crate) fn may_name(&self, xid: u64) -> bool {
        let range = self.piece.xids;
        self.piece.head_unknown || range.is_some_and(|(low, high)| low <= xid && xid <= high)
    }
}

/// The path from the root to `leaf`, the root first.
#[must_use]
pub fn path<'a>(log: &'a LogFacts, leaf: &'a BranchFacts) -> Vec<PathStep<'a>> {
    let end = LogOffset(u64::MAX);
    let (mut branch, mut to, mut fork) = (leaf, end, end);
    let mut steps = Vec::new();
    // A history that names its own descendant as its parent would go on for ever.
    for _ in 0..=log.branches.len() {
        let from = first_position(branch).min(to);
        steps.push(PathStep { branch, span: Span { from, to }, fork });
        let parent = branch.parent.as_ref();
        let Some((parent, at)) =
            parent.and_then(|(id, at)| log.branch(branch.identity, id).map(|parent| (parent, *at)))
        else {
            break;
        };
        (branch, to, fork) = (parent, from, at.min(fork));
    }
    steps.reverse();
    steps
}

/// Where a branch takes over from its parent: the start of the segment that holds the fork, if it has that segment,
/// else the fork.
fn first_position(branch: &BranchFacts) -> LogOffset {
    let Some((_, fork)) = branch.parent else {
        return LogOffset(0);
    };
    let segment = LogOffset(fork.0 - fork.0.checked_rem(branch.segment_size).unwrap_or_default());
    let has_segment = branch.pieces.iter().any(|piece| piece.span.from == segment);
    if has_segment { segment } else { fork }
}

/// The pieces on a path, in order.
#[must_use]
pub fn path_pieces<'a>(path: &[PathStep<'a>]) -> Vec<PathPiece<'a>> {
    let of_step = |step: &PathStep<'a>| {
        let (branch, span) = (step.branch, step.span);
        branch
            .pieces
            .iter()
            .filter(move |piece| piece.span.from >= span.from && piece.span.from < span.to)
            .map(move |piece| PathPiece {
                branch,
                piece,
                from: piece.span.from,
                to: piece.span.to.min(span.to),
            })
    };
    path.iter().flat_map(of_step).collect()
}

/// Whether a backup lies on the path: it was taken on a branch of it and stopped before the path forks off. Rows of
/// an abandoned branch would come back otherwise.
#[must_use]
pub fn is_on_path(path: &[PathStep<'_>], backup: &BackupFacts) -> bool {
    path.iter().any(|step| {
        step.branch.identity == backup.identity && step.branch.id == backup.branch && backup.stop <= step.fork
    })
}
