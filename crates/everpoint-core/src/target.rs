//! What a restore is asked for, and where it stops.

use std::fmt;

use crate::position::{BranchId, LogOffset, Micros};

/// What to restore to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// All that is stored of the branch that production is on, or was last seen on.
    Latest,
    /// A moment: all that was committed until then, itself included.
    Time(Micros),
    /// The last record that begins at or before a position.
    Position(LogOffset),
    /// The end of a transaction, the last one with this id (ids repeat).
    Xid {
        /// Its id, or that of one of its subtransactions; with or without the epoch in the upper half.
        xid: u64,
        /// Just before it did anything that shows, instead of just after it ended.
        before: bool,
    },
    /// A named restore point, the last one of this name.
    Name(String),
    /// The moment at which a backup became consistent.
    Backup(String),
}

/// A branch that somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BranchChoice {
    /// By its timeline number. If several branches have it, the one on production's way.
    Timeline(u32),
    /// By its name, which is unique.
    Named(BranchId),
}

impl BranchChoice {
    /// Reads a timeline number, or the name of a branch.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let number = text.parse().ok().filter(|number| *number > 0).map(Self::Timeline);
        number.or_else(|| BranchId::parse(text).map(Self::Named))
    }
}

impl fmt::Display for BranchChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeline(number) => write!(f, "timeline {number}"),
            Self::Named(branch) => write!(f, "branch {branch}"),
        }
    }
}

/// What to plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreRequest {
    /// What to restore to.
    pub target: Target,
    /// Stop just before the target instead of just after it. Nothing stands before `Latest` and `Backup`: they ignore
    /// it and the plan says so.
    pub exclusive: bool,
    /// Branch to follow; `None`: the one that production is on, or was last seen on.
    pub timeline: Option<BranchChoice>,
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
