//! Notes on which branch production is, whenever it was seen: `latest` means that branch.

use everpoint_core::{BranchId, LogOffset, RestorePlan, SeenBy, Sighting};
use everpoint_engine::ServerIdentity;

use crate::lineage::branch_id;
use crate::restore::salvage::COPY_MARK;
use crate::{AppError, ClusterContext, text};

/// Where a server stands.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Number of its identity.
    pub identity: u32,
    /// Its timeline.
    pub timeline: u32,
    /// Content of that timeline's history file; empty for a first timeline.
    pub history: &'a [u8],
    /// A position that it has reached.
    pub position: LogOffset,
}

impl<'a> Place<'a> {
    /// Where a server is that was asked.
    #[must_use]
    pub fn of(server: &'a ServerIdentity, identity: u32) -> Self {
        Self { identity, timeline: server.timeline, history: &server.history, position: server.position }
    }

    /// Its branch.
    #[must_use]
    pub fn branch(&self) -> BranchId {
        branch_id(self.timeline, self.history)
    }

    /// The sighting of a server there, now.
    #[must_use]
    pub fn seen(&self, by: SeenBy) -> Sighting {
        let (identity, position) = (self.identity, self.position);
        Sighting { identity, branch: self.branch(), position, at: text::now(), by }
    }
}

/// Notes that production is there. The history is stored first: a branch of which nothing else is stored yet is known then, so
/// that the log of the one before it does not pass for all there is.
///
/// # Errors
/// If it can't be written.
pub fn note(
    context: &ClusterContext,
    place: &Place<'_>,
    segment_size: u64,
    by: SeenBy,
) -> Result<bool, AppError> {
    if !place.history.is_empty() {
        context.cluster.log(place.identity, place.branch(), segment_size).put_history(place.history)?;
    }
    Ok(context.cluster.note_production(&place.seen(by))?)
}

/// The server at the configured address was asked: notes its branch, unless it runs in a directory that is marked as a copy.
/// Returns why it was not noted.
///
/// # Errors
/// If it can't be written.
pub fn seen(
    context: &ClusterContext,
    server: &ServerIdentity,
    identity: u32,
) -> Result<Option<String>, AppError> {
    if is_copy(context, Some(&Place::of(server, identity)))? {
        return Ok(Some(marked(context)));
    }
    note(context, &Place::of(server, identity), server.segment_size, SeenBy::Server)?;
    Ok(None)
}

/// Whether the server at the configured address runs in a marked copy. Where the mark can't be seen, what it calls itself
/// counts, unless production was seen on this very branch: then it was adopted.
///
/// # Errors
/// If the repository can't be read.
pub fn is_copy(context: &ClusterContext, place: Option<&Place<'_>>) -> Result<bool, AppError> {
    if let Some(marked) = context.engine.has_file(COPY_MARK) {
        return Ok(marked);
    }
    if !context.engine.calls_itself_copy() {
        return Ok(false);
    }
    let branch = place.map(Place::branch);
    let last = context.cluster.sightings()?.into_iter().rfind(|seen| seen.by == SeenBy::Server);
    Ok(last.is_none_or(|last| Some(last.branch) != branch))
}

/// A restore has replaced production, which goes on from there as soon as its server is seen, or pushes.
///
/// # Errors
/// If that can't be written.
pub fn restored(context: &ClusterContext, plan: &RestorePlan) -> Result<(), AppError> {
    let seen = Sighting {
        identity: plan.identity,
        branch: plan.stop_branch.clone(),
        position: plan.reached.position,
        at: text::now(),
        by: SeenBy::Restore,
    };
    Ok(context.cluster.note_production(&seen).map(drop)?)
}

/// What is said of a marked copy at the configured address.
#[must_use]
pub fn marked(context: &ClusterContext) -> String {
    format!(
        "the server of {0} runs in a copy that everpoint restored (its directory holds {COPY_MARK}): its log is stored beside, \
         and latest still means what production was; if it is production now: everpoint adopt {0} DIRECTORY",
        context.name
    )
}
