//! `archive-prefetch`: a process of its own, beside a recovering server, that keeps the next segments ready.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use everpoint_app::AppError;
use everpoint_app::prefetch::{self, PrefetchRequest};
use everpoint_core::LogOffset;

use crate::cli::ArchivePrefetch;
use crate::config::RepositoryConfig;
use crate::render::Done;
use crate::session::{Session, leading_arguments};
use crate::signal::stop_flag;

pub(crate) fn run(session: &Session, arguments: ArchivePrefetch) -> Result<Done, AppError> {
    let session = &session.serverless();
    let opened = session.stored_cluster(&arguments.cluster)?;
    let request = PrefetchRequest {
        spool: arguments.spool,
        after: arguments.after,
        branch: arguments.branch,
        in_place_tablespaces: arguments.in_place_tablespaces,
        bytes: arguments.bytes,
        until: arguments.until.map(LogOffset),
        recovery: arguments.recovery,
    };
    prefetch::run(&opened.context, &request, &stop_flag())?;
    Ok(Done::plain(String::new()))
}

/// Starts it. Nobody waits for it, and what goes wrong only makes the next segments slower.
pub(crate) fn start(
    session: &Session,
    repository: &RepositoryConfig,
    cluster: &str,
    wanted: &PrefetchRequest,
) {
    let started = leading_arguments(session, repository).and_then(|leading| {
        let mut command = Command::new(program()?);
        command
            .args(leading)
            .args(["--quiet", "archive-prefetch", cluster, &wanted.after])
            .arg(&wanted.spool);
        command.args(["--bytes", &wanted.bytes.to_string()]);
        if let Some(LogOffset(until)) = wanted.until {
            command.args(["--until", &until.to_string()]);
        }
        if let Some(data_dir) = &wanted.recovery {
            command.arg("--recovery").arg(data_dir);
        }
        if let Some(branch) = &wanted.branch {
            command.args(["--branch", branch]);
        }
        if wanted.in_place_tablespaces {
            command.arg("--in-place-tablespaces");
        }
        // In a group of its own, so that a signal for the server's commands does not reach it.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        command
            .spawn()
            .map_err(|error| AppError::io("start", std::path::Path::new("archive-prefetch"), error))
    });
    if let Err(error) = started {
        tracing::debug!(%error, "segments are not fetched ahead");
    }
}

/// This program.
fn program() -> Result<std::path::PathBuf, AppError> {
    std::env::current_exe().map_err(|error| AppError::io("find", std::path::Path::new("this program"), error))
}
