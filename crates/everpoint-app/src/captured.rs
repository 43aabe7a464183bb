//! How far the log of a cluster is stored, and how far that is behind its server.

use everpoint_core::{LogFacts, LogOffset, Micros};
use everpoint_engine::ServerIdentity;
use serde::Serialize;

use crate::text;

/// The durable end of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Captured {
    /// Timeline of it.
    pub timeline: u32,
    /// Everything before is stored.
    pub position: LogOffset,
    /// Nothing was committed beyond `position` up to this moment, as far as is known.
    pub covered_until: Option<Micros>,
}

impl Captured {
    /// The end of the newest branch; of the server's timeline if that is known.
    #[must_use]
    pub fn of(log: &LogFacts, timeline: Option<u32>) -> Option<Self> {
        log.branches
            .iter()
            .filter_map(|branch| {
                let end = branch.pieces.last()?.span.to;
                let covered = branch.covered.filter(|(position, _)| *position <= end);
                let end = Self {
                    timeline: branch.timeline,
                    position: end,
                    covered_until: covered.map(|(_, until)| until),
                };
                Some((branch.identity, end))
            })
            .max_by_key(|(identity, end)| {
                (*identity, timeline == Some(end.timeline), end.timeline, end.covered_until, end.position)
            })
            .map(|(_, end)| end)
    }
}

/// How capture stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CaptureState {
    /// Timeline.
    pub timeline: u32,
    /// Everything before is stored.
    pub lsn: String,
    /// Nothing was committed beyond it up to this moment; RFC 3339.
    pub covered_until: Option<String>,
    /// Bytes of log that only the server has; absent if the server can't be asked.
    pub lag_bytes: Option<u64>,
    /// Seconds since `covered_until`: at most so much would be lost now.
    pub lag_seconds: Option<f64>,
}

impl CaptureState {
    /// Compares what is stored with the server.
    #[must_use]
    pub fn new(captured: &Captured, server: Option<&ServerIdentity>, now: Micros) -> Self {
        let lag = server.map(|server| {
            // On another timeline positions compare only as an upper bound, which is what one wants to hear.
            server.position.since(captured.position)
        });
        Self {
            timeline: captured.timeline,
            lsn: text::lsn(captured.position),
            covered_until: captured.covered_until.map(text::time),
            lag_bytes: lag,
            lag_seconds: captured.covered_until.map(|until| ((now.0 - until.0) as f64 / 1e6).max(0.0)),
        }
    }
}
