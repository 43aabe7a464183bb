//! What planning has to know of a cluster, read from its repository.

mod branch;
mod placed;
mod source;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use everpoint_core::{
    BackupFacts, BackupStatus, BranchId, FailureClass, LogFacts, LogOffset, Micros, Present, RestorePlan,
    RestoreRequest, Shortfall, Span, current_identity,
};
use everpoint_format::identity::Identity;
use everpoint_format::manifest::BackupRecord;
use everpoint_repo::BackupListing;

use crate::{AppError, ClusterContext};
use branch::load_branches;
use placed::Placed;
pub(crate) use source::log_damaged;
use source::{Source, read};

/// What planning asks for beyond the facts.
pub(crate) const fn source(context: &ClusterContext) -> Source<'_> {
    Source { context }
}

/// See the module.
#[derive(Debug)]
pub struct Facts {
    /// The identity that production has, if the cluster has any.
    pub identity: Option<(u32, Identity)>,
    /// All backups and attempts, oldest first.
    pub listings: Vec<BackupListing>,
    /// The usable and unusable backups, in brief.
    pub backups: Vec<BackupFacts>,
    /// The log of all identities.
    pub log: LogFacts,
    /// What had to be derived, by the label of the backup, in words.
    pub derived: BTreeMap<String, String>,
}

/// Reads them.
///
/// # Errors
/// If the repository can't be read.
pub fn load(context: &ClusterContext) -> Result<Facts, AppError> {
    let mut identities = context.cluster.identities()?;
    identities.sort_by_key(|(number, _)| *number);
    let mut branches = Vec::new();
    for (number, identity) in &identities {
        branches.extend(load_branches(context, *number, identity)?);
    }
    let mut listings = context.cluster.backups()?;
    listings.sort_by_key(|listing| (began(listing), listing.label.clone()));
    check_identities(context, &identities, &listings)?;
    let (mut backups, mut derived) = (Vec::new(), BTreeMap::new());
    for listing in &mut listings {
        let Some(record) = &listing.record else { continue };
        match placed::branch_of(record, &branches) {
            Ok(Placed { branch, derived: how }) => {
                derived.extend(how.map(|how| (listing.label.clone(), how)));
                backups.extend(backup_facts(listing, branch));
            }
            // It must not be left out of plans and be called good.
            Err(why) => listing.unreadable = listing.unreadable.take().or(Some(why)),
        }
    }
    let log = LogFacts { branches, sightings: context.cluster.sightings()? };
    let current = current_identity(&log);
    if let Some(at) = identities.iter().position(|(number, _)| Some(*number) == current) {
        identities.truncate(at + 1);
    }
    Ok(Facts { identity: identities.pop(), listings, backups, log, derived })
}

fn began(listing: &BackupListing) -> i64 {
    let attempted = listing.attempt.as_ref().map(|attempt| attempt.started_at);
    attempted.or(listing.record.as_ref().map(|record| record.started_at)).unwrap_or_default()
}

/// Without the record of its identity nothing can be said of a backup's log.
fn check_identities(
    context: &ClusterContext,
    identities: &[(u32, Identity)],
    listings: &[BackupListing],
) -> Result<(), AppError> {
    let known = |number: u32| identities.iter().any(|(known, _)| *known == number);
    let records = listings.iter().filter_map(|listing| listing.record.as_ref());
    let Some(lost) = records.into_iter().find(|record| !known(record.identity)) else {
        return Ok(());
    };
    let object = format!("identity {} of {}", lost.identity, context.name);
    let message = format!("its record is gone from the repository, and backup {} belongs to it", lost.label);
    Err(AppError::new("repo.damaged", FailureClass::Damaged, "read", object, message)
        .hint("bring the object back from a copy of the repository"))
}

fn backup_facts(listing: &BackupListing, branch: BranchId) -> Option<BackupFacts> {
    let record = listing.record.as_ref()?;
    Some(BackupFacts {
        label: record.label.clone(),
        kind: record.kind.clone(),
        identity: record.identity,
        branch,
        timeline: record.timeline,
        start: LogOffset(record.start),
        stop: LogOffset(record.stop),
        started_at: Micros(record.started_at),
        stopped_at: Micros(record.stopped_at),
        size: record.size_bytes,
        status: planning_status(listing),
        damaged_pages: record.damaged_count,
        from_standby: record.from_standby,
    })
}

