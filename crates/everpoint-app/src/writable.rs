//! Whether anything can be written to a repository: one that can only be read shows in nothing else until the next commit
//! is lost.

use std::time::Duration;

use everpoint_core::FailureClass;
use everpoint_repo::code;

use crate::{AppError, ClusterContext};

/// Whoever tries holds it for a moment.
const PROBE: &str = "probe";
const TTL: Duration = Duration::from_secs(10);

/// Tries to write something small; returns why that fails. A store that is full is told by its own line.
pub(crate) fn wrong(context: &ClusterContext) -> Option<AppError> {
    let holder = format!("a look by process {}", std::process::id());
    match context.repository.lease(PROBE, &holder, TTL) {
        Ok(lease) => lease.release().err().map(AppError::from),
        // Somebody else looks: it could write.
        Err(error) if error.class == FailureClass::Locked => None,
        Err(error) if error.code == code::FULL => None,
        Err(error) => Some(told(context, error.into())),
    }
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
