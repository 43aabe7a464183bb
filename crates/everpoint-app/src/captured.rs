//! How far the log of a cluster is stored, and how far that is behind its server.

use everpoint_core::words::size;
use everpoint_core::{
    Archiver, BranchFacts, BranchId, LogFacts, LogOffset, Micros, StoredBy, Storing, current_identity, path,
    production, stored_by,
};
use everpoint_engine::ServerIdentity;
use everpoint_repo::LeaseState;
use serde::Serialize;

use crate::lineage::branch_id;
use crate::{ClusterContext, text};

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// Branch of it.
    pub branch: BranchId,
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
            branch: branch.id.clone(),
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
    /// Who stores what happens now: `stream`, `archive_command`, `late` or `nobody`.
    #[serde(serialize_with = "word")]
    pub stored_by: StoredBy,
}

fn word<S: serde::Serializer>(by: &StoredBy, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(by.word())
}

impl CaptureState {
    /// Compares what is stored with the server. `archiver`: what the server says of it, if it does.
    #[must_use]
    pub fn new(
        captured: &Captured,
        server: Option<&ServerIdentity>,
        now: Micros,
        running: bool,
        archiver: Option<Archiver>,
    ) -> Self {
        let lag = server.map(|server| {
            // On another timeline positions compare only as an upper bound, which is what one wants to hear; of that timeline
            // nothing is stored, so that it is never nothing.
            let behind = server.position.since(captured.position);
            if server.timeline == captured.timeline { behind } else { behind.max(1) }
        });
        let lag_seconds = captured.covered_until.map(|until| ((now.0 - until.0) as f64 / 1e6).max(0.0));
        let stored_by = stored_by(&Storing {
            running,
            stored: (captured.timeline, captured.position),
            lag_bytes: lag,
            lag_seconds,
            two_segments: server.map_or(0, |server| server.segment_size.saturating_mul(2)),
            archiver,
        });
        Self {
            timeline: captured.timeline,
            lsn: text::lsn(captured.position),
            covered_until: captured.covered_until.map(text::time),
            lag_bytes: lag,
            lag_seconds,
            running,
            stored_by,
        }
    }

    /// What mends it where nothing is stored now.
    #[must_use]
    pub fn keep(&self, cluster: &str) -> String {
        match self.running {
            true => "a capture runs, and its log says why it stores nothing".to_owned(),
            false => format!("keep this running: everpoint capture {cluster}, or everpoint serve"),
        }
    }

    /// What is wrong with it, in words; `None`: what happens now is stored.
    #[must_use]
    pub fn wrong(&self, cluster: &str) -> Option<String> {
        let keep = self.keep(cluster);
        let behind = self.lag_bytes.unwrap_or_default();
        match self.stored_by {
            StoredBy::Stream | StoredBy::ArchiveCommand => None,
            StoredBy::Late => Some(format!("capture is {} behind and not moving; {keep}", size(behind))),
            StoredBy::Nobody => Some(format!(
                "nobody captures {cluster}: neither a stream nor archive_command, so the next commit would be lost with the \
                 server; {keep}"
            )),
        }
    }
}
