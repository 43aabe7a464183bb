//! Looks at everything again and again: what it sees becomes measures and alerts.

mod cluster;
mod jobs;
mod offsite;
mod repository;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use everpoint_app::AppError;
use everpoint_app::caught::caught;
use everpoint_core::alert::{AlertKey, AlertKind, Observation};
use everpoint_engine::StopFlag;

use super::ending;
use super::outbox::Outbox;
use crate::api::Daemon;
use crate::metrics::{Measure, Metrics};
use crate::session::{Opened, Session};

/// Looking may take this share of the time: a look that takes long is made less often.
const SHARE: u32 = 20;
/// So long after the start what has not begun yet is not wrong.
const SETTLING: Duration = Duration::from_secs(30);
/// What alerts about alerts are about.
const ALERTS: &str = "alerts";
/// What an alert about the configuration is about.
pub(crate) const CONFIGURATION: &str = "configuration";
/// How quickly a stop is noticed.
const TICK: Duration = Duration::from_millis(100);

/// The looking thread. Ends when dropped.
pub(crate) struct Looker {
    stop: StopFlag,
    thread: Option<JoinHandle<()>>,
}

struct Look {
    daemon: Arc<dyn Daemon>,
    outbox: Arc<Outbox>,
    metrics: Arc<Metrics>,
    /// Opened repositories: opening one with a passphrase costs a tenth of a second.
    opened: BTreeMap<String, Opened>,
    /// The newest good backup of each cluster when it was looked at last.
    newest: BTreeMap<String, Option<String>>,
    /// Clusters of which the present could not be brought back at the last look.
    lost: BTreeSet<String>,
    jobs: jobs::Seen,
    offsite: offsite::Seen,
    repositories: repository::Seen,
    begun: Instant,
    generation: u64,
}

impl Looker {
    /// Starts looking.
    ///
    /// # Errors
    /// If there can be no thread.
    pub(crate) fn start(
        daemon: Arc<dyn Daemon>,
        outbox: Arc<Outbox>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, AppError> {
        let stop = StopFlag::default();
        let stopped = stop.clone();
        let mut look = Look {
            daemon,
            outbox,
            metrics,
            opened: BTreeMap::new(),
            newest: BTreeMap::new(),
            lost: BTreeSet::new(),
            jobs: jobs::Seen::default(),
            offsite: offsite::Seen::default(),
            repositories: repository::Seen::default(),
            begun: Instant::now(),
            generation: 0,
        };
        let run = move || look.run(&stopped);
        let thread = std::thread::Builder::new().name("look".to_owned()).spawn(run);
        let thread = thread
            .map_err(|error| AppError::io("start a thread for", std::path::Path::new("alerts"), error))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Looker {
    fn drop(&mut self) {
        self.stop.stop();
        ending::join(self.thread.take());
    }
}

impl Look {
    fn run(&mut self, stop: &StopFlag) {
        self.metrics.set(Measure::BuildInfo, &[env!("CARGO_PKG_VERSION")], 1.0);
        self.metrics.set(Measure::StartTime, &[], seconds_now());
        while !stop.is_set() {
            let begun = Instant::now();
            // Whoever looks after everything must not be gone without a word.
            let looked = caught("look after", "the clusters", || {
                self.once(stop);
                Ok(())
            });
            match looked {
                Ok(()) => self.right(AlertKind::JobFailed, ALERTS),
                Err(error) => self.wrong(AlertKind::JobFailed, ALERTS, error.to_string()),
            }
            self.metrics.set(Measure::LookTime, &[], seconds_now());
            let every = Duration::from_secs(self.outbox.config().every_seconds);
            let next = begun + every.max(begun.elapsed() * SHARE);
            while !stop.is_set() && Instant::now() < next {
                std::thread::sleep(TICK);
            }
        }
    }

    fn once(&mut self, stop: &StopFlag) {
        let generation = self.daemon.generation();
        if std::mem::replace(&mut self.generation, generation) != generation {
            self.opened.clear();
        }
        let session = self.daemon.session();
        let names = match session.cluster_names(None) {
            Ok(names) => names,
            Err(error) => return tracing::warn!("alerts: the configuration can't be read: {error}"),
        };
        for name in names.clone() {
            if stop.is_set() {
                return;
            }
            let opened = match self.opened.remove(&name) {
                Some(opened) => Ok(opened),
                None => session.cluster(&name),
            };
            // What can't be opened or read is opened anew the next time.
            match opened.and_then(|opened| self.cluster(&opened).map(|()| opened)) {
                Ok(opened) => {
                    self.right(AlertKind::RepositoryFailed, &name);
                    self.opened.insert(name, opened);
                }
                Err(error) => self.wrong(AlertKind::RepositoryFailed, &name, error.to_string()),
            }
        }
        self.forget(&session, &names);
        self.look_at_jobs(&names);
        self.look_at_providers(&session);
        self.look_at_repositories();
    }

    /// What fired of something that is not configured any more is over, and no measure of it shows.
    fn forget(&mut self, session: &Session, names: &[String]) {
        let Ok(config) = session.config() else { return };
        let repositories = config.repositories.keys().map(String::as_str);
        let providers = config.offsite.keys().map(String::as_str);
        let own = [ALERTS, CONFIGURATION];
        let known: BTreeSet<&str> =
            names.iter().map(String::as_str).chain(repositories).chain(providers).chain(own).collect();
        for key in self.outbox.orphans(&known) {
            self.outbox.tell([Observation::Right(key)]);
        }
        let gone: Vec<String> =
            self.newest.keys().filter(|name| !known.contains(name.as_str())).cloned().collect();
        for name in gone {
            self.metrics.forget_all("cluster", &name);
            self.newest.remove(&name);
            self.opened.remove(&name);
        }
    }

    /// Whether protection of a cluster that had none may not have begun yet.
    fn is_settling(&self) -> bool {
        self.begun.elapsed() < SETTLING
    }

    fn wrong(&self, kind: AlertKind, subject: &str, message: String) {
        self.outbox.tell([Observation::Wrong(AlertKey::new(kind, subject), message)]);
    }

    fn right(&self, kind: AlertKind, subject: &str) {
        self.outbox.tell([Observation::Right(AlertKey::new(kind, subject))]);
    }
}

fn seconds_now() -> f64 {
    super::message::now().0 as f64 / 1e6
}

/// Seconds since 1970 of a time in a report.
fn seconds_of(rfc3339: &str) -> Option<f64> {
    rfc3339.parse::<jiff::Timestamp>().ok().map(|at| at.as_microsecond() as f64 / 1e6)
}
