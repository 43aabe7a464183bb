//! Starts jobs when they are due, or asked for; never two of one kind for one cluster, and one hard one at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use everpoint_app::{AppError, Event, Events, list, text};
use everpoint_core::{Due, FailureClass, Micros, Retry, RetryPolicy, due, retry};
use everpoint_engine::StopFlag;

use super::history::{History, JobRow};
use super::job::{self, Kind, NO_ROOM, Order};
use super::package::Destination;
use super::watch::{GIVEN_UP, Watched};
use crate::cli::Global;
use crate::config::Schedules;
use crate::render::error;
use crate::session::Session;
use crate::trace::{Traced, Traces};

/// While there is no room, it is looked for so often: microseconds.
const ROOM_EVERY: i64 = 30_000_000;

/// The runs that go on, and what they are made from.
pub(crate) struct Runner {
    pub(crate) global: Global,
    pub(crate) schedules: Schedules,
    pub(crate) history: Arc<History>,
    pub(crate) watched: Vec<Arc<Watched>>,
    pub(crate) destinations: Vec<Destination>,
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
        for watched in &self.watched {
            if watched.take_gap() {
                self.want_backup(&watched.cluster, "its log has a gap");
            }
            for kind in Kind::OF_CLUSTER {
                self.start_due(&watched.cluster, self.due(kind, watched, now), now);
            }
        }
        for to in &self.destinations {
            self.start_due(&to.name, self.due_package(to, now), now);
        }
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
        let session = Session::new(self.global.clone());
        let listing = list::run(&session.cluster(cluster)?.context)?;
        let newest = listing.backups.iter().rev().find(|backup| backup.status == "ok");
        match newest.and_then(|backup| backup.started_at.parse::<jiff::Timestamp>().ok()) {
            None => self.want_backup(cluster, "it has no good backup"),
            Some(at) => {
                self.history.known_since(Kind::Backup, cluster, Micros(at.as_microsecond()).min(now))?;
            }
        }
        Ok(())
    }

    fn due(&self, kind: Kind, watched: &Watched, now: Micros) -> Result<Option<Order>, AppError> {
        let cluster = &watched.cluster;
        if self.is_running(kind, cluster) || (!self.schedules.enabled && kind != Kind::Check) {
            return Ok(None);
        }
        let last = self.history.last(kind, cluster)?;
        let failed = last.as_ref().filter(|_| kind == Kind::Backup);
        if let Some(again) = failed.and_then(|last| backup_again(watched, last)) {
            return Ok((again.0 <= now).then(|| Order { tried: again.1, ..Order::new(kind, cluster) }));
        }
        if kind == Kind::Backup && watched.has_begun() && lock(&self.wanted).contains_key(cluster) {
            return Ok(Some(Order::new(kind, cluster)));
        }
        let schedule = match kind {
            Kind::Backup => &self.schedules.backup,
            Kind::Bundle => &self.schedules.bundle,
            Kind::Check => &self.schedules.check,
            Kind::Package | Kind::Restore => return Ok(None),
            Kind::Expire => {
                let full = watched.full_since();
                let makes_room = full.is_some_and(|since| {
                    last.is_none_or(|last| {
                        last.started < since || last.started.0.saturating_add(ROOM_EVERY) <= now.0
                    })
                });
                let is_wanted = makes_room || lock(&self.renewed).contains(cluster);
                let order = Order { at_once: full.is_some(), ..Order::new(kind, cluster) };
                return Ok(is_wanted.then_some(order));
            }
        };
        let Some(schedule) = schedule else { return Ok(None) };
        let anchor = match &last {
            Some(last) => last.started,
            None => self.history.known_since(kind, cluster, now)?,
        };
        let is_due = matches!(due(schedule, anchor, now), Due::Now { .. });
        Ok(is_due.then(|| Order::new(kind, cluster)))
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
        if order.kind == Kind::Backup
            && let Some(why) = lock(&self.wanted).remove(&order.cluster)
        {
            tracing::info!(cluster = order.cluster, "a backup is taken because {why}");
        }
        if order.kind == Kind::Expire {
            lock(&self.renewed).remove(&order.cluster);
        }
        let runner = Arc::clone(self);
        std::thread::spawn(move || {
            runner.run(&order, id);
            lock(&runner.running).remove(&key);
        });
        Ok(id)
    }

    fn run(&self, order: &Order, id: i64) {
        let session = Session::new(self.global.clone());
        let (kind, cluster) = (order.kind.word(), order.cluster.as_str());
        tracing::info!(cluster, "{kind} begins");
        let told = Told { kind, cluster };
        let span =
            self.traces.span(kind, &[("everpoint.cluster", cluster), ("everpoint.job", &id.to_string())]);
        let result = job::run(&session, order, &self.schedules.zone, &self.stop, &Traced::new(&told, &span));
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

/// When a backup that failed is tried again, and as which try. One that was not begun for want of room: as soon as there
/// may be some, before the log has taken it.
fn backup_again(watched: &Watched, last: &JobRow) -> Option<(Micros, u32)> {
    if last.state != "failed" || last.code() != Some(NO_ROOM) {
        return again(RetryPolicy::default(), last);
    }
    let ended = last.ended.unwrap_or(last.started);
    let room = watched.room_since().filter(|room| *room > ended);
    Some((room.unwrap_or(Micros(ended.0.saturating_add(ROOM_EVERY))), last.tried))
}

/// When a run that failed is tried again, and as which try. One that was cut off is, at once.
pub(super) fn again(policy: RetryPolicy, last: &JobRow) -> Option<(Micros, u32)> {
    match last.state.as_str() {
        "failed" => match retry(policy, last.tried, last.ended.unwrap_or(last.started)) {
            Retry::At(at, tried) => Some((at, tried)),
            Retry::No => None,
        },
        "interrupted" => Some((last.started, last.tried)),
        _ => None,
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
