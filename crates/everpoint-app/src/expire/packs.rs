//! Packs that no map names.

use std::time::Duration;

use everpoint_core::reclaim::{ReclaimPlan, reclaim as decide};
use everpoint_core::{FailureClass, Micros};
use everpoint_repo::LeaseState;

use super::{ExpireReport, ExpireRequest, is_full};
use crate::{AppError, ClusterContext, reading, text};

/// What would be done once these backups are gone. Ages are guessed by this machine's clock, as nothing is written.
pub(super) fn count(
    context: &ClusterContext,
    gone: &[String],
    grace: Duration,
    report: &mut ExpireReport,
) -> Result<(), AppError> {
    if let Some(plan) = plan(context, gone, grace, text::now(), report)? {
        report.packs_removed = plan.remove.len() as u64;
        report.packs_waiting_bytes = plan.waiting;
        report.freed_bytes = report.freed_bytes.saturating_add(plan.freed);
    }
    Ok(())
}

/// Sets tombstones, and removes packs whose tombstone has stood for long enough.
pub(super) fn reclaim(
    context: &ClusterContext,
    request: &ExpireRequest,
    report: &mut ExpireReport,
    go_on: &dyn Fn() -> Result<(), AppError>,
) -> Result<(), AppError> {
    let cluster = &context.cluster;
    if backup_runs(context)? {
        report.waits = Some("packs are not looked at while a backup runs".to_owned());
        return Ok(());
    }
    let now = match cluster.store_now() {
        Ok(now) => now,
        // As long as there is no room to ask, none of the tombstones is old enough.
        Err(error) if is_full(&error) && !request.grace.is_zero() => return Ok(()),
        Err(error) if is_full(&error) => Micros(0),
        Err(error) => return Err(error.into()),
    };
    let Some(plan) = plan(context, &[], request.grace, now, report)? else {
        return Ok(());
    };
    report.packs_waiting_bytes = plan.waiting;
    if !plan.bury.is_empty() {
        match cluster.bury(&plan.bury) {
            Err(error) if is_full(&error) => tracing::warn!(%error, "packs wait for a tombstone"),
            result => result?,
        }
    }
    // A backup that begins after this looks at its packs once more when its map is stored, and is void if one is gone.
    if !plan.remove.is_empty() && (backup_runs(context)? || !reading::readers(context)?.is_empty()) {
        report.waits = Some("packs are not removed while a backup or a restore runs".to_owned());
        return Ok(());
    }
    for id in &plan.remove {
        go_on()?;
        cluster.remove_pack(*id)?;
    }
    report.packs_removed = plan.remove.len() as u64;
    report.freed_bytes = report.freed_bytes.saturating_add(plan.freed);
    plan.close.iter().try_for_each(|number| cluster.close_tombstone(*number))?;
    Ok(())
}

/// `None` if a map can't be read: what it names is not known then, and no pack may go.
fn plan(
    context: &ClusterContext,
    gone: &[String],
    grace: Duration,
    now: Micros,
    report: &mut ExpireReport,
) -> Result<Option<ReclaimPlan>, AppError> {
    let cluster = &context.cluster;
    let (tombstones, newest) = (cluster.tombstones()?, cluster.newest_map()?);
    let packs = match cluster.pack_facts(gone) {
        Ok(packs) => packs,
        Err(error) if error.class == FailureClass::Damaged => {
            report.waits = Some(format!("no pack is removed, as a backup's map can't be read: {error}"));
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let grace = i64::try_from(grace.as_micros()).unwrap_or(i64::MAX);
    Ok(Some(decide(&packs, &tombstones, newest, grace, now)))
}

fn backup_runs(context: &ClusterContext) -> Result<bool, AppError> {
    let state = context.repository.lease_state(&context.cluster.backup_lease_id())?;
    Ok(matches!(state, LeaseState::Held { .. }))
}
