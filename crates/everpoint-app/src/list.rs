//! `list`: backups, recovery windows and gaps of a cluster.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::restore_points::{self, RestorePointLine};
use crate::{AppError, ClusterContext, facts, text};
use everpoint_core::production::{descends, production};
use everpoint_core::retention::Held;
use everpoint_core::{BackupStatus, BranchFacts, LogFacts, LogOffset, Micros, current_identity};
use everpoint_format::identity::Identity;

/// One cluster, in the shape of `list --json`.
#[derive(Debug, Clone, Serialize)]
pub struct ClusterListing {
    /// Its name.
    pub name: String,
    /// `postgresql` or `mongodb`.
    pub engine: String,
    /// Of the newest identity; empty if nothing was ever stored.
    pub system_identifier: String,
    /// All backups, oldest first, failed attempts too.
    pub backups: Vec<BackupLine>,
    /// Every second that can be brought back.
    pub windows: Vec<WindowLine>,
    /// Log that is known to be missing.
    pub gaps: Vec<GapLine>,
    /// The branches of the log, by timeline.
    pub branches: Vec<BranchLine>,
    /// Named restore points, by time.
    pub restore_points: Vec<RestorePointLine>,
    /// Why restore points can't be read; then there are none.
    pub restore_points_unread: Option<String>,
}

/// One branch.
#[derive(Debug, Clone, Serialize)]
pub struct BranchLine {
    /// Its name: what `--timeline` takes where several have one number.
    pub branch: String,
    /// Its timeline.
    pub timeline: u32,
    /// Number of the identity that it is of: after pg_upgrade another one, whose branches may have the same names.
    pub identity: u32,
    /// System identifier of that.
    pub system_identifier: Option<String>,
    /// The branch that it forked from.
    pub forked_from: Option<String>,
    /// Where.
    pub forked_at: Option<String>,
    /// End of what is stored of it.
    pub to_lsn: Option<String>,
    /// `production`: the newest that production was seen on; `ancestor` of that; `candidate`: nothing tells which of these it
    /// is; `other`: what copies and recoveries left.
    pub role: &'static str,
}

/// One backup.
#[derive(Debug, Clone, Serialize)]
pub struct BackupLine {
    /// Name.
    pub label: String,
    /// `full`, `incremental`, ...
    pub kind: String,
    /// RFC 3339.
    pub started_at: String,
    /// RFC 3339; absent while it runs and if it failed.
    pub stopped_at: Option<String>,
    /// Start position.
    pub start_lsn: Option<String>,
    /// Stop position.
    pub stop_lsn: Option<String>,
    /// Timeline.
    pub timeline: Option<u32>,
    /// Bytes of the image.
    pub size_bytes: u64,
    /// Bytes stored for it.
    pub stored_bytes: u64,
    /// Image bytes stored for it, divided by stored bytes.
    pub compression_ratio: Option<f64>,
    /// `running`, `ok`, `failed`, `damaged`.
    pub status: &'static str,
    /// Why it failed, or what is damaged.
    pub reason: Option<String>,
    /// What was warned of when it was taken, and what its image lacks.
    pub warnings: Vec<String>,
    /// It is less than whole: what its image lacks is among the warnings.
    pub incomplete: bool,
    /// It must not expire.
    pub hold: Option<HoldLine>,
    /// Labels of the operator.
    pub labels: BTreeMap<String, String>,
    /// Server version in words.
    pub server_version: Option<String>,
    /// Seconds it took.
    pub duration_seconds: Option<f64>,
    /// Whether it is encrypted.
    pub encrypted: bool,
    /// How it was taken: `files` or `replication`.
    pub method: Option<String>,
    /// Result of the newest drill.
    pub proof: Proof,
}

/// A hold in force.
#[derive(Debug, Clone, Serialize)]
pub struct HoldLine {
    /// Until when, RFC 3339; absent: until it is released.
    pub until: Option<String>,
}

/// What is proven of a backup.
#[derive(Debug, Clone, Serialize)]
pub struct Proof {
    /// `none` until a drill has restored it.
    pub state: &'static str,
    /// When.
    pub at: Option<String>,
}

