//! What the files of a directory of this machine tell.

use everpoint_core::{LogOffset, Span};

/// A timeline of which the directory of a stopped server may hold log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalTimeline {
    /// System identifier of the cluster.
    pub system: u64,
    /// The timeline.
    pub timeline: u32,
    /// Where it begins.
    pub begin: LogOffset,
    /// The server is known to have written it up to here, at least.
    pub reached: LogOffset,
}

/// Log of one timeline in the directory of a stopped server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalLog {
    /// Unbroken runs of it, in order: each from the start of a segment to the end of the last whole record.
    pub runs: Vec<Span>,
    /// Files in which the log should lie and can't be read.
    pub odd: Vec<Span>,
}

/// Where the cluster of a data directory stands, as its files tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalPlace {
    /// System identifier.
    pub system: u64,
    /// The timeline on which it goes on when its server is started.
    pub timeline: u32,
    /// Content of that timeline's history file, empty for a first timeline; `None` if the file is not there.
    pub history: Option<Vec<u8>>,
    /// Its last checkpoint.
    pub position: LogOffset,
    /// The server has written its log on that timeline up to here, at least.
    pub written: LogOffset,
    /// It still recovers, or will when it is started.
    pub in_recovery: bool,
}

/// What the files of a directory say of the cluster that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirectoryProof {
    /// It is no data directory.
    Nothing,
    /// It is the data directory of the cluster with this system identifier.
    Cluster(u64),
    /// It looks like a data directory, but does not say of which cluster.
    Unreadable,
}
