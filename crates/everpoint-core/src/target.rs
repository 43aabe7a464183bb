//! What a restore is asked for, and where it stops.

use crate::position::{LogOffset, Micros};

/// What to restore to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// All that is stored of the newest branch.
    Latest,
    /// A moment: all that was committed until then, itself included.
    Time(Micros),
    /// The last record that begins at or before a position.
    Position(LogOffset),
    /// The end of a transaction, the last one with this id (ids repeat).
    Xid {
        /// Its id, or that of one of its subtransactions.
        xid: u64,
        /// Just before it did anything that shows, instead of just after it ended.
        before: bool,
    },
    /// A named restore point, the last one of this name.
    Name(String),
    /// The moment at which a backup became consistent.
    Backup(String),
}

/// What to plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreRequest {
    /// What to restore to.
    pub target: Target,
    /// Stop just before the target instead of just after it. Nothing stands before `Latest` and `Backup`: they ignore
    /// it and the plan says so.
    pub exclusive: bool,
    /// Timeline to follow; `None`: the newest of the newest identity that holds the target.
    pub timeline: Option<u32>,
    /// Labels of backups not to use, because they proved damaged.
    pub skip: Vec<String>,
}

/// Where replay stops: always at a record that is known to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// Start of the record.
    pub record: LogOffset,
    /// Whether the record itself is replayed.
    pub inclusive: bool,
}
