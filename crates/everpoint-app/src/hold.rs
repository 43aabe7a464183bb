//! `hold`: a backup that must not expire, until a moment or until it is released.

use everpoint_core::{FailureClass, Micros};
use serde::Serialize;

use crate::{AppError, ClusterContext, text};

/// What to do.
#[derive(Debug, Clone)]
pub struct HoldRequest {
    /// Label of the backup.
    pub label: String,
    /// Until when; `None`: until it is released.
    pub until: Option<Micros>,
    /// End its hold instead.
    pub release: bool,
}

/// What is in force now.
#[derive(Debug, Clone, Serialize)]
pub struct HoldReport {
    /// Name of the cluster.
    pub cluster: String,
    /// Label of the backup.
    pub label: String,
    /// It is on hold.
    pub held: bool,
    /// Until when; RFC 3339. Absent: until it is released.
    pub until: Option<String>,
}

/// Holds a backup, or ends its hold.
///
/// # Errors
/// `backup.unknown` if there is no such backup, `hold.past` for a moment that is over.
pub fn run(context: &ClusterContext, request: &HoldRequest) -> Result<HoldReport, AppError> {
    let known = context.cluster.backups()?;
    if !known.iter().any(|listing| listing.label == request.label) {
        let message = "there is none of that label";
        let error =
            AppError::new("backup.unknown", FailureClass::Usage, "hold the backup", &request.label, message);
        let labels = known.iter().map(|listing| listing.label.as_str());
        return Err(error.hint(everpoint_core::words::known(&request.label, "backups", labels)));
    }
    if let Some(until) = request.until.filter(|until| !request.release && *until <= text::now()) {
        let message = format!("{} is over", text::time(until));
        return Err(AppError::new(
            "hold.past",
            FailureClass::Usage,
            "hold the backup",
            &request.label,
            message,
        )
        .hint("give a moment to come with --until, or none to hold it until it is released"));
    }
    if request.release {
        context.cluster.release_hold(&request.label)?;
    } else {
        context.cluster.hold(&request.label, request.until)?;
    }
    Ok(HoldReport {
        cluster: context.name.clone(),
        label: request.label.clone(),
        held: !request.release,
        until: request.until.filter(|_| !request.release).map(text::time),
    })
}
