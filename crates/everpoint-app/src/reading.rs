//! Who reads a backup says so, so that expiry leaves it what it needs.
//!
//! A reader takes its lease before it looks what is there; expiry looks for leases after it removed the maps, and before
//! it removes what they referred to. So a reader either is seen, or does not see what goes.

use std::time::Duration;

use everpoint_repo::KeptLease;

use crate::{AppError, ClusterContext, text};

/// How long the lease lasts after each renewal.
const LEASE: Duration = Duration::from_secs(60);

fn prefix(cluster: &str) -> String {
    format!("reading-{cluster}-")
}

/// Says that somebody reads, until what is returned is dropped. Where that can't be written, as in a read-only copy of a
/// repository, nobody can expire anything either: it is only logged.
#[must_use]
pub fn begin(context: &ClusterContext, what: &str) -> Option<KeptLease> {
    let process = std::process::id();
    // Never used again: by no other process, nor by this one.
    let id = format!("{}{process}-{}", prefix(&context.name), text::now().0);
    match context.repository.lease(&id, &format!("{what} of process {process}"), LEASE) {
        Ok(lease) => Some(lease.keep()),
        Err(error) => {
            tracing::warn!(%error, "expiry is not told that this reads the repository");
            None
        }
    }
}

/// Who reads now.
///
/// # Errors
/// If the store can't tell.
pub(crate) fn readers(context: &ClusterContext) -> Result<Vec<String>, AppError> {
    let prefix = prefix(&context.name);
    // The names of other clusters may begin with the name of this one.
    let ours = |id: &str| {
        id.strip_prefix(&prefix).is_some_and(|rest| rest.bytes().all(|it| it.is_ascii_digit() || it == b'-'))
    };
    Ok(context.repository.holders_of_single_use(&ours)?)
}
