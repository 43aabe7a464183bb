//! Where the cluster in a directory stands.

use std::path::Path;
use std::{fs, io};

use everpoint_core::{FailureClass, LogOffset};
use everpoint_engine::{EngineError, LocalPlace, LocalTimeline};

use super::failed;
use super::local::begun;
use crate::control::{CONTROL_FILE, ClusterState, Control};
use crate::history::History;
use crate::lsn::WalFile;

/// With it a server that is started follows another, and the newest timeline that it knows of.
const STANDBY_SIGNAL: &str = "standby.signal";

/// Files with which a server that is started recovers from an archive.
const SIGNALS: [&str; 2] = ["recovery.signal", STANDBY_SIGNAL];

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
    let recovering =
        matches!(control.state, ClusterState::ArchiveRecovery | ClusterState::ShutDownInRecovery);
    let in_recovery = recovering || SIGNALS.iter().any(|name| directory.join(name).exists());
    let (system, position) = (control.system, control.checkpoint);
    let mut place = LocalPlace { system, timeline, history: None, position, written, in_recovery };
    if directory.join(STANDBY_SIGNAL).exists() {
        let reached = if control.minimum_recovery_timeline == timeline {
            written.max(control.minimum_recovery)
        } else {
            written
        };
        if let Some(followed) = followed(directory, &place, reached, u64::from(control.segment_size))? {
            return Ok(followed);
        }
    }
    let history = directory.join(format!("pg_wal/{timeline:08X}.history"));
    place.history = match timeline {
        1 => Some(Vec::new()),
        _ => match fs::read(&history) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            other => Some(other.map_err(|error| failed("read", &history, error))?),
        },
    };
    Ok(place)
}

/// Where a standby has come that follows the newest timeline to which its own leads: until its next restart point only
/// `pg_wal` tells. Only as far as the log is there.
fn followed(
    directory: &Path,
    place: &LocalPlace,
    reached: LogOffset,
    segment_size: u64,
) -> Result<Option<LocalPlace>, EngineError> {
    let log = directory.join("pg_wal");
    let mut younger = histories(&log).map_err(|error| failed("list", &log, error))?;
    younger.retain(|timeline| *timeline > place.timeline);
    younger.sort_unstable();
    for timeline in younger.into_iter().rev() {
        let path = log.join(format!("{timeline:08X}.history"));
        let content = fs::read(&path).map_err(|error| failed("read", &path, error))?;
        // A server does not follow a timeline to which its own does not lead, or has left behind where this one is.
        let leads = |history: &History| history.left_at(place.timeline).is_some_and(|left| reached <= left);
        let Some(history) = History::parse(timeline, &content).ok().filter(leads) else { continue };
        let begin = history.fork().map_or(LogOffset(0), |(_, begin)| begin);
        let of = LocalTimeline { system: place.system, timeline, begin, reached: begin };
        if let Some(written) = begun(directory, &of, segment_size)? {
            return Ok(Some(LocalPlace { timeline, history: Some(content), written, ..place.clone() }));
        }
    }
    Ok(None)
}

/// The timelines whose history is there.
fn histories(log: &Path) -> io::Result<Vec<u32>> {
    let mut timelines = Vec::new();
    let entries = match fs::read_dir(log) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(timelines),
        Err(error) => return Err(error),
    };
    for entry in entries {
        if let Some(WalFile::History(timeline)) = entry?.file_name().to_str().and_then(WalFile::parse) {
            timelines.push(timeline);
        }
    }
    Ok(timelines)
}
