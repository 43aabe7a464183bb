//! `archive-get`: puts a file of the log where a recovering server wants it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use everpoint_app::archive_get::{self, ArchiveGetRequest, Got};
use everpoint_app::restore::salvage::FetchError;
use everpoint_app::{AppError, Quiet, prefetch};
use everpoint_core::{FailureClass, LogOffset};
use serde_json::json;

use super::archive_prefetch;
use crate::cli::ArchiveGet;
use crate::fetch;
use crate::render::Done;
use crate::session::Session;

const COMMAND: &str = "archive-get";
/// Certainly not stored.
const NOT_THERE: u8 = 1;
/// PostgreSQL stops its recovery at this and above.
const UNCERTAIN: u8 = 126;
/// Bytes of log fetched ahead if the configuration does not say.
pub(crate) const FETCH_AHEAD: u64 = 128 << 20;

/// Whether the arguments ask for this command, even if the rest of them can't be understood.
pub(crate) fn is_asked_for(arguments: &[OsString]) -> bool {
    arguments.iter().skip(1).any(|argument| argument == COMMAND)
}

/// The exit code when it is not certain whether the file is stored. A server that recovers to a target must stop; a
/// standby would be ended by such a code and must ask again instead. PostgreSQL runs the command in its data
/// directory.
pub(crate) fn uncertain() -> u8 {
    uncertain_in(Path::new("."))
}

fn uncertain_in(data_dir: &Path) -> u8 {
    if data_dir.join("standby.signal").exists() { NOT_THERE } else { UNCERTAIN }
}

pub(crate) fn run(session: &Session, arguments: &ArchiveGet) -> Result<Done, AppError> {
    let got = get(session, arguments).inspect_err(|error| {
        // Whoever follows the recovery can say then why it stopped.
        let trace = FetchError {
            code: error.code.clone(),
            object: arguments.name.clone(),
            message: error.to_string(),
            damaged: error.class == FailureClass::Damaged,
        };
        trace.leave(&arguments.destination);
    })?;
    let found = got == Got::Found;
    let done = Done::new(&json!({"name": arguments.name, "found": found}), String::new());
    Ok(if found { done } else { done.code(NOT_THERE) })
}

fn get(session: &Session, arguments: &ArchiveGet) -> Result<Got, AppError> {
    if let Some(got) = session.global.fetch_via.as_deref().and_then(|socket| fetch::get(socket, arguments)) {
        return got;
    }
    // What lies ready costs neither configuration nor repository.
    if let Some(got) = archive_get::take_ahead(&arguments.cluster, &request(arguments, FETCH_AHEAD)) {
        return Ok(got);
    }
    let session = &session.serverless();
    let opened = session.stored_cluster(&arguments.cluster)?;
    let request = request(arguments, session.limits().fetch_ahead.unwrap_or(FETCH_AHEAD));
    let got = archive_get::run(&opened.context, &request, &Quiet)?;
    if got == Got::Found
        && let Some(wanted) = prefetch::wanted(&arguments.cluster, &request)
    {
        archive_prefetch::start(session, &opened.repository, &arguments.cluster, &wanted);
    }
    Ok(got)
}

fn request(arguments: &ArchiveGet, look_ahead_bytes: u64) -> ArchiveGetRequest {
    ArchiveGetRequest {
        name: arguments.name.clone(),
        destination: arguments.destination.clone(),
        branch: arguments.branch.clone(),
        in_place_tablespaces: arguments.in_place_tablespaces,
        look_ahead_bytes,
        until: arguments.until.map(LogOffset),
        // PostgreSQL runs the command in its data directory; other programs run it anywhere.
        recovery: Some(PathBuf::from(".")).filter(|here| prefetch::recovery::runs_in(here)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_uncertain_answer_stops_a_recovery_but_not_a_standby() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(uncertain_in(directory.path()), 126);
        std::fs::write(directory.path().join("recovery.signal"), "").unwrap();
        assert_eq!(uncertain_in(directory.path()), 126);
        std::fs::write(directory.path().join("standby.signal"), "").unwrap();
        assert_eq!(uncertain_in(directory.path()), 1);
    }

    #[test]
    fn the_command_is_recognised_in_any_arguments() {
        let asked = |words: &[&str]| is_asked_for(&words.iter().map(OsString::from).collect::<Vec<_>>());
        assert!(asked(&["everpoint", "--nonsense", "archive-get"]));
        assert!(!asked(&["archive-get", "list"]));
    }
}
