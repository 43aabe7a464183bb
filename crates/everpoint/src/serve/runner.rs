//! Starts jobs when they are due, or asked for; never two of one kind for one cluster, and one hard one at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use everpoint_app::caught::caught;
use everpoint_app::{AppError, Event, Events, list, text};
use everpoint_core::{FailureClass, Micros};
use everpoint_engine::StopFlag;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::current::Current;
use super::history::History;
use super::job::{Kind, Order};
use super::watch::GIVEN_UP;
use crate::cli::Global;
use crate::render::error;
use crate::session::Session;
use crate::trace::{Traced, Traces};

/// What a run does.
pub(crate) type Work =
    dyn Fn(&Session, &Order, &TimeZone, &StopFlag, &dyn Events) -> Result<Value, AppError> + Send + Sync;

/// The runs that go on, and what they are made from.
pub(crate) struct Runner {
    pub(crate) global: Global,
    pub(crate) current: Mutex<Arc<Current>>,
    pub(crate) history: Arc<History>,
    pub(crate) work: Box<Work>,
    pub(crate) stop: StopFlag,
    pub(crate) running: Mutex<BTreeMap<(Kind, String), i64>>,
    /// Clusters that need a backup, whatever the schedule says, and why.
    pub(crate) wanted: Mutex<BTreeMap<String, String>>,
    /// Clusters that have a new backup, so that older ones may go.
    pub(crate) renewed: Mutex<BTreeSet<String>>,
    pub(crate) traces: Traces,
}

impl Runner {
    /// Starts what is due now.
    pub(crate) fn tick(self: &Arc<Self>, now: Micros) {
        let current = self.current();
        for watched in &current.watched {
            if watched.take_gap() {
                self.want_backup(&watched.cluster, "its log has a gap");
            }
            for kind in Kind::OF_CLUSTER {
                self.start_due(
                    &watched.cluster,
                    self.due(kind, watched, &current.config.schedules, now),
                    now,
                );
            }
        }
        for to in &current.destinations {
            self.start_due(&to.name, self.due_package(to, &current.config.schedules, now), now);
        }
    }

    /// What is served now.
    pub(crate) fn current(&self) -> Arc<Current> {
        Arc::clone(&lock(&self.current))
    }

    /// A session with the configuration that is served now.
    pub(crate) fn session(&self) -> Session {
        Session::of_daemon(self.global.clone(), &self.current().config)
    }

    /// As [`Runner::session`], of one who looks again and again.
    pub(crate) fn quiet_session(&self) -> Session {
        Session::of_daemon(Global { quiet: true, ..self.global.clone() }, &self.current().config)
    }

    fn start_due(self: &Arc<Self>, of: &str, found: Result<Option<Order>, AppError>, now: Micros) {
        match found {
            Ok(Some(order)) => {
                // What is locked runs already, and comes up again at the next look.
                let _ = self.start(order, now);
            }
            Ok(None) => {}
            Err(error) => tracing::error!(of, "{error}"),
        }
    }

    /// Whether a run of this kind goes on.
    pub(super) fn is_running(&self, kind: Kind, of: &str) -> bool {
        lock(&self.running).contains_key(&(kind, of.to_owned()))
    }

    /// A backup is to be taken as soon as the log is captured.
    pub(crate) fn want_backup(&self, cluster: &str, why: &str) {
        lock(&self.wanted).entry(cluster.to_owned()).or_insert_with(|| why.to_owned());
    }

    /// A cluster without any good backup gets one at once. Of one that has a backup, a history that was lost is made up for.
    pub(crate) fn look_at_backups(&self, cluster: &str, now: Micros) -> Result<(), AppError> {
        if let Some(why) = self.history.noted(cluster, GIVEN_UP)? {
            self.want_backup(cluster, &why);
        }
        let session = self.session();
        let opened = session.cluster(cluster)?;
        let listing = list::run(&opened.context)?;
        super::remember(&self.history, &opened, now)?;
        let newest = listing.backups.iter().rev().find(|backup| backup.status == "ok");
        match newest.and_then(|backup| backup.started_at.parse::<jiff::Timestamp>().ok()) {
            None => self.want_backup(cluster, "it has no good backup"),
            Some(at) => {
                self.history.known_since(Kind::Backup, cluster, Micros(at.as_microsecond()).min(now))?;
            }
        }
        Ok(())
    }

