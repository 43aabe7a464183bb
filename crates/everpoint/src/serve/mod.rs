//! The daemon: captures all clusters of the configuration, and runs jobs when they are due, until it is stopped.

mod current;
mod due;
mod history;
mod job;
mod notify;
mod package;
mod reload;
mod runner;
mod served;
mod state;
mod surface;
#[cfg(test)]
mod tests;
mod watch;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use everpoint_app::AppError;
use everpoint_core::{FailureClass, Micros};
use everpoint_engine::StopFlag;
use serde::Serialize;

use crate::config::Config;
use crate::render::Done;
use crate::session::{Opened, Session};
use crate::signal::stop_flag;
use history::History;
use runner::Runner;
use served::Served;

pub(crate) use state::{state_dir, state_place};

/// The file of the history in the state directory.
const STATE: &str = "state.db";

/// So long after the signal it has ended, whatever still works.
const STOP_TIME: Duration = Duration::from_secs(9);

#[derive(Serialize)]
pub(crate) struct ServeReport {
    clusters: Vec<String>,
    seconds: f64,
}

/// Under this word the daemon notes where it has read backups of a cluster.
const REPOSITORY: &str = "repository";

/// Notes where backups of a cluster are kept: who finds none there is not to begin anew by himself.
///
/// # Errors
/// If it can't be written.
fn remember(history: &History, opened: &Opened, now: Micros) -> Result<(), AppError> {
    history.note(&opened.context.name, REPOSITORY, Some(&opened.repository.url), now)
}

/// Whether the daemon of a configuration has read backups of a cluster in this repository.
pub(crate) fn has_served(config: &Config, cluster: &str, url: &str) -> bool {
    let state = state_place(config).join(STATE);
    History::noted_in(&state, cluster, REPOSITORY).is_some_and(|noted| noted == url)
}

/// Whether a daemon uses the state directory of this configuration.
///
/// # Errors
/// If that can't be seen.
pub(crate) fn is_running(session: &Session) -> Result<bool, AppError> {
    match state::lock(&state_dir(session)?) {
        Ok(_) => Ok(false),
        Err(error) if error.class == FailureClass::Locked => Ok(true),
        Err(error) => Err(error),
    }
}

/// Serves until stopped.
///
/// # Errors
/// Class `Usage` if the configuration has no cluster; `Locked` if another daemon uses the state directory.
pub(crate) fn run(session: &Session) -> Result<Done, AppError> {
    let (report, text) = serve(session, &stop_flag(), None)?;
    Ok(Done::new(&report, text))
}

/// As [`run`]; ends when `stop` is set. Returns its report, and what it says to people. `said`: what it says once all
/// clusters are captured.
///
/// # Errors
/// As [`run`].
pub(crate) fn serve(
    session: &Session,
    stop: &StopFlag,
    said: Option<&str>,
) -> Result<(ServeReport, String), AppError> {
    let begun = Instant::now();
    crate::log::begin_daemon(session.global.verbose.max(1));
    let config = session.config()?;
    let clusters = session.cluster_names(None)?;
    if clusters.is_empty() {
        let object = config.path.display().to_string();
        let error =
            AppError::new("serve.no_cluster", FailureClass::Usage, "serve", object, "it has no cluster");
        return Err(error.hint("add one with: everpoint protect postgres://…"));
    }
    session.try_secrets()?;
    let state = state_dir(session)?;
    let _lock = state::lock(&state)?;
    let mut served = Served::begin(session, &state, stop)?;
    session.say(&format!("serving {}; state in {}", clusters.join(", "), state.display()));
    if !config.schedules.enabled {
        session
            .warn("BACKUP_ENABLED is false: the log is captured, but no backup, bundle or package is made");
    }
    served.turn(stop, said.map(|text| (session, text)));
    let runner = Arc::clone(&served.runner);
    let clusters = runner.current().clusters();
    let text = format!("stopped serving {}", clusters.join(", "));
    end(served.stop(), &runner);
    runner.traces.end();
    Ok((ServeReport { clusters, seconds: begun.elapsed().as_secs_f64() }, text))
}

/// Waits for what still works, but not for ever: everything survives being cut off.
fn end(threads: Vec<JoinHandle<()>>, runner: &Runner) {
    let deadline = Instant::now() + STOP_TIME;
    while Instant::now() < deadline
        && (!runner.running().is_empty() || threads.iter().any(|thread| !thread.is_finished()))
    {
        std::thread::sleep(Duration::from_millis(20));
    }
    for job in runner.running() {
        tracing::warn!(
            "cut off: {job}; what was begun is taken up or cleared away later, and a call it had made counts"
        );
    }
}
