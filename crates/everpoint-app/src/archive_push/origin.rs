//! From which directory a file is pushed. A clone that was started beside production has its archive_command, too.

use std::path::{Path, PathBuf};

use everpoint_core::FailureClass;
use everpoint_core::clone::{Seat, is_clone};
use everpoint_engine::Engine;

use crate::lineage::branch_id;
use crate::restore::mark::same_place;
use crate::{AppError, ClusterContext};

/// Refuses the log of a clone of the server in the configured data directory. Where that is not known, or can't be looked
/// into, nothing is refused.
///
/// # Errors
/// `archive.clone` with both directories: nothing was stored.
pub(super) fn refuse_clone(context: &ClusterContext, path: &Path, log: &Path) -> Result<(), AppError> {
    let engine = context.engine.as_ref();
    let (Some(here), Some(configured)) = (directory(log), engine.data_directory()) else {
        return Ok(());
    };
    if same_place(&here, &configured) {
        return Ok(());
    }
    let (Some(storing), Some(known)) = (seat(engine, &here), seat(engine, &configured)) else {
        return Ok(());
    };
    if !is_clone(&storing, &known) {
        return Ok(());
    }
    let here = std::path::absolute(&here).unwrap_or(here);
    let message = format!(
        "it is pushed from {}, and the data_dir of {} is {}: two servers that write on one timeline",
        here.display(),
        context.name,
        configured.display()
    );
    Err(AppError::new("archive.clone", FailureClass::Usage, "store", path.display().to_string(), message).hint(
        format!(
            "in a clone, set archive_mode = off (or its own cluster in archive_command) and restart it; if production has \
             moved to {}, name that as data_dir in the configuration",
            here.display()
        ),
    ))
}

/// The data directory whose server runs the command: PostgreSQL runs it there; else the one above `pg_wal`.
fn directory(log: &Path) -> Option<PathBuf> {
    let is_one = |path: &PathBuf| path.join("PG_VERSION").exists();
    let above = || log.parent().map(Path::to_owned).filter(is_one);
    Some(PathBuf::from(".")).filter(is_one).or_else(above)
}

fn seat(engine: &dyn Engine, directory: &Path) -> Option<Seat> {
    let place = engine.local_place(directory).ok()?;
    let branch = branch_id(place.timeline, &place.history?);
    Some(Seat { system: place.system, branch, recovering: place.in_recovery })
}
