//! Takes what was seen, keeps what fires, and queues messages for the sinks.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use everpoint_core::Micros;
use everpoint_core::alert::{AlertKey, Alerts, Notice, Observation};

use super::memory::{self, Waiting};
use super::message::{self, Message};
use crate::config::alerts::{AlertsConfig, SinkConfig};
use crate::metrics::{Measure, Metrics};

/// Messages that wait for one sink; the oldest go when there are more.
const QUEUE: usize = 256;

/// See the module.
pub(crate) struct Outbox {
    config: AlertsConfig,
    host: String,
    path: PathBuf,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    wake: Condvar,
}

struct State {
    alerts: Alerts,
    waiting: Waiting,
    closed: bool,
}

impl Outbox {
    /// Begins where the file at `path` left off.
    pub(crate) fn new(config: AlertsConfig, path: PathBuf, metrics: Arc<Metrics>) -> Self {
        let (alerts, mut waiting) = memory::read(&path);
        waiting.retain(|sink, _| config.sinks.iter().any(|known| known.name == *sink));
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let state = Mutex::new(State { alerts, waiting, closed: false });
        let made = Self { config, host, path, metrics, state, wake: Condvar::new() };
        made.show(&made.lock());
        made
    }

    pub(crate) fn config(&self) -> &AlertsConfig {
        &self.config
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the condition holds, as far as was told.
    pub(crate) fn is_firing(&self, key: &AlertKey) -> bool {
        self.lock().alerts.is_firing(key)
    }

    /// What fires of subjects that there are no more; see [`Alerts::orphans`].
    pub(crate) fn orphans(&self, known: &BTreeSet<&str>) -> Vec<AlertKey> {
        self.lock().alerts.orphans(known)
    }

    /// What fires now, with since when and in words.
    pub(crate) fn firing(&self) -> Vec<(AlertKey, Micros, String)> {
        let state = self.lock();
        let firing = state.alerts.firing().iter();
        firing.map(|(key, firing)| (key.clone(), firing.since, firing.message.clone())).collect()
    }

    /// Takes what was seen just now.
    pub(crate) fn tell(&self, seen: impl IntoIterator<Item = Observation>) {
        self.tell_at(seen, message::now());
    }

    pub(super) fn tell_at(&self, seen: impl IntoIterator<Item = Observation>, now: Micros) {
        let repeat = self.config.repeat_seconds.and_then(|seconds| i64::try_from(seconds * 1_000_000).ok());
        let mut state = self.lock();
        let before = state.alerts.firing().clone();
        let notices: Vec<Notice> = seen
            .into_iter()
            .filter(|seen| self.is_wanted(seen))
            .filter_map(|seen| state.alerts.observe(seen, now, repeat))
            .collect();
        for notice in &notices {
            self.queue(&mut state, notice);
        }
        let changed = !notices.is_empty() || before != *state.alerts.firing();
        if changed {
            self.keep(&state);
        }
        drop(state);
        self.wake.notify_all();
    }

    /// Successes are told only where somebody asked for them.
    fn is_wanted(&self, seen: &Observation) -> bool {
        match seen {
            Observation::Happened(key, _) if key.kind.is_success() => {
                self.config.successes.contains(&key.kind)
            }
            _ => true,
        }
    }

    fn queue(&self, state: &mut State, notice: &Notice) {
        for sink in self.config.sinks.iter().filter(|sink| takes(sink, notice)) {
            let queue = state.waiting.entry(sink.name.clone()).or_default();
            queue.push_back(Message::of(notice, &self.host));
            if queue.len() > QUEUE {
                queue.pop_front();
                tracing::warn!("alerts: {QUEUE} messages wait for {}, the oldest is dropped", sink.name);
                self.metrics.count(Measure::AlertMessages, &[&sink.name, "dropped"]);
            }
        }
    }

    fn keep(&self, state: &State) {
        self.show(state);
        if let Err(error) = memory::write(&self.path, &state.alerts, &state.waiting) {
            tracing::warn!("alerts can't be kept in {}: {error}", self.path.display());
        }
    }

    fn show(&self, state: &State) {
        self.metrics.clear(Measure::AlertsFiring);
        for key in state.alerts.firing().keys() {
            let labels = [key.kind.word(), &key.subject, key.kind.severity().word()];
            self.metrics.set(Measure::AlertsFiring, &labels, 1.0);
        }
    }

    /// The message that is next for a sink; waits for one. `None`: the end.
    pub(super) fn next(&self, sink: &str) -> Option<Message> {
        let mut state = self.lock();
        loop {
            if let Some(message) = state.waiting.get(sink).and_then(VecDeque::front) {
                return Some(message.clone());
            }
            if state.closed {
                return None;
            }
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The message was sent, or never will be.
    pub(super) fn done(&self, sink: &str, message: &Message, result: &str) {
        self.metrics.count(Measure::AlertMessages, &[sink, result]);
        let mut state = self.lock();
        let queue = state.waiting.get_mut(sink);
        // It may have been dropped meanwhile to make room.
        if let Some(queue) = queue.filter(|queue| queue.front() == Some(message)) {
            queue.pop_front();
        }
        self.keep(&state);
    }

    /// Waits before the next try; returns whether there shall be one.
    pub(super) fn pause(&self, time: Duration) -> bool {
        let state = self.lock();
        let waited = self.wake.wait_timeout_while(state, time, |state| !state.closed);
        !waited.map_or_else(|poisoned| poisoned.into_inner().0.closed, |(state, _)| state.closed)
    }

    /// No more messages come: senders end once they have sent what can be sent at once.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }
}

fn takes(sink: &SinkConfig, notice: &Notice) -> bool {
    let kind = notice.key.kind;
    (sink.only.is_empty() || sink.only.contains(&kind)) && kind.severity() >= sink.least
}