/// One window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WindowLine {
    /// Timeline.
    pub timeline: u32,
    /// First moment, RFC 3339.
    pub from: String,
    /// Last moment, RFC 3339.
    pub to: String,
    /// First position.
    pub from_lsn: String,
    /// Last position.
    pub to_lsn: String,
}

/// One gap.
#[derive(Debug, Clone, Serialize)]
pub struct GapLine {
    /// Timeline.
    pub timeline: u32,
    /// First missing position.
    pub from_lsn: String,
    /// First position after it.
    pub to_lsn: String,
    /// What it is.
    pub reason: String,
}

/// Lists one cluster.
///
/// # Errors
/// If the repository can't be read.
pub fn run(context: &ClusterContext) -> Result<ClusterListing, AppError> {
    let facts = facts::load(context)?;
    let mut listing = listing(context, &facts, &context.cluster.holds()?);
    match restore_points::find(context, &facts) {
        Ok(found) => listing.restore_points = found.iter().map(|point| point.line(&context.name)).collect(),
        // A damaged digest must not hide all the rest.
        Err(error) => listing.restore_points_unread = Some(error.to_string()),
    }
    Ok(listing)
}

/// Lists what is known already: all but the restore points.
#[must_use]
pub fn listing(context: &ClusterContext, facts: &facts::Facts, holds: &[Held]) -> ClusterListing {
    let system = facts.identity.as_ref().map(|(_, identity)| identity.system_identifier.clone());
    ClusterListing {
        name: context.name.clone(),
        engine: context.engine.kind().to_owned(),
        system_identifier: system.unwrap_or_default(),
        backups: facts.listings.iter().map(|listing| backup_line(context, facts, listing, holds)).collect(),
        windows: windows(facts),
        gaps: everpoint_core::gaps(&facts.log)
            .iter()
            .map(|gap| GapLine {
                timeline: gap.branch.timeline(),
                from_lsn: text::lsn(gap.span.from),
                to_lsn: text::lsn(gap.span.to),
                reason: gap.reason.to_string(),
            })
            .collect(),
        branches: branches(&facts.log, &context.cluster.identities().unwrap_or_default()),
        restore_points: Vec::new(),
        restore_points_unread: None,
    }
}

/// Every second that can be brought back; what is of the branch that production is on comes last.
pub(crate) fn windows(facts: &facts::Facts) -> Vec<WindowLine> {
    let mut windows = everpoint_core::windows(&facts.log, &facts.backups);
    let identity = current_identity(&facts.log);
    let leaves = identity.map(|identity| production(&facts.log, identity).candidates()).unwrap_or_default();
    windows
        .sort_by_key(|it| (identity == Some(it.identity)) && leaves.iter().any(|leaf| leaf.id == it.branch));
    windows.iter().map(window_line).collect()
}

fn branches(log: &LogFacts, identities: &[(u32, Identity)]) -> Vec<BranchLine> {
    let mut sorted: Vec<&BranchFacts> = log.branches.iter().collect();
    sorted.sort_by_key(|branch| (branch.identity, branch.timeline, branch.id.clone()));
    let current = current_identity(log);
    let line = |branch: &&BranchFacts| {
        let found = production(log, branch.identity);
        let candidates = found.candidates();
        let role = if current.is_some_and(|current| branch.identity > current) {
            // Of a system that production was for a while, as after an upgrade that was taken back.
            "other"
        } else if candidates.iter().any(|leaf| leaf.id == branch.id) {
            if current.is_some_and(|current| branch.identity < current) {
                "ancestor"
            } else if found.certain().is_some() {
                "production"
            } else {
                "candidate"
            }
        } else if candidates.iter().any(|leaf| descends(log, leaf, branch)) {
            "ancestor"
        } else {
            "other"
        };
        BranchLine {
            branch: branch.id.to_string(),
            timeline: branch.timeline,
            identity: branch.identity,
            system_identifier: identities
                .iter()
                .find(|(number, _)| *number == branch.identity)
                .map(|(_, known)| known.system_identifier.clone()),
            forked_from: branch.parent.as_ref().map(|(parent, _)| parent.to_string()),
            forked_at: branch.parent.as_ref().map(|(_, at)| text::lsn(*at)),
            to_lsn: branch.pieces.last().map(|piece| text::lsn(piece.span.to)),
            role,
        }
    };
    sorted.iter().map(line).collect()
}

