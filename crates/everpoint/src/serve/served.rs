//! The daemon at work: looks what is due, and takes up what changes in its configuration.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use everpoint_app::caught::caught;
use everpoint_app::{AppError, text};
use everpoint_core::alert::{AlertKey, AlertKind, Observation};
use everpoint_engine::StopFlag;

use super::current::{Captures, Current, Followed, read};
use super::history::History;
use super::job;
use super::notify::Notify;
use super::reload::Changes;
use super::runner::{Runner, lock};
use super::surface::Surface;
use super::watch;
use crate::alerts::CONFIGURATION;
use crate::cli::Global;
use crate::config::{Config, FileStamp, files_of, outside_of};
use crate::session::Session;
use crate::signal::{Hangup, Hung};
use crate::trace::Traces;

/// How often it looks what is due.
const TICK: Duration = Duration::from_millis(250);
/// How often a repository that can't be read yet is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// See the module.
pub(super) struct Served {
    pub(super) runner: Arc<Runner>,
    global: Global,
    state: PathBuf,
    captures: Captures,
    /// `None` only while it is being replaced.
    surface: Option<Surface>,
    /// Files of the API and of alerts, as they were when the surface was made.
    outside: Vec<FileStamp>,
    hangup: Hangup,
    changes: Changes,
    notify: Notify,
    /// Clusters whose backups were not looked at yet.
    unseen: Vec<String>,
}

impl Served {
    /// Begins to serve.
    ///
    /// # Errors
    /// Class `Usage`: something of the configuration can't be used.
    pub(super) fn begin(session: &Session, state: &Path, stop: &StopFlag) -> Result<Self, AppError> {
        let hangup = Hangup::listen();
        let config = Arc::new(session.config()?.clone());
        // What is read again later is this file, whatever else there is by then.
        let global = Global { config: Some(config.path.clone()), ..session.global.clone() };
        let files = files_of(&config);
        let names = session.cluster_names(None)?;
        let history = Arc::new(History::open(&state.join(super::STATE))?);
        let runner = Arc::new(Runner {
            global: global.clone(),
            current: Mutex::new(Arc::new(Current::nothing(&config))),
            history: Arc::clone(&history),
            work: Box::new(job::run),
            stop: stop.clone(),
            running: Mutex::default(),
            wanted: Mutex::default(),
            renewed: Mutex::default(),
            traces: Traces::start(&config.otel)?,
        });
        let surface = Surface::start(&config, &runner, state)?;
        let mut served = Self {
            runner,
            captures: Captures::new(global.clone(), history),
            global,
            state: state.to_owned(),
            surface: Some(surface),
            outside: outside_of(&config),
            hangup,
            changes: Changes::new(files, Instant::now()),
            notify: Notify::from_environment(),
            unseen: Vec::new(),
        };
        served.follow(&config, &names)?;
        served.tell_configuration(None);
        served.notify.ready(&serving(&names));
        Ok(served)
    }

    /// Looks again and again what is due, until it is told to stop.
    pub(super) fn turn(&mut self, stop: &StopFlag, mut said: Option<(&Session, &str)>) {
        let (mut alive, mut looked) = (Instant::now(), None::<Instant>);
        while !stop.is_set() {
            if self.runner.current().watched.iter().all(|watched| watched.has_begun())
                && let Some((session, text)) = said.take()
            {
                session.say(text);
            }
            let now = text::now();
            if !self.unseen.is_empty() && looked.is_none_or(|at| at.elapsed() > LOOK_AGAIN) {
                self.unseen.retain(|cluster| self.runner.look_at_backups(cluster, now).is_err());
                looked = Some(Instant::now());
            }
            self.look_at_configuration(stop);
            let due = caught("look what is due in", "the schedule", || {
                self.runner.tick(now);
                Ok(())
            });
            due.unwrap_or_else(|error| tracing::error!("{error}"));
            if self.notify.every().is_some_and(|every| alive.elapsed() >= every) {
                self.notify.alive();
                alive = Instant::now();
            }
            watch::wait(TICK, stop);
        }
        self.notify.stopping();
    }

    /// Ends; returns the threads that have not ended yet.
    pub(super) fn stop(self) -> Vec<JoinHandle<()>> {
        let mut threads = self.captures.stop();
        let surface = self.surface;
        threads.push(std::thread::spawn(move || drop(surface)));
        threads
    }

