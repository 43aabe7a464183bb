//! Who a server is.

use everpoint_core::LogOffset;

/// Who a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerIdentity {
    /// System identifier: the same for all copies of one cluster.
    pub system: u64,
    /// Version as a number (PostgreSQL: 150018).
    pub version: u32,
    /// Version in words.
    pub version_text: String,
    /// Current timeline.
    pub timeline: u32,
    /// Content of that timeline's history file; empty for a first timeline.
    pub history: Vec<u8>,
    /// Size of a log segment in bytes.
    pub segment_size: u64,
    /// Current end of the log.
    pub position: LogOffset,
    /// It is a standby.
    pub in_recovery: bool,
}
