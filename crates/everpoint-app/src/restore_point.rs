//! `restore-point`: gives a moment a name.

use everpoint_core::FailureClass;
use serde::Serialize;

use crate::{AppError, ClusterContext, text};

/// PostgreSQL keeps this many bytes of a name.
const LONGEST: usize = 63;

/// The restore point.
#[derive(Debug, Clone, Serialize)]
pub struct RestorePointReport {
    /// Its name.
    pub name: String,
    /// Where it stands in the log.
    pub lsn: String,
    /// About when it was made, by this machine's clock; RFC 3339.
    pub time: String,
}

/// Writes a restore point into the log of the cluster.
///
/// # Errors
/// `Usage` if the name can't be one; else if the server refuses (a standby can't).
pub fn run(context: &ClusterContext, name: &str) -> Result<RestorePointReport, AppError> {
    if name.is_empty() || name.len() > LONGEST || name.chars().any(char::is_control) {
        let message = format!("a name has 1 to {LONGEST} bytes and no control characters");
        return Err(AppError::new(
            "restore_point.name",
            FailureClass::Usage,
            "make the restore point",
            name,
            message,
        ));
    }
    let position = context.engine.restore_point(name)?;
    Ok(RestorePointReport { name: name.to_owned(), lsn: text::lsn(position), time: text::time(text::now()) })
}
