//! Notes on which branch production is, whenever it was seen: `latest` means that branch.

use everpoint_core::{
    BranchId, LatestBesides, LogOffset, RestorePlan, SaysCopy, SeenBy, Sighting, is_copy as judge_copy,
    latest_besides,
};
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

/// The server at the configured address was asked: notes its branch, unless it is a copy. Returns why it was not noted.
///
/// # Errors
/// If it can't be written.
pub fn seen(
    context: &ClusterContext,
    server: &ServerIdentity,
    identity: u32,
) -> Result<Option<String>, AppError> {
    let place = Place::of(server, identity);
    if is_copy(context, Some(&place))? {
        return Ok(Some(marked(context, Some(&place.branch()))));
    }
    note(context, &place, server.segment_size, SeenBy::Server)?;
    Ok(None)
}

/// Whether the server at the configured address is a copy that nobody has adopted: its directory is marked, or, where that
/// can't be seen, it says so itself.
///
/// # Errors
/// If the repository can't be read.
pub fn is_copy(context: &ClusterContext, place: Option<&Place<'_>>) -> Result<bool, AppError> {
    if let Some(marked) = context.engine.has_file(COPY_MARK) {
        return Ok(marked);
    }
    let says = context.engine.says_copy();
    if says == SaysCopy::No {
        return Ok(false);
    }
    let branch = place.map(Place::branch);
    Ok(judge_copy(&context.name, None, &says, branch.as_ref(), &context.cluster.sightings()?))
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

/// What is said of a copy at the configured address. `branch`: its own, if it is known.
#[must_use]
pub fn marked(context: &ClusterContext, branch: Option<&BranchId>) -> String {
    let latest = branch.zip(context.cluster.sightings().ok());
    let latest = latest.map_or(LatestBesides::Unknown, |(branch, seen)| latest_besides(branch, &seen));
    told(&context.name, &latest)
}

fn told(name: &str, latest: &LatestBesides) -> String {
    let latest = match latest {
        LatestBesides::AsBefore => ", and latest still means what production was".to_owned(),
        LatestBesides::Unknown => String::new(),
        LatestBesides::TheCopys(before) => {
            let before = before.as_ref().map_or_else(String::new, |before| {
                format!(" (restore --timeline {before} means the branch where production was before)")
            });
            format!(
                ", but it was taken for production when nothing told what it is: latest means its branch until production is \
                 seen at the address again{before}"
            )
        }
    };
    format!(
        "the server of {name} is a copy that everpoint restored ({COPY_MARK}, in its directory or its settings, says so): its \
         log is stored beside{latest}; if it is production now: everpoint adopt {name} DIRECTORY"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latest_is_promised_only_where_it_is_so() {
        let one = BranchId::new(1, [0; 8]);
        let promise = "latest still means what production was";
        assert!(told("db", &LatestBesides::AsBefore).contains(promise));
        assert!(!told("db", &LatestBesides::Unknown).contains("latest"));
        let taken = told("db", &LatestBesides::TheCopys(Some(one.clone())));
        assert!(!taken.contains(promise) && taken.contains(&format!("--timeline {one} ")), "{taken}");
        assert!(!told("db", &LatestBesides::TheCopys(None)).contains("--timeline"));
        assert!(taken.contains("everpoint adopt db DIRECTORY"));
    }
}