pub(crate) fn window_line(window: &everpoint_core::Window) -> WindowLine {
    WindowLine {
        timeline: window.timeline,
        from: text::time(window.from),
        to: text::time(window.to),
        from_lsn: text::lsn(window.from_position),
        to_lsn: text::lsn(window.to_position),
    }
}

/// What was warned of, that its image lacks something first; and whether it does.
fn warnings(
    context: &ClusterContext,
    facts: &facts::Facts,
    listing: &everpoint_repo::BackupListing,
) -> (Vec<String>, bool) {
    let Some(record) = &listing.record else { return (Vec::new(), false) };
    let mut warnings = context.engine.image_warnings(&record.facts);
    let incomplete = !warnings.is_empty();
    warnings.extend(record.warnings.iter().cloned());
    warnings.extend(facts.derived.get(&listing.label).cloned());
    (warnings, incomplete)
}

fn backup_line(
    context: &ClusterContext,
    facts: &facts::Facts,
    listing: &everpoint_repo::BackupListing,
    holds: &[Held],
) -> BackupLine {
    let (warnings, incomplete) = warnings(context, facts, listing);
    let record = listing.record.as_ref();
    let started =
        record.map(|record| record.started_at).or(listing.attempt.as_ref().map(|attempt| attempt.started_at));
    let status = facts::status(listing);
    let reason = match status {
        BackupStatus::Failed => Some(listing.failure.as_ref().map_or_else(
            || "it was interrupted; what it stored is reused by the next backup".to_owned(),
            |failure| failure.message.clone(),
        )),
        BackupStatus::Damaged => Some(facts::damage_text(listing)),
        BackupStatus::Ok | BackupStatus::Running => None,
    };
    BackupLine {
        label: listing.label.clone(),
        kind: record
            .map(|r| r.kind.clone())
            .or(listing.attempt.as_ref().map(|a| a.kind.clone()))
            .unwrap_or_default(),
        started_at: started.map(|at| text::time(Micros(at))).unwrap_or_default(),
        stopped_at: record.map(|r| text::time(Micros(r.stopped_at))),
        start_lsn: record.map(|r| text::lsn(LogOffset(r.start))),
        stop_lsn: record.map(|r| text::lsn(LogOffset(r.stop))),
        timeline: record.map(|r| r.timeline),
        size_bytes: record.map_or(0, |r| r.size_bytes),
        stored_bytes: record.map_or(0, |r| r.stored_bytes),
        compression_ratio: record.filter(|r| r.stored_bytes > 0).map(ratio),
        status: facts::status_name(status),
        reason,
        warnings,
        incomplete,
        hold: hold_line(holds, &listing.label),
        labels: record.map(|r| r.labels.clone()).unwrap_or_default(),
        server_version: record.map(|r| r.server_version_text.clone()),
        duration_seconds: record.map(|r| r.duration_micros as f64 / 1e6),
        encrypted: record.is_some_and(|r| r.encrypted),
        method: record.map(|r| r.method.clone()),
        proof: Proof { state: "none", at: None },
    }
}

fn hold_line(holds: &[Held], label: &str) -> Option<HoldLine> {
    let in_force = |held: &&Held| held.label == label && held.until.is_none_or(|until| until > text::now());
    holds.iter().find(in_force).map(|held| HoldLine { until: held.until.map(text::time) })
}

/// Bytes of the pages that had to be stored, divided by the bytes that they take in the repository.
fn ratio(record: &everpoint_format::manifest::BackupRecord) -> f64 {
    (record.pages_changed * u64::from(record.page_size)) as f64 / record.stored_bytes as f64
}
