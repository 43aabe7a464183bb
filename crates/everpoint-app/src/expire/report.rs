//! What expiry tells.

use everpoint_core::retention::{ExpirePlan, reach};
use everpoint_repo::Freed;
use serde::Serialize;

use crate::facts::Facts;
use crate::list::{WindowLine, window_line};
use crate::restore_points::{self, RestorePointLine};
use crate::{AppError, ClusterContext, text};

/// What goes, and what can no longer be brought back.
#[derive(Debug, Clone, Serialize)]
pub struct ExpireReport {
    /// Name of the cluster.
    pub cluster: String,
    /// Nothing was removed.
    pub dry_run: bool,
    /// First moment of the days of which every second is kept; RFC 3339.
    pub window_from: String,
    /// The backups that stay.
    pub kept: Vec<KeptLine>,
    /// The backups that go.
    pub dropped: Vec<DroppedLine>,
    /// Named restore points that can no longer be restored to.
    pub restore_points: Vec<RestorePointLine>,
    /// What could be brought back before.
    pub windows_before: Vec<WindowLine>,
    /// What can be brought back after it.
    pub windows_after: Vec<WindowLine>,
    /// Objects of the log that go, and their bytes.
    pub log_objects: u64,
    /// See `log_objects`.
    pub log_bytes: u64,
    /// Packs that go.
    pub packs_removed: u64,
    /// Bytes of packs that no backup names and that go later.
    pub packs_waiting_bytes: u64,
    /// Bytes that are freed: maps, log and packs.
    pub freed_bytes: u64,
    /// Why something stays that would go, in words.
    pub waits: Option<String>,
}

/// A backup that stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeptLine {
    /// Its label.
    pub label: String,
    /// Why.
    pub reasons: Vec<String>,
}

/// A backup that goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DroppedLine {
    /// Its label.
    pub label: String,
    /// Why.
    pub reason: String,
    /// When it ended; RFC 3339. Absent if it never did.
    pub stopped_at: Option<String>,
    /// Bytes of its map; its packs go when nothing names them.
    pub bytes: u64,
}

impl ExpireReport {
    pub(super) fn note_freed(&mut self, maps: u64, log: Freed) {
        self.log_objects = self.log_objects.saturating_add(log.objects);
        self.log_bytes = self.log_bytes.saturating_add(log.bytes);
        self.freed_bytes = self.freed_bytes.saturating_add(maps).saturating_add(log.bytes);
    }
}

/// What the plan says, before anything is counted or removed.
pub(super) fn begin(
    context: &ClusterContext,
    facts: &Facts,
    plan: &ExpirePlan,
    dry_run: bool,
) -> Result<ExpireReport, AppError> {
    let kept = plan.kept.iter();
    let stopped =
        |label: &str| facts.backups.iter().find(|backup| backup.label == label).map(|it| it.stopped_at);
    Ok(ExpireReport {
        cluster: context.name.clone(),
        dry_run,
        window_from: text::time(plan.window_from),
        kept: kept.map(|it| KeptLine { label: it.label.clone(), reasons: it.reasons.clone() }).collect(),
        dropped: plan
            .dropped
            .iter()
            .map(|dropped| DroppedLine {
                label: dropped.label.clone(),
                reason: dropped.reason.clone(),
                stopped_at: stopped(&dropped.label).map(text::time),
                bytes: 0,
            })
            .collect(),
        restore_points: lost_points(context, facts, plan)?,
        windows_before: plan.before.iter().map(window_line).collect(),
        windows_after: plan.after.iter().map(window_line).collect(),
        log_objects: 0,
        log_bytes: 0,
        packs_removed: 0,
        packs_waiting_bytes: 0,
        freed_bytes: 0,
        waits: None,
    })
}

/// The named restore points that can be restored to now, and not afterwards.
fn lost_points(
    context: &ClusterContext,
    facts: &Facts,
    plan: &ExpirePlan,
) -> Result<Vec<RestorePointLine>, AppError> {
    if plan.dropped.is_empty() && plan.log.iter().all(|branch| branch.expired.is_none()) {
        return Ok(Vec::new());
    }
    let (log, backups) = plan.applied(&facts.log, &facts.backups);
    let (before, after) = (reach(&facts.log, &facts.backups), reach(&log, &backups));
    let mut points = restore_points::find(context, facts)?;
    points.retain(|point| {
        let held_by = |reach: &everpoint_core::Reach| reach.holds(point.identity, &point.branch, point.at);
        held_by(&before) && !held_by(&after)
    });
    Ok(points.iter().map(|point| point.line(&context.name)).collect())
}
