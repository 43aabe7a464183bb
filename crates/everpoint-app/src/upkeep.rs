//! What bundling and expiry share: only one of them works on a cluster's log at a time.

use std::time::Duration;

use everpoint_core::{BranchId, FailureClass};
use everpoint_format::identity::Identity;
use everpoint_repo::{KeptLease, LogStore};

use crate::{AppError, ClusterContext};

/// How long the lease lasts after each renewal.
const LEASE: Duration = Duration::from_secs(60);

/// Takes the lease under which objects of the log are replaced and removed.
///
/// # Errors
/// `repo.locked` if another process does so now.
pub(crate) fn lease(context: &ClusterContext, what: &str) -> Result<KeptLease, AppError> {
    let holder = format!("{what} of process {}", std::process::id());
    let lease = context.repository.lease(&format!("upkeep-{}", context.name), &holder, LEASE)?;
    Ok(lease.keep())
}

/// Checks that the lease was not lost meanwhile.
///
/// # Errors
/// If it was.
pub(crate) fn check(context: &ClusterContext, lease: &KeptLease, what: &str) -> Result<(), AppError> {
    if lease.is_valid() {
        return Ok(());
    }
    let message = "its lock could not be renewed, and another process may work on the same objects";
    Err(AppError::new("upkeep.lease_lost", FailureClass::Locked, what, context.name.clone(), message)
        .hint("run it again; what was done is done"))
}

/// A branch of the log of an identity.
pub(crate) struct Branch {
    pub(crate) identity: u32,
    pub(crate) id: BranchId,
    pub(crate) log: LogStore,
}

/// All branches of which anything is stored.
///
/// # Errors
/// If the repository can't be read.
pub(crate) fn branches(context: &ClusterContext) -> Result<Vec<Branch>, AppError> {
    let mut found = Vec::new();
    for (identity, Identity { segment_size, .. }) in context.cluster.identities()? {
        for id in context.cluster.branches(identity)? {
            let log = context.cluster.log(identity, id.clone(), segment_size);
            found.push(Branch { identity, id, log });
        }
    }
    Ok(found)
}
