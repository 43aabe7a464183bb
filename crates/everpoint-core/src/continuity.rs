//! Where the log of a path holds together and where it does not.

use std::fmt;

use crate::digest::Verdict;
use crate::facts::{BranchFacts, LogFacts};
use crate::join::NOTHING_BEFORE;
use crate::path::{PathPiece, PathStep, path, path_pieces};
use crate::position::{BranchId, LogOffset, Span};

/// Why the log can't be replayed across a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BreakReason {
    /// Log is missing; why, if it is known.
    Hole(Option<String>),
    /// A piece begins before the one before it ends.
    Overlap,
    /// A piece does not follow the one before it: swapped, or of another server.
    Foreign(String),
    /// The log was reset (pg_resetwal): names go on, the log does not.
    Reset,
    /// A record or page is wrong.
    Broken(String),
    /// The server wrote too little for a replay (`wal_level=minimal`).
    Minimal,
}

impl fmt::Display for BreakReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hole(None) => f.write_str("hole: log is missing"),
            Self::Hole(Some(reason)) => write!(f, "hole: {reason}"),
            Self::Overlap => f.write_str("overlap: a part of the log begins before the one before it ends"),
            Self::Foreign(what) => write!(f, "swapped or foreign segment: {what}"),
            Self::Reset => f.write_str("reset: the log begins anew here (pg_resetwal)"),
            Self::Broken(what) => write!(f, "broken record: {what}"),
            Self::Minimal => f.write_str("wal_level minimal: too little was logged for a replay"),
        }
    }
}

/// A place that can't be replayed across.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Identity of the cluster.
    pub identity: u32,
    /// The branch on which it lies.
    pub branch: BranchId,
    /// What can't be replayed; empty where two pieces just don't fit.
    pub span: Span,
    /// Why.
    pub reason: BreakReason,
}

/// A stretch of a path that can be replayed from end to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run<'a> {
    /// Its pieces, in order; never empty.
    pub pieces: Vec<PathPiece<'a>>,
    /// Its first and last position. The last record may be incomplete.
    pub span: Span,
    /// Why it does not go on; `None` if nothing more is stored or known to be missing.
    pub ended_by: Option<BreakReason>,
}

impl<'a> Run<'a> {
    fn beginning_with(piece: PathPiece<'a>) -> Self {
        Self { pieces: vec![piece], span: Span { from: piece.from, to: piece.to }, ended_by: None }
    }

    /// Whether all bytes of `span` are in it.
    #[must_use]
    pub fn holds(&self, span: Span) -> bool {
        self.span.from <= span.from && span.to <= self.span.to
    }

    /// Its last piece.
    #[must_use]
    pub fn last_piece(&self) -> Option<&PathPiece<'a>> {
        self.pieces.last()
    }

    fn end_at(&mut self, to: LogOffset, reason: BreakReason) {
        self.span.to = to;
        if let Some(last) = self.pieces.last_mut() {
            last.to = last.to.min(to);
        }
        self.ended_by = Some(reason);
    }
}

/// Where a path holds together and where not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Continuity<'a> {
    /// The stretches that can be replayed, in order.
    pub runs: Vec<Run<'a>>,
    /// What lies between them, and after the last one.
    pub breaks: Vec<Gap>,
}

/// Looks where the log of a path holds together: each piece begins where the one before it ends, knows the hash of
/// the segment before, continues its records, and can be replayed.
#[must_use]
pub fn continuity<'a>(path: &[PathStep<'a>]) -> Continuity<'a> {
    let mut walk = Walk::default();
    path_pieces(path).into_iter().for_each(|piece| walk.piece(piece));
    walk.end(path)
}

/// The part of the path that was seen.
#[derive(Default)]
struct Walk<'a> {
    done: Continuity<'a>,
    run: Option<Run<'a>>,
    /// Start of the last whole record of the run.
    last_start: Option<LogOffset>,
    /// System identifier of the run; 0 if none of its pieces says.
    system: u64,
    /// End of the last whole record of the run, if that is a switch of segments.
    switched: Option<LogOffset>,
}

