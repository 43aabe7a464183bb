//! Lets go of a branch of the log that production is not on: what a copy or a recovery that was given up left.

use everpoint_core::production::{descends, production};
use everpoint_core::{BranchFacts, BranchId, FailureClass, LogFacts};
use everpoint_repo::Freed;
use serde::Serialize;

use crate::facts::{self, Facts};
use crate::{AppError, ClusterContext, reading, text, upkeep};

/// What went, or would.
#[derive(Debug, Clone, Serialize)]
pub struct DropBranchReport {
    /// Name of the cluster.
    pub cluster: String,
    /// The branch.
    pub branch: String,
    /// Its timeline.
    pub timeline: u32,
    /// Nothing was removed.
    pub dry_run: bool,
    /// Labels of its backups, which go with it.
    pub backups: Vec<String>,
    /// Objects of its log.
    pub log_objects: u64,
    /// Bytes of its log.
    pub log_bytes: u64,
}

/// Removes a branch with its backups.
///
/// # Errors
/// `branch.needed` if production is or may be on it or came over it, another branch goes on from it, or a backup of it is on
/// hold: nothing was removed. `repo.locked` while others work on the log or read.
pub fn run(context: &ClusterContext, id: &BranchId, dry_run: bool) -> Result<DropBranchReport, AppError> {
    let _lease = if dry_run { None } else { Some(upkeep::lease(context, "dropping a branch")?) };
    let facts = facts::load(context)?;
    let branch = find(&facts.log, id)?;
    refuse_needed(context, &facts, branch)?;
    let of_branch =
        facts.backups.iter().filter(|it| it.identity == branch.identity && it.branch == branch.id);
    let backups: Vec<String> = of_branch.map(|backup| backup.label.clone()).collect();
    let held = context.cluster.holds()?;
    let in_force = |label: &&String| {
        held.iter().any(|hold| hold.label == **label && hold.until.is_none_or(|it| it > text::now()))
    };
    if let Some(label) = backups.iter().find(in_force) {
        return Err(needed(context, branch, &format!("its backup {label} is on hold")));
    }
    if !dry_run {
        let readers = reading::readers(context)?;
        if !readers.is_empty() {
            let message = format!("somebody reads: {}", readers.join(", "));
            return Err(AppError::new(
                "repo.locked",
                FailureClass::Locked,
                "drop branch",
                id.as_str(),
                message,
            ));
        }
        for label in &backups {
            context.cluster.remove_backup(label, false)?;
        }
    }
    let log = context.cluster.log(branch.identity, branch.id.clone(), branch.segment_size);
    let Freed { objects, bytes } = log.remove_all(dry_run)?;
    Ok(DropBranchReport {
        cluster: context.name.clone(),
        branch: id.to_string(),
        timeline: branch.timeline,
        dry_run,
        backups,
        log_objects: objects,
        log_bytes: bytes,
    })
}

fn find<'a>(log: &'a LogFacts, id: &BranchId) -> Result<&'a BranchFacts, AppError> {
    let newest = log.branches.iter().filter(|branch| branch.id == *id).max_by_key(|branch| branch.identity);
    newest.ok_or_else(|| {
        let known: Vec<String> = log.branches.iter().map(|branch| branch.id.to_string()).collect();
        AppError::new(
            "branch.unknown",
            FailureClass::Usage,
            "drop branch",
            id.as_str(),
            "nothing is stored of it",
        )
        .hint(everpoint_core::words::known(
            id.as_str(),
            "branches",
            known.iter().map(String::as_str),
        ))
    })
}

/// A branch whose history can't be read may have come over any other.
fn refuse_unclear(context: &ClusterContext, branch: &BranchFacts, log: &LogFacts) -> Result<(), AppError> {
    for other in log.branches.iter().filter(|it| it.identity == branch.identity && it.timeline > 1) {
        let store = context.cluster.log(other.identity, other.id.clone(), other.segment_size);
        let read = store.history().map_err(AppError::from);
        let read = read.and_then(|bytes| Ok(context.engine.history(&bytes.unwrap_or_default()).map(drop)?));
        if read.is_err() || store.history()?.is_none() {
            return Err(needed(
                context,
                branch,
                &format!("the history of branch {} can't be read", other.id),
            ));
        }
    }
    Ok(())
}

fn refuse_needed(context: &ClusterContext, facts: &Facts, branch: &BranchFacts) -> Result<(), AppError> {
    refuse_unclear(context, branch, &facts.log)?;
    let candidates = production(&facts.log, branch.identity).candidates();
    let leads_there = |leaf: &&BranchFacts| leaf.id == branch.id || descends(&facts.log, leaf, branch);
    if let Some(leaf) = candidates.iter().find(|leaf| leads_there(leaf)) {
        let what = if leaf.id == branch.id { "is on it" } else { "came over it" };
        return Err(needed(context, branch, &format!("production {what}, as far as is known")));
    }
    let mut others = facts.log.branches.iter().filter(|it| it.identity == branch.identity);
    if let Some(other) = others.find(|other| descends(&facts.log, other, branch)) {
        return Err(needed(
            context,
            branch,
            &format!("branch {} goes on from it: drop that one first", other.id),
        ));
    }
    Ok(())
}

fn needed(context: &ClusterContext, branch: &BranchFacts, why: &str) -> AppError {
    AppError::new("branch.needed", FailureClass::Usage, "drop branch", branch.id.as_str(), why)
        .hint(format!("see all branches: everpoint list {}", context.name))
}