    fn look_at_configuration(&mut self, stop: &StopFlag) {
        let now = Instant::now();
        let asked = match self.hangup.take() {
            Some(Hung::End) => {
                tracing::info!("the terminal is gone: stopping");
                return stop.stop();
            }
            hung => hung.is_some(),
        };
        if !asked && !self.changes.is_due(now) {
            return;
        }
        let files = files_of(&self.runner.current().config);
        if !self.changes.look(files.clone(), now) && !asked {
            return;
        }
        self.changes = Changes::new(files, now);
        match self.reload() {
            Ok(()) => self.tell_configuration(None),
            Err(error) => self.tell_configuration(Some(&error)),
        }
    }

    /// Serves what the configuration says now. What can't be served leaves all as it is.
    fn reload(&mut self) -> Result<(), AppError> {
        let (config, names) = read(&self.global)?;
        // New files may be named in it.
        let files = files_of(&config);
        let before = Arc::clone(&self.runner.current().config);
        self.renew_surface(&before, &config)?;
        self.follow(&config, &names)?;
        self.changes = Changes::new(files, Instant::now());
        for (what, differs) in [
            ("state_dir", before.serve.state_dir != config.serve.state_dir),
            ("[otel]", before.otel != config.otel),
        ] {
            if differs {
                tracing::warn!("{what} is taken up only by a restart of the daemon");
            }
        }
        tracing::info!("the configuration was read again: {}", serving(&names));
        self.notify.ready(&serving(&names));
        Ok(())
    }

    fn follow(&mut self, config: &Arc<Config>, names: &[String]) -> Result<(), AppError> {
        let (watched, followed) = self.captures.follow(config, names)?;
        {
            let mut current = lock(&self.runner.current);
            *current = Arc::new(current.next(Arc::clone(config), watched));
        }
        self.unseen.retain(|cluster| names.contains(cluster));
        self.unseen.extend(followed.begun.iter().chain(&followed.changed).cloned());
        tell_followed(&followed);
        Ok(())
    }

    /// The API and alerts begin anew where something of theirs has changed.
    fn renew_surface(&mut self, before: &Config, config: &Config) -> Result<(), AppError> {
        let outside = outside_of(config);
        if before.api == config.api && before.alerts == config.alerts && self.outside == outside {
            return Ok(());
        }
        Surface::try_out(config, &self.runner)?;
        // One address can't be listened on twice.
        self.surface = None;
        match Surface::start(config, &self.runner, &self.state) {
            Ok(surface) => (self.surface, self.outside) = (Some(surface), outside),
            Err(error) => {
                self.surface = Some(Surface::start(before, &self.runner, &self.state)?);
                return Err(error);
            }
        }
        Ok(())
    }

    /// A configuration that can't be used is critical: what was changed in it does not hold.
    fn tell_configuration(&self, error: Option<&AppError>) {
        let key = AlertKey::new(AlertKind::ConfigurationFailed, CONFIGURATION);
        let observation = match error {
            None => Observation::Right(key),
            Some(error) => {
                tracing::error!(
                    "the configuration can't be used, the one from before stays in force: {error}"
                );
                let path = self.runner.current().config.path.display().to_string();
                let message = format!(
                    "{path} can't be used ({}), so what was configured before stays in force; everpoint check says \
                     what is wrong with it",
                    error.code
                );
                Observation::Wrong(key, message)
            }
        };
        if let Some(surface) = &self.surface {
            surface.tell(observation);
        }
    }
}

fn tell_followed(followed: &Followed) {
    for name in &followed.changed {
        tracing::info!(cluster = name, "its configuration has changed: capture begins anew");
    }
    for (name, place) in &followed.ended {
        tracing::warn!(cluster = name, "{}", left(place));
    }
}

/// `everpoint forget` takes a cluster out of the configuration, and drops its slot once this daemon has let go of it.
fn left(place: &str) -> String {
    let place = if place.is_empty() { "its slot" } else { place };
    format!(
        "it is not in the configuration any more and not captured; everpoint forget drops {place}; if it was taken out by hand, \
         drop it there: it holds back the server's WAL"
    )
}

/// What is served, in words.
fn serving(names: &[String]) -> String {
    if names.is_empty() { "serving no cluster".to_owned() } else { format!("serving {}", names.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_served_is_said_also_where_that_is_nothing() {
        assert_eq!(serving(&["a".to_owned(), "b".to_owned()]), "serving a, b");
        assert_eq!(serving(&[]), "serving no cluster");
        assert!(left("the slot s of p").contains("everpoint forget drops the slot s of p"));
    }
}
