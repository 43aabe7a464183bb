//! The daemon: captures all clusters of the configuration, and runs jobs when they are due, until it is stopped.

mod history;
mod job;
mod notify;
mod package;
mod runner;
mod surface;
mod watch;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use everpoint_app::{AppError, text};
use everpoint_core::FailureClass;
use everpoint_engine::StopFlag;
use everpoint_engine::beside::{self, Locked};
use serde::Serialize;

use crate::render::Done;
use crate::session::Session;
use crate::signal::stop_flag;
use crate::trace::Traces;
use history::History;
use notify::Notify;
use package::Destination;
use runner::Runner;
use surface::Surface;
use watch::{Keeper, Watched};

/// How often it looks what is due.
const TICK: Duration = Duration::from_millis(250);
/// So long after the signal it has ended, whatever still works.
const STOP_TIME: Duration = Duration::from_secs(9);

#[derive(Serialize)]
pub(crate) struct ServeReport {
    clusters: Vec<String>,
    seconds: f64,
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
    crate::log::begin(session.global.verbose.max(1));
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
    let _lock = lock(&state)?;
    let history = Arc::new(History::open(&state.join("state.db"))?);
    let watched: Vec<Arc<Watched>> = clusters.iter().map(|name| Arc::new(Watched::new(name))).collect();
    let runner = Arc::new(Runner {
        global: session.global.clone(),
        schedules: config.schedules.clone(),
        history: Arc::clone(&history),
        watched: watched.clone(),
        destinations: config.offsite.values().filter_map(Destination::of).collect(),
        stop: stop.clone(),
        running: Mutex::default(),
        wanted: Mutex::default(),
        renewed: Mutex::default(),
        traces: Traces::start(&config.otel)?,
    });
    let surface = Surface::start(config, &runner, &state)?;
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    for watched in &watched {
        let keeper = Keeper {
            global: session.global.clone(),
            watched: Arc::clone(watched),
            history: Arc::clone(&history),
            max_retained: config.serve.max_retained,
            stop: stop.clone(),
        };
        threads.push(keeper.start());
    }
    let names = clusters.join(", ");
    session.say(&format!("serving {names}; state in {}", state.display()));
    if !config.schedules.enabled {
        session
            .warn("BACKUP_ENABLED is false: the log is captured, but no backup, bundle or package is made");
    }
    let notify = Notify::from_environment();
    notify.ready(&format!("serving {names}"));
    turn(&runner, &notify, stop, said.map(|text| (session, text)));
    notify.stopping();
    let traces = runner.traces.clone();
    threads.push(std::thread::spawn(move || drop(surface)));
    end(threads, &runner);
    traces.end();
    let report = ServeReport { clusters, seconds: begun.elapsed().as_secs_f64() };
    Ok((report, format!("stopped serving {names}")))
}

/// Looks again and again what is due.
fn turn(runner: &Arc<Runner>, notify: &Notify, stop: &StopFlag, mut said: Option<(&Session, &str)>) {
    let mut unseen: Vec<String> = runner.watched.iter().map(|watched| watched.cluster.clone()).collect();
    let (mut alive, mut looked) = (Instant::now(), None::<Instant>);
    while !stop.is_set() {
        if runner.watched.iter().all(|watched| watched.has_begun())
            && let Some((session, text)) = said.take()
        {
            session.say(text);
        }
        let now = text::now();
        if !unseen.is_empty() && looked.is_none_or(|at| at.elapsed() > Duration::from_secs(10)) {
            // A repository that can't be read yet is looked at again later.
            unseen.retain(|cluster| runner.look_at_backups(cluster, now).is_err());
            looked = Some(Instant::now());
        }
        runner.tick(now);
        if notify.every().is_some_and(|every| alive.elapsed() >= every) {
            notify.alive();
            alive = Instant::now();
        }
        watch::wait(TICK, stop);
    }
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

/// The directory of what the daemon remembers: that of the configuration, that of systemd, one of the user, or for a user
/// without a home one beside the configuration. It is made if missing.
///
/// # Errors
/// If it can't be made.
pub(crate) fn state_dir(session: &Session) -> Result<PathBuf, AppError> {
    let directory = state_place(session.config()?);
    beside::make_directories_for(&directory, 0o755, session.service()).map_err(|error| {
        AppError::io("make the state directory", &directory, error)
            .hint("name one that this user may write to: state_dir in [serve], or $STATE_DIRECTORY")
    })?;
    Ok(directory)
}

/// Where [`state_dir`] is, or would be made.
pub(crate) fn state_place(config: &crate::config::Config) -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    config.serve.state_dir.clone().or_else(|| set("STATE_DIRECTORY")).unwrap_or_else(|| {
        let home = || set("HOME").filter(|home| home.is_dir()).map(|home| home.join(".local/state"));
        let beside = || config.path.with_file_name(".everpoint-state");
        let base = match rustix::process::geteuid().is_root() {
            true => PathBuf::from("/var/lib/everpoint-state"),
            false => set("XDG_STATE_HOME").or_else(home).unwrap_or_else(beside),
        };
        // Two configurations of one user are two daemons.
        let name = blake3::hash(config.path.as_os_str().as_encoded_bytes()).to_hex();
        base.join("everpoint").join(name.get(..12).unwrap_or_default())
    })
}

/// Holds the state directory as long as the file is open.
fn lock(directory: &Path) -> Result<File, AppError> {
    let path = directory.join("lock");
    let file = beside::open_or_create(&path, 0o644).map_err(|error| AppError::io("make", &path, error))?;
    match beside::lock(&file).map_err(|error| AppError::io("lock", &path, error))? {
        Locked::Ours => {}
        Locked::Theirs => {
            let object = directory.display().to_string();
            let message = "another daemon uses it";
            return Err(AppError::new("serve.running", FailureClass::Locked, "use", object, message)
                .hint("one daemon serves all clusters of a configuration"));
        }
        Locked::Unknown(error) => tracing::warn!(
            "the file system of {} has no locks ({error}): nothing keeps a second daemon from starting there; name \
             another place with state_dir in [serve]",
            directory.display()
        ),
    }
    Ok(file)
}
