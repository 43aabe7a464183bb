//! How far the log of a cluster is stored, and how far that is behind its server.

use everpoint_core::{BranchFacts, LogFacts, LogOffset, Micros, current_identity, path, production};
use everpoint_engine::ServerIdentity;
use everpoint_repo::LeaseState;
use serde::Serialize;

use crate::lineage::branch_id;
use crate::{ClusterContext, text};

/// Capture that is silent for longer than this is pointed out.
const LATE_SECONDS: f64 = 60.0;

/// Id of the lease that a capture of the cluster holds.
#[must_use]
pub fn lease_id(cluster: &str) -> String {
    format!("capture-{cluster}")
}

/// Whether a capture of the cluster runs somewhere, as far as its lease tells.
#[must_use]
pub fn is_running(context: &ClusterContext) -> bool {
    let state = context.repository.lease_state(&lease_id(&context.name));
    matches!(state, Ok(LeaseState::Held { .. }))
}

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
    /// The end of the branch that the server is on; if that is not known, of the one that production was last seen on, and
    /// if nothing of it is stored, of the one that it goes on from.
    #[must_use]
    pub fn of(log: &LogFacts, server: Option<&ServerIdentity>) -> Option<Self> {
        let current = current_identity(log)?;
        let on_server = server.and_then(|server| {
            let id = branch_id(server.timeline, &server.history);
            let same = log.branches.iter().filter(|branch| branch.id == id);
            same.max_by_key(|branch| (branch.identity == current, branch.identity))
        });
        let leaf = on_server.or_else(|| {
            production(log, current).candidates().into_iter().max_by_key(|branch| branch.timeline)
        })?;
        path(log, leaf).iter().rev().find_map(|step| Self::end_of(step.branch))
    }

    fn end_of(branch: &BranchFacts) -> Option<Self> {
        let end = branch.pieces.last()?.span.to;
        let covered = branch.covered.filter(|(position, _)| *position <= end);
        Some(Self {
            timeline: branch.timeline,
            position: end,
            covered_until: covered.map(|(_, until)| until),
        })
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
    /// A capture runs somewhere.
    pub running: bool,
    /// Bytes of two segments, by which archive_command may be behind.
    #[serde(skip)]
    two_segments: u64,
}

impl CaptureState {
    /// Compares what is stored with the server.
    #[must_use]
    pub fn new(captured: &Captured, server: Option<&ServerIdentity>, now: Micros, running: bool) -> Self {
        let lag = server.map(|server| {
            // On another timeline positions compare only as an upper bound, which is what one wants to hear; of that timeline
            // nothing is stored, so that it is never nothing.
            let behind = server.position.since(captured.position);
            if server.timeline == captured.timeline { behind } else { behind.max(1) }
        });
        Self {
            timeline: captured.timeline,
            lsn: text::lsn(captured.position),
            covered_until: captured.covered_until.map(text::time),
            lag_bytes: lag,
            lag_seconds: captured.covered_until.map(|until| ((now.0 - until.0) as f64 / 1e6).max(0.0)),
            running,
            two_segments: server.map_or(0, |server| server.segment_size.saturating_mul(2)),
        }
    }

    /// The server has log that is not stored, and capture is silent for long.
    #[must_use]
    pub fn is_late(&self) -> bool {
        // Where only archive_command stores the log, it comes by whole segments, and nothing says when it is complete.
        let expected = if self.covered_until.is_some() { 0 } else { self.two_segments };
        self.lag_bytes.is_some_and(|bytes| bytes > expected) && self.is_silent()
    }

    /// Everything is stored, but the stream that stored it has ended: the next commit would not be.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.covered_until.is_some() && self.is_silent() && !self.running
    }

    fn is_silent(&self) -> bool {
        self.lag_seconds.is_none_or(|seconds| seconds > LATE_SECONDS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(lag_bytes: Option<u64>, lag_seconds: Option<f64>, running: bool) -> CaptureState {
        let covered_until = lag_seconds.map(|_| text::time(Micros(0)));
        CaptureState {
            timeline: 1,
            lsn: "0/1".to_owned(),
            covered_until,
            lag_bytes,
            lag_seconds,
            running,
            two_segments: 32 << 20,
        }
    }

    #[test]
    fn lateness_needs_lag_and_silence() {
        assert!(state(Some(1), Some(61.0), true).is_late());
        assert!(!state(Some(20 << 20), None, false).is_late(), "archive_command comes by whole segments");
        assert!(state(Some(33 << 20), None, false).is_late(), "archive_command does not come");
        assert!(!state(Some(1), Some(2.0), true).is_late());
        assert!(!state(Some(0), Some(999.0), true).is_late());
        assert!(!state(None, Some(999.0), true).is_late(), "a dead server is another problem");
    }

    #[test]
    fn a_stream_that_ended_on_an_idle_server_shows() {
        assert!(state(Some(0), Some(61.0), false).has_ended());
        assert!(!state(Some(0), Some(61.0), true).has_ended());
        assert!(!state(Some(0), Some(2.0), false).has_ended());
        assert!(!state(Some(0), None, false).has_ended(), "archive_command has no stream");
    }
}
