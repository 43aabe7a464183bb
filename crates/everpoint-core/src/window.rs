//! Recovery windows: every moment that can be brought back.

use crate::position::{BranchId, LogOffset, Micros};

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
    /// Last moment until which the log is known to hold everything.
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