impl<'a> Walk<'a> {
    fn piece(&mut self, next: PathPiece<'a>) {
        match self.run.take() {
            // All of it is there already.
            Some(run) if next.to <= run.span.to && next.from < run.span.to => {
                self.run = Some(run);
                return;
            }
            Some(mut run) => match self.misfit(&run, &next) {
                None => {
                    run.span.to = next.to;
                    run.pieces.push(next);
                    self.run = Some(run);
                }
                Some(reason) => {
                    let end = run.span.to;
                    run.end_at(end, reason.clone());
                    self.done.runs.push(run);
                    let from = end.min(next.from);
                    self.note(next.branch, Span { from, to: next.from }, reason);
                    self.begin(next);
                }
            },
            None => self.begin(next),
        }
        self.last_start = next.piece.last_record.map(|it| it.start).or(self.last_start);
        if next.piece.last_record.is_some() || begins_segment(&next) {
            self.switched = next.piece.switched.filter(|end| *end <= next.to);
        }
        if next.piece.system != 0 {
            self.system = next.piece.system;
        }
        self.look_inside(next);
    }

    fn begin(&mut self, piece: PathPiece<'a>) {
        self.run = Some(Run::beginning_with(piece));
        self.last_start = None;
        self.system = 0;
        self.switched = None;
    }

    /// Ends the run at `gap` within its last piece.
    fn cut(&mut self, mut run: Run<'a>, gap: Span, branch: &BranchFacts, reason: BreakReason) {
        run.end_at(gap.from, reason.clone());
        self.done.runs.push(run);
        self.note(branch, gap, reason);
    }

    fn note(&mut self, branch: &BranchFacts, span: Span, reason: BreakReason) {
        self.done.breaks.push(Gap { identity: branch.identity, branch: branch.id.clone(), span, reason });
    }

    /// Why `next` does not continue the run.
    fn misfit(&self, run: &Run<'a>, next: &PathPiece<'a>) -> Option<BreakReason> {
        let last = run.last_piece()?;
        if next.from > run.span.to && !self.is_padding(run, next) {
            let hole = Span { from: run.span.to, to: next.from };
            return Some(BreakReason::Hole(known_reason(next.branch, hole)));
        }
        if next.from < run.span.to {
            return Some(BreakReason::Overlap);
        }
        if next.piece.first_previous == Some(LogOffset(0)) {
            return Some(BreakReason::Reset);
        }
        foreign(self.system, last, next).or_else(|| self.unlinked(last, next)).map(BreakReason::Foreign)
    }

    /// Whether nothing but the rest of a segment behind a switch lies between the run and `next`: no server reads that.
    fn is_padding(&self, run: &Run<'a>, next: &PathPiece<'a>) -> bool {
        let start = segment_start(next.branch, run.span.to);
        self.switched.is_some() && start < run.span.to && start.plus(next.branch.segment_size) == next.from
    }

    /// Whether the first record of `next` links to a record that is not the one before it.
    fn unlinked(&self, last: &PathPiece<'a>, next: &PathPiece<'a>) -> Option<String> {
        let (before, linked) = (self.last_start?, next.piece.first_previous?);
        // The record before it is the last whole one, or one that ends in `next`.
        let unfinished = match last.piece.verdict {
            Verdict::EndsAt { .. } if last.piece.head_unknown => return None,
            Verdict::EndsAt { at } => Some(at),
            _ => None,
        };
        let fits = linked == before || Some(linked) == unfinished || !last.is_whole_to_the_end();
        (!fits).then(|| {
            format!("its first record links to {linked}, but the record before it begins at {before}")
        })
    }

    /// Ends the run where the piece itself can't be replayed further.
    fn look_inside(&mut self, piece: PathPiece<'a>) {
        if let Some(minimal) = piece.piece.minimal.filter(|span| span.from < piece.to)
            && let Some(run) = self.run.take()
        {
            self.cut(run, minimal, piece.branch, BreakReason::Minimal);
            if minimal.to < piece.to {
                self.begin(PathPiece { from: minimal.to, ..piece });
                self.last_start = piece.piece.last_record.map(|it| it.start);
            }
        }
        if let Verdict::Broken { at, reason } = &piece.piece.verdict
            && *at < piece.to
            && let Some(run) = self.run.take()
        {
            let gap = Span { from: *at, to: piece.to };
            self.cut(run, gap, piece.branch, BreakReason::Broken(reason.clone()));
        }
    }

