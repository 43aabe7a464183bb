//! Which log stays.

use super::keep::{self, Chosen};
use super::{BranchLog, ExpireFacts, LogUnit};
use crate::facts::{BackupFacts, BranchFacts};
use crate::path::{PathStep, path};
use crate::position::{LogOffset, Micros, Span};
use crate::window::Window;

const END: LogOffset = LogOffset(u64::MAX);

/// What stays of a branch, while it is found out.
struct Wanted<'a> {
    branch: &'a BranchFacts,
    /// From the earliest of them on all of it is wanted.
    open: Vec<LogOffset>,
    closed: Vec<Span>,
}

/// Decides for each branch. `good` are sorted by when they ended.
pub(super) fn keep(
    facts: &ExpireFacts<'_>,
    good: &[&BackupFacts],
    chosen: &Chosen,
    windows: &[Window],
    window_from: Micros,
) -> Vec<BranchLog> {
    let mut all: Vec<Wanted<'_>> = facts
        .log
        .branches
        .iter()
        .map(|branch| Wanted { branch, open: Vec::new(), closed: Vec::new() })
        .collect();
    // Without a good backup nothing is known to be superfluous.
    let Some(newest) = good.last() else {
        all.iter_mut().for_each(|wanted| wanted.open.push(LogOffset(0)));
        return all.into_iter().map(|wanted| wanted.settle(facts.units)).collect();
    };
    for window in windows.iter().filter(|it| keep::is_wanted(it, Some(&newest.label), window_from)) {
        if let Some(base) = keep::base(window, good, window_from)
            && let Some(leaf) = facts.log.branch(window.identity, &window.branch)
        {
            want(&mut all, &path(facts.log, leaf), Span { from: base.start, to: END });
        }
    }
    for backup in facts.backups.iter().filter(|backup| chosen.keeps(&backup.label)) {
        if let Some(leaf) = facts.log.branch(backup.identity, &backup.branch) {
            want(&mut all, &path(facts.log, leaf), Span { from: backup.start, to: backup.stop });
        }
    }
    // What is young stays even where no backup leads to it yet: one may be running, or be taken next.
    let young = window_from.min(newest.started_at);
    all.iter_mut().for_each(|wanted| wanted.want_since(young));
    for need in facts.needs {
        let wanted =
            all.iter_mut().find(|it| it.branch.identity == need.identity && it.branch.id == need.branch);
        if let Some(wanted) = wanted {
            wanted.open.push(need.from);
        }
    }
    all.into_iter().map(|wanted| wanted.settle(facts.units)).collect()
}

/// Notes what lies on a path. The segment of a fork is wanted of both branches.
fn want(all: &mut [Wanted<'_>], path: &[PathStep<'_>], span: Span) {
    for step in path {
        let (from, to) = (span.from.max(step.span.from), span.to.min(step.fork));
        let wanted = all.iter_mut().find(|it| std::ptr::eq(it.branch, step.branch));
        let Some(wanted) = wanted.filter(|_| from < to) else {
            continue;
        };
        if to == END {
            wanted.open.push(from);
        } else {
            wanted.closed.push(Span { from, to });
        }
    }
}

impl Wanted<'_> {
    /// All pieces that tell of this moment or a later one. A piece that tells of none is as old as the next that does.
    fn want_since(&mut self, since: Micros) {
        let mut old = false;
        for piece in self.branch.pieces.iter().rev() {
            old = piece.latest().map_or(old, |at| at < since);
            if !old {
                self.closed.push(piece.span);
            }
        }
    }

    fn settle(self, units: &[LogUnit]) -> BranchLog {
        let mut spans = self.closed;
        spans.extend(self.open.into_iter().min().map(|from| Span { from, to: END }));
        let needed = |unit: &&LogUnit| {
            let ours = unit.identity == self.branch.identity && unit.branch == self.branch.id;
            ours && spans.iter().any(|span| span.meets(unit.span))
        };
        let whole: Vec<Span> = units.iter().filter(needed).map(|unit| unit.span).collect();
        spans.extend(whole);
        spans.sort_unstable_by_key(|span| (span.from, span.to));
        let mut keep: Vec<Span> = Vec::new();
        for span in spans {
            match keep.last_mut() {
                Some(last) if span.from <= last.to => last.to = last.to.max(span.to),
                _ => keep.push(span),
            }
        }
        let (identity, branch) = (self.branch.identity, self.branch.id.clone());
        let mut log = BranchLog { identity, branch, keep, expired: None };
        let gone = self.branch.pieces.iter().filter(|piece| !log.keeps(piece.span));
        log.expired = gone.map(|piece| piece.span.to).max();
        log
    }
}
