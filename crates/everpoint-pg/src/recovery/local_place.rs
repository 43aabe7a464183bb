//! Where the cluster in a directory stands.

use std::path::Path;
use std::{fs, io};

use everpoint_core::FailureClass;
use everpoint_engine::{EngineError, LocalPlace};

use super::failed;
use crate::control::{CONTROL_FILE, ClusterState, Control};

/// Files with which a server that is started recovers from an archive.
const SIGNALS: [&str; 2] = ["recovery.signal", "standby.signal"];

/// Reads it from `pg_control` and the history of its timeline.
///
/// # Errors
/// Class `Usage` if it is no data directory; if its files can't be read.
pub fn local_place(directory: &Path) -> Result<LocalPlace, EngineError> {
    let path = directory.join(CONTROL_FILE);
    let none = |message: String| {
        let object = directory.display().to_string();
        EngineError::new("pg.no_data_directory", "look at", object, message).class(FailureClass::Usage)
    };
    let bytes =
        fs::read(&path).map_err(|error| none(format!("{} can't be read: {error}", path.display())))?;
    let control = Control::parse(&bytes).map_err(|error| none(error.to_string()))?;
    // As a server decides that is started on it: right after a promotion the last checkpoint is still on the timeline before.
    let promoted = control.minimum_recovery_timeline > control.timeline;
    let timeline = if promoted { control.minimum_recovery_timeline } else { control.timeline };
    let written = if promoted { control.minimum_recovery } else { control.checkpoint.plus(1) };
    let history = directory.join(format!("pg_wal/{timeline:08X}.history"));
    let history = match timeline {
        1 => Some(Vec::new()),
        _ => match fs::read(&history) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            other => Some(other.map_err(|error| failed("read", &history, error))?),
        },
    };
    let recovering =
        matches!(control.state, ClusterState::ArchiveRecovery | ClusterState::ShutDownInRecovery);
    Ok(LocalPlace {
        system: control.system,
        timeline,
        history,
        position: control.checkpoint,
        written,
        in_recovery: recovering || SIGNALS.iter().any(|name| directory.join(name).exists()),
    })
}