    /// What is known to be missing behind the last piece is a break too.
    fn end(mut self, path: &[PathStep<'a>]) -> Continuity<'a> {
        let leaf = path.last().map(|step| step.branch);
        if let Some(mut run) = self.run.take() {
            let end = run.span.to;
            let missing = leaf.and_then(|leaf| leaf.gaps.iter().find(|gap| gap.span.to > end));
            if let (Some(leaf), Some(gap)) = (leaf, missing) {
                let reason = BreakReason::Hole(Some(gap.reason.clone()));
                run.ended_by = Some(reason.clone());
                let from = gap.span.from.max(end);
                self.note(leaf, Span { from, to: gap.span.to }, reason);
            }
            self.done.runs.push(run);
        }
        self.done
    }
}

/// The recorded reason of a hole, if there is one.
fn known_reason(branch: &BranchFacts, hole: Span) -> Option<String> {
    branch.gaps.iter().find(|gap| gap.span.meets(hole)).map(|gap| gap.reason.clone())
}

/// What shows that `next` was not written after `last` by the same server.
fn foreign(system: u64, last: &PathPiece<'_>, next: &PathPiece<'_>) -> Option<String> {
    let (piece, branch) = (next.piece, next.branch);
    if piece.system != 0 && system != 0 && piece.system != system {
        return Some(format!("it is of system {}, the log before it of {system}", piece.system));
    }
    let after_fork = branch
        .parent
        .as_ref()
        .is_none_or(|(_, fork)| piece.span.from >= segment_start(branch, *fork).plus(branch.segment_size));
    let wrong_timeline =
        if after_fork { piece.timeline != branch.timeline } else { piece.timeline > branch.timeline };
    if piece.timeline != 0 && wrong_timeline {
        return Some(format!("it names timeline {}, not {}", piece.timeline, branch.timeline));
    }
    if begins_segment(next) && piece.previous_hash == Some(NOTHING_BEFORE) {
        return Some("its server had other log before it than what is stored, or no longer any".to_owned());
    }
    let expected = if is_segment(last) && begins_segment(next) {
        Some(last.piece.content_hash)
    } else if !begins_segment(next) && last.branch.id == branch.id {
        // Tails of one segment all name the segment before it.
        last.piece.previous_hash
    } else {
        None
    };
    match (expected, piece.previous_hash) {
        (Some(expected), Some(named)) if expected != named => {
            Some("the log before it is not the one that its digest names".to_owned())
        }
        _ => None,
    }
}

fn segment_start(branch: &BranchFacts, position: LogOffset) -> LogOffset {
    LogOffset(position.0 - position.0.checked_rem(branch.segment_size).unwrap_or_default())
}

fn begins_segment(piece: &PathPiece<'_>) -> bool {
    segment_start(piece.branch, piece.from) == piece.from
}

/// Whether it is a whole segment.
fn is_segment(piece: &PathPiece<'_>) -> bool {
    let span = piece.piece.span;
    segment_start(piece.branch, span.from) == span.from
        && span.to.since(span.from) == piece.branch.segment_size
        && piece.is_whole_to_the_end()
}

/// Whether retention made the hole: what lies before the last piece that it let go is kept only in parts.
fn is_by_design(gap: &Gap, path: &[PathStep<'_>]) -> bool {
    let until = path.iter().filter_map(|step| step.branch.expired).max();
    matches!(gap.reason, BreakReason::Hole(_)) && until.is_some_and(|until| gap.span.to <= until)
}

/// Where the log of each branch can't be replayed, sorted by identity, branch and position. What lies before a fork is
/// told of the branch on which it lies. Holes that retention made are none.
#[must_use]
pub fn gaps(log: &LogFacts) -> Vec<Gap> {
    let mut gaps: Vec<Gap> = Vec::new();
    for leaf in &log.branches {
        let before = gaps.len();
        let path = path(log, leaf);
        let breaks = continuity(&path).breaks.into_iter();
        gaps.extend(breaks.filter(|gap| gap.branch == leaf.id && !is_by_design(gap, &path)));
        if leaf.pieces.is_empty() && gaps.len() == before {
            gaps.extend(leaf.gaps.iter().map(|gap| Gap {
                identity: leaf.identity,
                branch: leaf.id.clone(),
                span: gap.span,
                reason: BreakReason::Hole(Some(gap.reason.clone())),
            }));
        }
    }
    gaps.sort_by(|a, b| {
        (a.identity, &a.branch, a.span.from, a.span.to).cmp(&(b.identity, &b.branch, b.span.from, b.span.to))
    });
    gaps.dedup();
    gaps
}
