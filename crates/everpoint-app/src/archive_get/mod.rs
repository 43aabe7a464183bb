//! `archive-get`: puts a file of the log where a recovering server wants it.
//!
//! A server asks for one file at a time and replays it before it asks for the next. So that it never waits, a background
//! process ([`crate::prefetch`]) keeps the next segments in a spool beside the destination; then this only renames.

mod choice;
mod spool;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use everpoint_core::{FailureClass, LogEvent, LogOffset, Verdict};
use everpoint_engine::{EngineError, beside};
use everpoint_repo::{LogStore, RepoError};

use crate::log_file::LogFile;
use crate::restore::salvage::FetchError;
use crate::{AppError, ClusterContext, Events};
pub use choice::Choice;
pub use spool::Spool;

/// Threads that decompress one segment.
const WORKERS: usize = 2;

/// Which file, and where to put it.
#[derive(Debug, Clone)]
pub struct ArchiveGetRequest {
    /// Its name, as PostgreSQL gives it with `%f`.
    pub name: String,
    /// Where to put it, as PostgreSQL gives it with `%p`.
    pub destination: PathBuf,
    /// The branch that is followed: its name, with or without its identity and a slash before it. `None`: the newest one.
    pub branch: Option<String>,
    /// The server is a copy: what it replays must not touch directories outside of its own.
    pub in_place_tablespaces: bool,
    /// How many bytes of the segments that follow are kept ready; 0: none.
    pub look_ahead_bytes: u64,
    /// No segment that begins here or behind is kept ready: the recovery ends before; `None`: nobody knows.
    pub until: Option<LogOffset>,
    /// Data directory of the server that recovers: with its recovery ends the keeping ready; `None`: not known.
    pub recovery: Option<PathBuf>,
}

/// Whether the file was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Got {
    /// It is at its destination.
    Found,
    /// It is certainly not stored.
    NotThere,
}

/// Takes the file from the spool, if it is ready there. Needs no repository: to be tried before one is opened.
#[must_use]
pub fn take_ahead(cluster: &str, request: &ArchiveGetRequest) -> Option<Got> {
    let spool = Spool::of(cluster, request)?;
    spool.take(&request.name, &request.destination).then_some(Got::Found)
}

/// Fetches the file. Whatever is not certain is an error, of which a trace is left beside the destination, so that whoever
/// follows the recovery can say why it stopped.
///
/// # Errors
/// If it can't be said whether it is stored, or it is and can't be had.
pub fn run(
    context: &ClusterContext,
    request: &ArchiveGetRequest,
    _events: &dyn Events,
) -> Result<Got, AppError> {
    if take_ahead(&context.name, request).is_some() {
        return Ok(Got::Found);
    }
    let result = fetch(context, request);
    match &result {
        Err(error) => leave_trace(error, request),
        Ok(Got::Found) => {
            if let Some(spool) = Spool::of(&context.name, request) {
                spool.want(&request.name);
            }
        }
        Ok(Got::NotThere) => {}
    }
    result
}

fn leave_trace(error: &AppError, request: &ArchiveGetRequest) {
    let trace = FetchError {
        code: error.code.clone(),
        object: request.name.clone(),
        message: error.to_string(),
        damaged: error.class == FailureClass::Damaged,
    };
    trace.leave(&request.destination);
}

fn fetch(context: &ClusterContext, request: &ArchiveGetRequest) -> Result<Got, AppError> {
    let Some(file) = LogFile::parse(&request.name) else {
        let message = "its name is none of a file of the log";
        return Err(AppError::new("archive.file_name", FailureClass::Usage, "fetch", &request.name, message)
            .hint("restore_command = 'everpoint archive-get CLUSTER %f \"%p\"'"));
    };
    let choice = Choice::new(context, request.branch.as_deref())?;
    let bytes = match file {
        LogFile::History(timeline) => choice.history_of(timeline)?,
        LogFile::Partial(_) | LogFile::Backup(_) => match choice.log_of(file.timeline())? {
            Some(log) => log.other(&request.name)?,
            None => None,
        },
        LogFile::Segment(name) => match name.start(choice.segment_size()) {
            Some(start) => match choice.log_with(name.timeline, start)? {
                Some(log) => segment(context, &choice, &log, start, request.in_place_tablespaces)?,
                None => None,
            },
            None => None,
        },
    };
    let Some(bytes) = bytes else {
        return Ok(Got::NotThere);
    };
    write_whole(&request.destination, &bytes)?;
    Ok(Got::Found)
}

/// The bytes of a segment: whole, or as far as its tails go and zeros behind. `None` if nothing of its start is stored.
pub(crate) fn segment(
    context: &ClusterContext,
    choice: &Choice<'_>,
    log: &LogStore,
    start: LogOffset,
    for_copy: bool,
) -> Result<Option<Vec<u8>>, AppError> {
    let Some((mut bytes, end)) = log.read_stored(start, WORKERS)? else {
        return Ok(None);
    };
    // A server takes nothing but segments of full size.
    bytes.resize(usize::try_from(log.segment_size()).unwrap_or(usize::MAX), 0);
    let whole = end.since(start) == log.segment_size();
    if for_copy && (!whole || may_name_places(log, start)?) {
        let mut neighbour = |at: LogOffset| choice.whole_segment(log, start, at).map_err(neighbour_error);
        context.engine.rewrite_for_copy(&mut bytes, start, log.segment_size(), &mut neighbour)?;
    }
    Ok(Some(bytes))
}

fn neighbour_error(error: AppError) -> EngineError {
    let mut made = EngineError::new("archive.neighbour", "read", error.object.clone(), error.message.clone());
    made.class = error.class;
    made.retryable = error.retryable;
    made.cause(error)
}

/// Whether a record of a whole segment may name a directory of a tablespace, as far as digests tell. The record may begin
/// in one segment and end in the next, whose digest has it then.
fn may_name_places(log: &LogStore, start: LogOffset) -> Result<bool, RepoError> {
    let names = |event: &LogEvent| {
        matches!(event, LogEvent::TablespaceCreate { .. } | LogEvent::TablespaceDrop { .. })
    };
    let Some(own) = log.segment_digest(start)? else {
        return Ok(true);
    };
    if own.head_unknown || matches!(own.verdict, Verdict::Broken { .. }) || own.events.iter().any(names) {
        return Ok(true);
    }
    if own.verdict == Verdict::Intact {
        return Ok(false);
    }
    let end = start.plus(log.segment_size());
    let Some(next) = log.segment_digest(end)? else {
        return Ok(true);
    };
    let crossing = |event: &LogEvent| names(event) && event.record().start < end;
    Ok(next.head_unknown || next.events.iter().any(crossing))
}

/// Writes a file under another name and renames it, so that half of it never stands at the destination. Not synced: after
/// a crash the recovery begins anew.
pub(crate) fn write_whole(destination: &Path, bytes: &[u8]) -> Result<(), AppError> {
    let mut beside = destination.as_os_str().to_owned();
    beside.push(".everpoint");
    let beside = PathBuf::from(beside);
    let write = || {
        // A server's log is for its user alone, whatever the umask of who fetches it.
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        beside::give(&file, &beside::directory_of(destination))?;
        file.write_all(bytes)?;
        drop(file);
        std::fs::rename(&beside, destination)
    };
    write().map_err(|error| {
        // What is left of it is written over by the next attempt.
        let _ = std::fs::remove_file(&beside);
        AppError::io("write", destination, error)
    })
}