    /// Starts a run in a thread of its own; returns its number.
    ///
    /// # Errors
    /// Class `Locked`: one of that kind, or another hard one, runs now.
    pub(crate) fn start(self: &Arc<Self>, order: Order, now: Micros) -> Result<i64, AppError> {
        let key = (order.kind, order.cluster.clone());
        let mut running = lock(&self.running);
        let hard = running.keys().any(|(kind, _)| kind.is_hard());
        if running.contains_key(&key) || (order.kind.is_hard() && hard) {
            let message = "another job runs now";
            let mut error =
                AppError::new("serve.busy", FailureClass::Locked, "start the", order.kind.word(), message);
            error.retryable = true;
            return Err(error.hint("try again when it has ended"));
        }
        if self.stop.is_set() {
            let message = "the daemon is stopping";
            return Err(AppError::new(
                "serve.busy",
                FailureClass::Locked,
                "start the",
                order.kind.word(),
                message,
            ));
        }
        let id = self.history.begin(order.kind, &order.cluster, order.tried, "running", now)?;
        running.insert(key.clone(), id);
        drop(running);
        let wanted = match order.kind {
            Kind::Backup => lock(&self.wanted).remove(&order.cluster),
            Kind::Expire => {
                lock(&self.renewed).remove(&order.cluster);
                None
            }
            _ => None,
        };
        if let Some(why) = &wanted {
            tracing::info!(cluster = order.cluster, "a backup is taken because {why}");
        }
        let going = Going { runner: Arc::clone(self), key };
        std::thread::spawn(move || {
            let runner = &going.runner;
            if !runner.run(&order, id)
                && let Some(why) = wanted
            {
                // It is wanted still.
                runner.want_backup(&order.cluster, &why);
            }
        });
        Ok(id)
    }

    /// Whether it went well. However it ends, even by a panic, it has ended.
    fn run(&self, order: &Order, id: i64) -> bool {
        let session = self.session();
        let zone = session.zone();
        let (kind, cluster) = (order.kind.word(), order.cluster.as_str());
        tracing::info!(cluster, "{kind} begins");
        let told = Told { kind, cluster };
        let span =
            self.traces.span(kind, &[("everpoint.cluster", cluster), ("everpoint.job", &id.to_string())]);
        let result = caught(&format!("finish the {kind} of"), cluster, || {
            (self.work)(&session, order, &zone, &self.stop, &Traced::new(&told, &span))
        });
        let failed = result.as_ref().err().map(ToString::to_string);
        span.end(failed.as_deref().map_or(Ok(()), Err));
        let now = text::now();
        let ended = match &result {
            Ok(report) => {
                tracing::info!(cluster, "{kind} done");
                if order.kind == Kind::Backup {
                    lock(&self.renewed).insert(cluster.to_owned());
                    if let Err(error) = self.history.note(cluster, GIVEN_UP, None, now) {
                        tracing::error!("{error}");
                    }
                }
                self.history.end(id, "ok", Some(report), None, now)
            }
            Err(failure) => {
                let state = match failure.class {
                    _ if self.stop.is_set() => "interrupted",
                    // A package is wanted all the same: it waits for the next call.
                    FailureClass::Locked if order.kind != Kind::Package => "skipped",
                    _ => "failed",
                };
                tracing::error!(cluster, "{kind} {state}: {failure}");
                self.history.end(id, state, None, Some(&error::json(failure)), now)
            }
        };
        if let Err(error) = ended {
            tracing::error!("{error}");
        }
        result.is_ok()
    }

    /// Whether a job runs beside which no other hard one is started.
    pub(super) fn works_hard(&self) -> bool {
        lock(&self.running).keys().any(|(kind, _)| kind.is_hard())
    }

    /// The jobs that run, in words.
    pub(crate) fn running(&self) -> Vec<String> {
        lock(&self.running).keys().map(|(kind, of)| format!("{} of {of}", kind.word())).collect()
    }
}

/// A run that goes on. When it is dropped, by a panic too, the next one may begin.
struct Going {
    runner: Arc<Runner>,
    key: (Kind, String),
}

impl Drop for Going {
    fn drop(&mut self) {
        lock(&self.runner.running).remove(&self.key);
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A job's events go to the log.
struct Told<'a> {
    kind: &'static str,
    cluster: &'a str,
}

impl Events for Told<'_> {
    fn emit(&self, event: Event) {
        if let Some(text) = event.warning() {
            tracing::warn!(cluster = self.cluster, "{}: {text}", self.kind);
        } else if let Event::Step(text) | Event::Info(text) = event {
            tracing::debug!(cluster = self.cluster, "{}: {text}", self.kind);
        }
    }
}
