//! Whether anything can be written to a repository: one that can only be read shows in nothing else until the next commit
//! is lost.

use std::time::Duration;

use everpoint_core::FailureClass;
use everpoint_core::health::is_full;
use everpoint_repo::{RepoError, code};

use crate::{AppError, ClusterContext, health};

/// Whoever tries holds it for a moment.
const PROBE: &str = "probe";
const TTL: Duration = Duration::from_secs(10);

/// Tries to write something small; returns why that fails, or that nothing larger would have room ([`code::FULL`]).
pub(crate) fn wrong(context: &ClusterContext) -> Option<AppError> {
    let holder = format!("a look by process {}", std::process::id());
    match context.repository.lease(PROBE, &holder, TTL) {
        Ok(lease) => lease.release().err().map(AppError::from).or_else(|| full(context, false)),
        // Somebody else looks: it could write.
        Err(error) if error.class == FailureClass::Locked => full(context, false),
        Err(error) if error.code == code::FULL => full(context, true),
        Err(error) => Some(told(context, error.into())),
    }
}

/// As [`wrong`], and leaves nothing: an object is begun and never gets its name.
pub(crate) fn seems_wrong(context: &ClusterContext) -> Option<AppError> {
    match context.repository.store().create("leases/look") {
        Ok(begun) => {
            drop(begun);
            full(context, false)
        }
        Err(error) => Some(told(context, RepoError::from(error).into())),
    }
}

/// `said`: the store itself says that it is full.
fn full(context: &ClusterContext, said: bool) -> Option<AppError> {
    let store = context.repository.store();
    let space = store.space().ok().flatten();
    if !said && !space.is_some_and(|space| is_full(space.free, space.total)) {
        return None;
    }
    let (message, hint) = health::full_told(context, space);
    Some(AppError::new(code::FULL, FailureClass::Failed, "write to", store.describe(), message).hint(hint))
}

fn told(context: &ClusterContext, error: AppError) -> AppError {
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    let mut said = error.message.clone();
    while let Some(next) = cause {
        said = next.to_string();
        cause = next.source();
    }
    let place = context.repository.store().describe();
    let user = std::env::var("USER").ok().filter(|user| !user.is_empty());
    let who = user.map_or_else(String::new, |user| format!(" (run by {user})"));
    let made = AppError::new(&error.code, error.class, "write to", place, format!("{said}{who}"));
    made.hint("look whether it is mounted read-only, and whether the user that runs this may write there")
        .cause(error)
}
