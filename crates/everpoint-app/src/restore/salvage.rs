//! Before a directory is written over in place: the log that only it may still hold goes into the repository.

use std::path::{Path, PathBuf};

use everpoint_core::{BranchId, FailureClass};
use everpoint_engine::{DirectoryProof, LogSink};

use super::prove::links_are_its_own;
use super::{RestoreRequest, live};
use crate::facts::Facts;
use crate::log_writer::LogWriter;
use crate::{AppError, ClusterContext, Event, Events};

/// Where archive-get leaves the error that stopped a recovery, beside the WAL.
pub const FETCH_ERROR: &str = "everpoint-fetch-error.json";

/// Stands in a restored directory that was not meant to replace production.
pub const COPY_MARK: &str = "everpoint.copy";

/// [`run`] where nothing is planned yet, because what is stored does not reach the target: the directory is given up for
/// production's only if its files and its place say so. Nothing in it is touched.
///
/// # Errors
/// If a server runs on it; as [`run`].
pub fn early(
    context: &ClusterContext,
    request: &RestoreRequest,
    facts: &Facts,
    events: &dyn Events,
) -> Result<bool, AppError> {
    let root = std::path::absolute(&request.directory)
        .map_err(|error| AppError::io("find", &request.directory, error))?;
    let known = |system: u64| {
        facts.identity.as_ref().is_some_and(|(_, known)| known.system_identifier == system.to_string())
    };
    let engine = context.engine.as_ref();
    let ours = matches!(engine.directory_proof(&root), DirectoryProof::Cluster(system) if known(system));
    let newest = facts.listings.iter().rev().find_map(|listing| listing.record.as_ref());
    let recorded = newest.and_then(|record| record.facts.iter().find(|(name, _)| name == "data_directory"));
    let recorded = recorded.map(|(_, value)| value.as_str());
    let replaces = request.replace_production;
    if !ours || !links_are_its_own(engine, &root, recorded, replaces) {
        return Ok(false);
    }
    live::refuse(engine, &root, request.server_is_stopped)?;
    run(context, facts, &root, events)
}

/// Captures the whole records that `pg_wal` holds beyond what the repository has, and returns whether there were any. A
/// directory of another cluster, or one without log, has nothing to give; what a copy wrote is none of production's log,
/// and goes with the directory.
///
/// # Errors
/// If the log is there and can't be stored: then nothing in the directory may be touched.
pub fn run(
    context: &ClusterContext,
    facts: &Facts,
    directory: &Path,
    events: &dyn Events,
) -> Result<bool, AppError> {
    let Some((identity, known)) = &facts.identity else {
        return Ok(false);
    };
    if directory.join(COPY_MARK).exists() {
        return Ok(false);
    }
    let segments = segments(&directory.join("pg_wal"))?;
    let Some(newest) = segments.last() else {
        return Ok(false);
    };
    let Some(timeline) = newest.get(..8).and_then(|hex| u32::from_str_radix(hex, 16).ok()) else {
        return Ok(false);
    };
    let log = directory.join("pg_wal");
    let found = context.engine.local_log(directory, timeline, known.segment_size)?;
    let Some(found) = found.filter(|found| found.system.to_string() == known.system_identifier) else {
        return Ok(false);
    };
    let history = match timeline {
        1 => Vec::new(),
        // Without it the log would be stored under a branch that is none.
        _ => read(&log.join(format!("{timeline:08X}.history"))).map_err(|error| {
            error
                .hint("bring the file back: without it nothing tells which branch this directory's log is of")
        })?,
    };
    // Only the timeline of a branch is in the names of its segments.
    let names = context.cluster.log(*identity, BranchId::new(timeline, [0; 8]), known.segment_size);
    let mut writer = LogWriter::open(context, *identity, known.segment_size)?;
    let begin = writer.position(timeline, &history)?.unwrap_or(found.from).max(found.from);
    if begin >= found.to {
        return Ok(false);
    }
    events.emit(Event::Step(format!("saving the WAL that only {} holds", log.display())));
    writer.timeline(timeline, &history, begin)?;
    let mut at = begin;
    while at < found.to {
        let name = names.segment_name(at);
        let bytes = read(&log.join(&name))?;
        let from = usize::try_from(at.0 % known.segment_size).unwrap_or_default();
        let until = (at.0 / known.segment_size + 1) * known.segment_size;
        let to = from + usize::try_from(until.min(found.to.0) - at.0).unwrap_or_default();
        let Some(part) = bytes.get(from..to) else {
            return Err(AppError::new(
                "log.short",
                FailureClass::Damaged,
                "read",
                name,
                "the segment is shorter than it should be",
            ));
        };
        writer.write(at, part)?;
        at = at.plus(part.len() as u64);
    }
    writer.timeline_end(at)?;
    events.emit(Event::Info(format!("WAL up to {} is stored now", crate::text::lsn(at))));
    Ok(true)
}

fn segments(log: &Path) -> Result<Vec<String>, AppError> {
    let entries = match std::fs::read_dir(log) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|error| AppError::io("list", log, error))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry
            .map_err(|error| AppError::io("list", log, error))?
            .file_name()
            .to_string_lossy()
            .into_owned();
        if name.len() == 24 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn read(path: &PathBuf) -> Result<Vec<u8>, AppError> {
    std::fs::read(path).map_err(|error| AppError::io("read", path, error))
}

/// A recovery that stopped because log could not be fetched gets the reason that archive-get left.
#[must_use]
pub fn with_fetch_error(error: AppError, directory: &Path) -> AppError {
    let left = directory.join("pg_wal").join(FETCH_ERROR);
    let Ok(text) = std::fs::read_to_string(left) else {
        return error;
    };
    let Ok(fetch) = serde_json::from_str::<FetchError>(&text) else {
        return error;
    };
    let class = if fetch.damaged { FailureClass::Damaged } else { error.class };
    AppError::new(&fetch.code, class, "replay", fetch.object, fetch.message).cause(error)
}

/// What archive-get leaves when it fails for another reason than "not there".
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct FetchError {
    /// Stable code.
    pub code: String,
    /// The file asked for.
    pub object: String,
    /// Why it could not be had.
    pub message: String,
    /// The repository holds it, but damaged.
    pub damaged: bool,
}

impl FetchError {
    /// Leaves it beside `destination`, best effort: the exit code stops the server anyway.
    pub fn leave(&self, destination: &Path) {
        if let (Some(directory), Ok(text)) = (destination.parent(), serde_json::to_string(self))
            && let Err(error) = std::fs::write(directory.join(FETCH_ERROR), text)
        {
            tracing::debug!(%error, "the reason could not be left beside the WAL");
        }
    }
}
