//! The asking side: `archive-get` of a server that runs as another user.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use everpoint_app::AppError;
use everpoint_app::archive_get::Got;
use everpoint_core::FailureClass;

use super::{Answer, Question};
use crate::cli::ArchiveGet;

/// A segment of 1 GiB from a slow store may take a while.
const PATIENCE: Duration = Duration::from_secs(600);

/// Asks the process behind `socket`. `None`: nobody listens there any more.
///
/// # Errors
/// Whatever else keeps it from being certain whether the file is stored.
pub(crate) fn get(socket: &Path, arguments: &ArchiveGet) -> Option<Result<Got, AppError>> {
    let stream = UnixStream::connect(socket).ok()?;
    Some(ask(stream, socket, arguments))
}

fn ask(mut stream: UnixStream, socket: &Path, arguments: &ArchiveGet) -> Result<Got, AppError> {
    let wrap = |error| AppError::io("ask the restoring process at", socket, error);
    stream.set_read_timeout(Some(PATIENCE)).map_err(wrap)?;
    let question = Question {
        name: arguments.name.clone(),
        branch: arguments.branch.clone(),
        in_place_tablespaces: arguments.in_place_tablespaces,
        until: arguments.until,
    };
    let text = serde_json::to_string(&question).map_err(|error| wrap(error.into()))?;
    writeln!(stream, "{text}").map_err(wrap)?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).map_err(wrap)?;
    let answer: Answer = serde_json::from_str(&line).map_err(|error| wrap(error.into()))?;
    if let Some(refusal) = answer.error {
        return Err(AppError::new(
            &refusal.code,
            FailureClass::Failed,
            "fetch",
            refusal.object,
            refusal.message,
        ));
    }
    let Some(length) = answer.length else {
        return Ok(Got::NotThere);
    };
    write(&mut reader, length, &arguments.destination)?;
    Ok(Got::Found)
}

/// Under another name first: half a file must never stand at the destination.
fn write(from: &mut impl std::io::Read, length: u64, destination: &Path) -> Result<(), AppError> {
    let mut beside = destination.as_os_str().to_owned();
    beside.push(".everpoint");
    let beside = PathBuf::from(beside);
    let wrap = |error| AppError::io("write", &beside, error);
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside).map_err(wrap)?;
    let written = std::io::copy(&mut from.take(length), &mut file).map_err(wrap)?;
    if written != length {
        return Err(AppError::io("read", destination, std::io::ErrorKind::UnexpectedEof.into()));
    }
    everpoint_engine::beside::give(&file, &everpoint_engine::beside::directory_of(destination))
        .map_err(wrap)?;
    std::fs::rename(&beside, destination).map_err(|error| AppError::io("write", destination, error))
}