/// A backup that holds pages which were damaged on the server already is what the server had: it can be restored, and
/// says so. One that lost something in the repository can't.
pub(crate) fn planning_status(listing: &BackupListing) -> BackupStatus {
    if listing.damage.is_empty() && listing.unreadable.is_none() {
        BackupStatus::Ok
    } else {
        BackupStatus::Damaged
    }
}

/// The status of a backup or an attempt, as it is listed.
#[must_use]
pub fn status(listing: &BackupListing) -> BackupStatus {
    match &listing.record {
        Some(record) if record.damaged_count > 0 => BackupStatus::Damaged,
        Some(_) => planning_status(listing),
        None if listing.unreadable.is_some() => BackupStatus::Damaged,
        None if listing.running && listing.failure.is_none() => BackupStatus::Running,
        None => BackupStatus::Failed,
    }
}

/// Its name.
#[must_use]
pub const fn status_name(status: BackupStatus) -> &'static str {
    match status {
        BackupStatus::Ok => "ok",
        BackupStatus::Damaged => "damaged",
        BackupStatus::Failed => "failed",
        BackupStatus::Running => "running",
    }
}

/// What is damaged, in words.
#[must_use]
pub fn damage_text(listing: &BackupListing) -> String {
    let mut parts: Vec<String> = listing.damage.iter().map(|damage| damage.message.clone()).collect();
    parts.extend(listing.unreadable.clone());
    if let Some(record) = listing.record.as_ref().filter(|record| record.damaged_count > 0) {
        let first =
            record.damaged.first().map(|page| format!(", the first is block {} of {}", page.page, page.path));
        let count = record.damaged_count;
        parts.push(format!(
            "{count} pages were damaged on the server when it was taken{}",
            first.unwrap_or_default()
        ));
    }
    parts.join("; ")
}

/// The record of a backup.
///
/// # Errors
/// If there is no such backup.
pub fn record<'a>(facts: &'a Facts, label: &str) -> Result<&'a BackupRecord, AppError> {
    let found = facts
        .listings
        .iter()
        .filter(|listing| listing.label == label)
        .find_map(|listing| listing.record.as_ref());
    found.ok_or_else(|| {
        AppError::new(
            "backup.unknown",
            FailureClass::Usage,
            "find the backup",
            label,
            "there is none of that label",
        )
        .hint(everpoint_core::words::known(
            label,
            "backups",
            facts.listings.iter().map(|listing| listing.label.as_str()),
        ))
    })
}

/// Plans a restore.
///
/// # Errors
/// If digests or log that planning needs can't be read. A target that can't be reached is no error but a shortfall.
pub fn plan(
    context: &ClusterContext,
    facts: &Facts,
    wanted: &RestoreRequest,
) -> Result<Result<RestorePlan, Shortfall>, AppError> {
    let mut source = Source { context };
    everpoint_core::plan_restore(&facts.log, &facts.backups, wanted, &mut source)
}

impl Facts {
    /// Whether any backup is good as far as is known.
    #[must_use]
    pub fn has_usable_backup(&self) -> bool {
        self.backups.iter().any(|backup| backup.status == BackupStatus::Ok)
    }

    /// What leads to the newest state of production.
    #[must_use]
    pub fn present(&self) -> Present<'_> {
        everpoint_core::present(&self.log, &self.backups)
    }

    /// Of each damaged backup that began later than this one (or of all, if there is no such), why it is not used.
    #[must_use]
    pub fn left_out(&self, chosen: &str) -> Vec<String> {
        let chosen = self.listings.iter().position(|listing| listing.label == chosen);
        let later = self.listings.iter().skip(chosen.map_or(0, |at| at + 1));
        let damaged = later.filter(|listing| planning_status(listing) == BackupStatus::Damaged);
        damaged
            .map(|listing| format!("backup {} can't be used: {}", listing.label, damage_text(listing)))
            .collect()
    }

    /// Reads a piece of the log and checks it.
    ///
    /// # Errors
    /// If it is missing or damaged.
    pub fn read_piece(
        &self,
        context: &ClusterContext,
        identity: u32,
        branch: &BranchId,
        span: Span,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), AppError> {
        let known = self.log.branch(identity, branch);
        let size = known.map(|branch| branch.segment_size).unwrap_or_default();
        read(&context.cluster.log(identity, branch.clone(), size), span, take)
    }
}
