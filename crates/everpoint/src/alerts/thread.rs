//! One thread a sink: sends, tries again, gives up what can't be sent.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use everpoint_app::AppError;

use super::ending;
use super::message::{self, Message};
use super::outbox::Outbox;
use super::sink::{self, Failure, Sink};
use crate::config::alerts::{AlertsConfig, SinkKind};
use crate::trace::Traces;

/// First pause between two tries; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// A message that could not be sent for so long interests nobody any more: seconds.
const STALE: i64 = 3 * 86_400;

/// The threads. Dropped, they end within a few seconds.
pub(crate) struct Senders {
    outbox: Arc<Outbox>,
    threads: Vec<JoinHandle<()>>,
}

impl Senders {
    /// Looks whether they could be started.
    ///
    /// # Errors
    /// As [`Senders::start`].
    pub(crate) fn try_out(config: &AlertsConfig, traces: &Traces) -> Result<(), AppError> {
        config.sinks.iter().try_for_each(|sink| sink::open(sink, traces, &mut |_| ()).map(drop))
    }

    /// Starts them.
    ///
    /// # Errors
    /// Class `Usage`: a secret or an address of a sink can't be used.
    pub(crate) fn start(outbox: &Arc<Outbox>, traces: &Traces) -> Result<Self, AppError> {
        let mut senders = Self { outbox: Arc::clone(outbox), threads: Vec::new() };
        for config in &outbox.config().sinks {
            let sink = sink::open(config, traces, &mut |warning| tracing::warn!("{warning}"))?;
            let (outbox, name) = (Arc::clone(outbox), config.name.clone());
            // Messages to the log must not wait behind anything, nor be lost in a stop.
            let patient = config.kind != SinkKind::Log;
            let run = move || run(&outbox, &name, sink.as_ref(), patient);
            let thread = std::thread::Builder::new().name(format!("alerts-{}", config.name)).spawn(run);
            senders.threads.push(thread.map_err(|error| {
                AppError::io("start a thread for", std::path::Path::new(&config.name), error)
            })?);
        }
        Ok(senders)
    }
}

impl Drop for Senders {
    fn drop(&mut self) {
        self.outbox.close();
        ending::join(self.threads.drain(..));
    }
}

fn run(outbox: &Outbox, name: &str, sink: &dyn Sink, patient: bool) {
    let mut pause = FIRST_PAUSE;
    while let Some(message) = outbox.next(name) {
        match send(sink, &message) {
            Ok(()) => {
                pause = FIRST_PAUSE;
                outbox.done(name, &message, "sent");
            }
            Err(failure) if failure.may_pass && patient && !is_stale(&message) => {
                tracing::warn!("alerts: {name} did not take a message, trying again: {}", failure.message);
                if !outbox.pause(pause) {
                    // What waits is kept on disk and sent after the next start.
                    return;
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Err(failure) => {
                tracing::error!("alerts: {name} does not take \"{}\": {}", message.line(), failure.message);
                outbox.done(name, &message, "failed");
            }
        }
    }
}

/// A message at which a sink panics is one that it does not take; it goes on with the next.
fn send(sink: &dyn Sink, message: &Message) -> Result<(), Failure> {
    catch_unwind(AssertUnwindSafe(|| sink.send(message)))
        .unwrap_or_else(|_| Err(Failure { message: "it panicked".to_owned(), may_pass: false }))
}

fn is_stale(message: &Message) -> bool {
    let at = message.at.parse::<jiff::Timestamp>().map_or(0, |at| at.as_microsecond());
    message::now().0.saturating_sub(at) > STALE * 1_000_000
}
