//! Recovery windows: every moment that can be brought back.

use crate::continuity::{Run, continuity};
use crate::digest::Verdict;
use crate::facts::{BackupFacts, BackupStatus, LogFacts};
use crate::known::known_until;
use crate::path::{PathStep, is_on_path, path};
use crate::position::{BranchId, LogOffset, Micros, Span};

/// A stretch of time every second of which can be brought back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Identity of the cluster.
    pub identity: u32,
    /// The branch to follow.
    pub branch: BranchId,
    /// Its timeline number.
    pub timeline: u32,
    /// First moment: the earliest backup had ended.
    pub from: Micros,
    /// Last moment until which the log is known to hold everything. Where a clock was put back, at most the moment before
    /// a backup behind this log ended: later moments are looked for behind that one. Never before `from`.
    pub to: Micros,
    /// Stop position of the earliest backup.
    pub from_position: LogOffset,
    /// End of the last whole record.
    pub to_position: LogOffset,
    /// Label of the earliest backup.
    pub backup: String,
    /// Labels of all backups in it, the earliest first.
    pub backups: Vec<String>,
}

/// The windows of all branches, sorted by identity, branch and position. A window is told of the branch on which it
/// ends; it may begin on an older one.
#[must_use]
pub fn windows(log: &LogFacts, backups: &[BackupFacts]) -> Vec<Window> {
    let mut windows: Vec<Window> = Vec::new();
    for leaf in &log.branches {
        let path = path(log, leaf);
        let usable = usable(&path, backups, &[]);
        for run in continuity(&path).runs {
            if run.last_piece().is_some_and(|last| last.branch == leaf) {
                windows.extend(window(&path, &run, &usable));
            }
        }
    }
    windows.sort_by(|a, b| {
        (a.identity, &a.branch, a.from_position).cmp(&(b.identity, &b.branch, b.from_position))
    });
    windows
}

/// The backups on the path that can be used, the earliest first.
pub(crate) fn usable<'a>(
    path: &[PathStep<'_>],
    backups: &'a [BackupFacts],
    skip: &[String],
) -> Vec<&'a BackupFacts> {
    let mut usable: Vec<&BackupFacts> = backups
        .iter()
        .filter(|backup| backup.status == BackupStatus::Ok && !skip.contains(&backup.label))
        .filter(|backup| is_on_path(path, backup))
        .collect();
    usable.sort_by_key(|backup| (backup.stop, backup.start));
    usable
}

/// The window that a run of the path makes with the backups whose log it holds; `None` if there is no such backup.
pub(crate) fn window(path: &[PathStep<'_>], run: &Run<'_>, usable: &[&BackupFacts]) -> Option<Window> {
    let held = |backup: &&&BackupFacts| run.holds(Span { from: backup.start, to: backup.stop });
    let first = usable.iter().find(held)?;
    let leaf = path.last()?.branch;
    let known = known_until(run, path, usable).latest().unwrap_or(first.stopped_at);
    let to = others_from(run, usable).map_or(known, |other| known.min(Micros(other.0.saturating_sub(1))));
    Some(Window {
        identity: leaf.identity,
        branch: leaf.id.clone(),
        timeline: leaf.timeline,
        from: first.stopped_at,
        to: to.max(first.stopped_at),
        from_position: first.stop,
        to_position: last_position(run).max(first.stop),
        backup: first.label.clone(),
        backups: usable.iter().filter(held).map(|backup| backup.label.clone()).collect(),
    })
}

/// From which moment on a backup behind the run is the newest: moments from there on do not lead into the run.
pub(crate) fn others_from(run: &Run<'_>, usable: &[&BackupFacts]) -> Option<Micros> {
    let behind = usable.iter().filter(|backup| backup.stop > run.span.to);
    behind.map(|backup| backup.stopped_at).min()
}

/// The end of what can be replayed of the run: of its last whole record, as far as the facts tell.
fn last_position(run: &Run<'_>) -> LogOffset {
    let cut = run.last_piece().is_some_and(|last| !last.is_whole_to_the_end());
    let broken_inside = run
        .last_piece()
        .is_some_and(|last| matches!(last.piece.verdict, Verdict::Broken { at, .. } if at == last.to));
    if cut && !broken_inside {
        // A fork and a record that ends a run lie between two records.
        return run.span.to;
    }
    let ends = run.pieces.iter().rev().filter_map(|piece| piece.piece.last_record);
    ends.map(|record| record.end).find(|end| *end <= run.span.to).unwrap_or(run.span.from)
}
