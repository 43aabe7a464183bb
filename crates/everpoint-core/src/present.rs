//! Whether what production is now can be brought back.

use crate::continuity::continuity;
use crate::facts::{BackupFacts, BranchFacts, LogFacts};
use crate::path::path;
use crate::position::Span;
use crate::production::{Production, current_identity, production};
use crate::window::usable;

/// What leads to the newest state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Present<'a> {
    /// The newest backup from which the log leads to its end.
    From(&'a BackupFacts),
    /// No backup does, in words: one is needed now, however young the others are.
    Lost(String),
    /// Nothing tells what production is.
    Unknown,
}

/// Looks for the newest backup from which the stored log leads to its end on the branch that production is on. Backups of
/// another system, of a branch that was left, or before a gap are of the past only.
#[must_use]
pub fn present<'a>(log: &LogFacts, backups: &'a [BackupFacts]) -> Present<'a> {
    let Some(identity) = current_identity(log) else { return Present::Unknown };
    match production(log, identity) {
        Production::On(leaf) => on(log, leaf, backups),
        // They have to lead to the same.
        Production::Either(leaves) => {
            let mut all = leaves.into_iter().map(|leaf| on(log, leaf, backups));
            let first = all.next().unwrap_or(Present::Unknown);
            if all.all(|other| other == first) { first } else { Present::Unknown }
        }
        Production::Nowhere if backups.iter().any(|backup| backup.identity != identity) => {
            Present::Lost("of the system that production is now no log is stored yet".to_owned())
        }
        Production::Nowhere => Present::Unknown,
    }
}

fn on<'a>(log: &LogFacts, leaf: &BranchFacts, backups: &'a [BackupFacts]) -> Present<'a> {
    let path = path(log, leaf);
    let usable = usable(&path, backups, &[]);
    let found = continuity(&path);
    let Some(last) = found.runs.last() else {
        return Present::Lost("no log of what production is now is stored".to_owned());
    };
    if let Some(reason) = &last.ended_by {
        return Present::Lost(format!("the newest log can't be replayed: {reason}, at {}", last.span.to));
    }
    let leads = |backup: &&&BackupFacts| last.holds(Span { from: backup.start, to: backup.stop });
    if let Some(newest) = usable.iter().rfind(leads) {
        return Present::From(newest);
    }
    let broken = found.breaks.last().map(|gap| format!(": {}, at {}", gap.reason, gap.span.from));
    Present::Lost(match (usable.last(), broken) {
        (Some(newest), Some(broken)) => {
            format!("no log leads from the newest backup, {}, to it{broken}", newest.label)
        }
        (Some(newest), None) => format!("no log leads from the newest backup, {}, to it", newest.label),
        (None, _) if backups.iter().any(|backup| backup.identity != leaf.identity) => {
            "there is no backup of the system that production is now".to_owned()
        }
        (None, _) => format!("there is no backup of timeline {}, or of what it goes on from", leaf.timeline),
    })
}
