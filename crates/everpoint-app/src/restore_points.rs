//! The named restore points that the log holds.

use everpoint_core::{BranchId, LogEvent, LogOffset, LogSource, Micros};
use serde::Serialize;

use crate::facts::{Facts, source};
use crate::{AppError, ClusterContext, text};

/// A named restore point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedPoint {
    /// Its name; several may share one.
    pub name: String,
    /// When it was made.
    pub time: Micros,
    /// Identity of its branch.
    pub identity: u32,
    /// The branch on which it lies.
    pub branch: BranchId,
    /// Where its record begins.
    pub at: LogOffset,
}

/// The same for reports and `restore-points.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RestorePointLine {
    /// Name of the cluster.
    pub cluster: String,
    /// Its name.
    pub name: String,
    /// When it was made; RFC 3339.
    pub time: String,
    /// Where it stands in the log.
    pub lsn: String,
    /// Timeline.
    pub timeline: u32,
}

impl NamedPoint {
    /// As it is reported.
    #[must_use]
    pub fn line(&self, cluster: &str) -> RestorePointLine {
        RestorePointLine {
            cluster: cluster.to_owned(),
            name: self.name.clone(),
            time: text::time(self.time),
            lsn: text::lsn(self.at),
            timeline: self.branch.timeline(),
        }
    }
}

/// All of them, by time. Only digests that say that they hold one are read.
///
/// # Errors
/// If a digest can't be read.
pub fn find(context: &ClusterContext, facts: &Facts) -> Result<Vec<NamedPoint>, AppError> {
    let (mut source, mut found) = (source(context), Vec::new());
    for branch in &facts.log.branches {
        for piece in branch.pieces.iter().filter(|piece| piece.may_hold(piece.counts.restore_points)) {
            for event in source.digest(branch, piece)?.events {
                let LogEvent::RestorePoint { name, time, record } = event else { continue };
                let (identity, branch) = (branch.identity, branch.id.clone());
                found.push(NamedPoint { name, time, identity, branch, at: record.start });
            }
        }
    }
    found.sort_by(|a, b| (a.time, &a.name, a.at).cmp(&(b.time, &b.name, b.at)));
    found.dedup_by(|a, b| (&a.name, a.time, a.at) == (&b.name, b.time, b.at));
    Ok(found)
}
