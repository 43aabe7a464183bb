//! Where the log of a path holds together and where it does not.

use std::fmt;

use crate::position::{BranchId, Span};

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
            Self::Overlap => f.write_str("overlap: a piece begins before the one before it ends"),
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
