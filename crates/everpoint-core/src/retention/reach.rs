//! Which positions of the log can be brought back.

use crate::continuity::continuity;
use crate::facts::{BackupFacts, LogFacts};
use crate::path::path;
use crate::position::{BranchId, LogOffset, Span};
use crate::window::usable;

/// Parts of the log to which a restore can go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reach(Vec<(u32, BranchId, Span)>);

impl Reach {
    /// Whether a record that begins there can be restored to.
    #[must_use]
    pub fn holds(&self, identity: u32, branch: &BranchId, at: LogOffset) -> bool {
        let within = |span: &Span| span.from <= at && at < span.to;
        self.0.iter().any(|(number, id, span)| *number == identity && id == branch && within(span))
    }
}

/// What can be brought back with these backups and this log.
#[must_use]
pub fn reach(log: &LogFacts, backups: &[BackupFacts]) -> Reach {
    let mut found = Vec::new();
    for leaf in &log.branches {
        let path = path(log, leaf);
        let usable = usable(&path, backups, &[]);
        for run in continuity(&path).runs {
            let held = usable.iter().find(|it| run.holds(Span { from: it.start, to: it.stop }));
            let Some(first) = held else { continue };
            for piece in &run.pieces {
                // The record that ends the backup begins just before its stop.
                let from = piece.from.max(LogOffset(first.stop.0.saturating_sub(1)));
                if from < piece.to {
                    found.push((leaf.identity, piece.branch.id.clone(), Span { from, to: piece.to }));
                }
            }
        }
    }
    Reach(found)
}
