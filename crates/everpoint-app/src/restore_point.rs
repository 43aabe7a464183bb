//! `restore-point`: gives a moment a name.

use everpoint_core::FailureClass;
use serde::Serialize;

use crate::{AppError, ClusterContext, facts, restore_points, text};

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
    /// The last one of this name that was stored before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub earlier: Option<EarlierPoint>,
}

/// One that has the same name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EarlierPoint {
    /// Where it stands in the log.
    pub lsn: String,
    /// When it was made; RFC 3339.
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
    let earlier = earlier(context, name).unwrap_or_else(|error| {
        tracing::debug!(%error, "whether there is a restore point of this name can't be told");
        None
    });
    let position = context.engine.restore_point(name)?;
    let (lsn, time) = (text::lsn(position), text::time(text::now()));
    Ok(RestorePointReport { name: name.to_owned(), lsn, time, earlier })
}

/// The last one of this name that is stored.
fn earlier(context: &ClusterContext, name: &str) -> Result<Option<EarlierPoint>, AppError> {
    let points = restore_points::find(context, &facts::load(context)?)?;
    let last = points.into_iter().rev().find(|point| point.name == name);
    Ok(last.map(|point| EarlierPoint { lsn: text::lsn(point.at), time: text::time(point.time) }))
}
