//! Moves one stream into a sink: data, acknowledgements, coverage, signs of life.

use std::time::{Duration, Instant};

use everpoint_core::{LogOffset, Micros};
use everpoint_engine::{CaptureOptions, EngineError, LogSink};

use super::coverage::Coverage;
use super::stream::{StreamEvent, WalStream};
use crate::client::PgError;

/// Longest time between two ticks of the sink.
const TICK: Duration = Duration::from_millis(100);
/// Pause between an answer of the server and the next request for one; see [`Coverage`] for why it matters.
const ASK_PAUSE: Duration = Duration::from_millis(250);
/// A status is sent this often even if nothing has changed, as servers expect (`wal_receiver_status_interval`).
const STATUS_INTERVAL: Duration = Duration::from_secs(10);
/// Shortest time between two reports of coverage.
const COVERAGE_INTERVAL: Duration = Duration::from_millis(500);
/// A server that answers nothing for this long is gone. Half of the default `wal_sender_timeout`.
const SILENCE: Duration = Duration::from_secs(30);

/// Why receiving ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Asked to stop, or everything up to `until` is durable.
    Done,
    /// The timeline is complete.
    TimelineEnd { next_timeline: u32, next_start: LogOffset },
    /// The stream failed.
    Failed(PgError),
}

/// State of one stream.
pub(super) struct Receiver<'a, 's> {
    stream: WalStream<'s>,
    sink: &'a mut dyn LogSink,
    options: &'a CaptureOptions,
    /// Whether the server is a primary and this its own timeline.
    covers: bool,
    coverage: Coverage,
    covered: Option<(LogOffset, Micros)>,
    covered_at: Instant,
    /// Everything before is in the sink.
    pub(super) held: LogOffset,
    /// The log is compared up to here with what was stored before: until then nothing is acknowledged.
    compared_to: LogOffset,
    durable: LogOffset,
    ticked_at: Instant,
    status_at: Instant,
    asked: bool,
    answered_at: Instant,
    silence: Duration,
}

impl<'a, 's> Receiver<'a, 's> {
    pub(super) fn new(
        stream: WalStream<'s>,
        sink: &'a mut dyn LogSink,
        options: &'a CaptureOptions,
        (held, compared_to): (LogOffset, LogOffset),
        covers: bool,
    ) -> Self {
        let now = Instant::now();
        Self {
            stream,
            sink,
            options,
            covers,
            coverage: Coverage::default(),
            covered: None,
            covered_at: now,
            held,
            compared_to,
            durable: LogOffset(0),
            ticked_at: now,
            status_at: now,
            asked: false,
            answered_at: now,
            silence: Duration::ZERO,
        }
    }

    /// Receives until there is a reason to end. Errors of the sink are returned as they are.
    pub(super) fn run(mut self) -> Result<(Outcome, LogOffset), EngineError> {
        loop {
            if self.tick()? {
                let held = self.held;
                // What is durable has been said; whether the farewell arrives changes nothing.
                if let Err(error) = self.stream.finish(Duration::from_secs(2)) {
                    tracing::debug!(%error, "the stream did not end in good order");
                }
                return Ok((Outcome::Done, held));
            }
            match self.burst() {
                Ok(None) => {}
                Ok(Some(outcome)) => return Ok((outcome, self.held)),
                Err(Failure::Stream(error)) => return Ok((Outcome::Failed(error), self.held)),
                Err(Failure::Sink(error)) => return Err(error),
            }
        }
    }

    /// Lets the sink store what is due, acknowledges it. True if there is nothing more to do.
    fn tick(&mut self) -> Result<bool, EngineError> {
        let mut durable = self.sink.tick()?;
        if self.held < self.compared_to {
            durable = LogOffset(0);
        }
        self.ticked_at = Instant::now();
        let done = self.options.until.is_some_and(|until| durable >= until) || self.options.stop.is_set();
        let moved = durable != self.durable;
        self.durable = durable;
        let ask = !self.asked && self.answered_at.elapsed() >= ASK_PAUSE;
        if (moved || ask || self.status_at.elapsed() >= STATUS_INTERVAL) && self.send_status(ask).is_err() {
            // The next read says better why.
            tracing::debug!("status not sent");
        }
        Ok(done)
    }

    /// Takes what comes until nothing is there, or a tick is due.
    fn burst(&mut self) -> Result<Option<Outcome>, Failure> {
        let mut wait = TICK.saturating_sub(self.ticked_at.elapsed());
        loop {
            let Some(event) = self.stream.next(Some(wait))? else {
                self.silence += wait;
                return if self.silence >= SILENCE {
                    Err(PgError::Timeout(SILENCE).into())
                } else {
                    Ok(None)
                };
            };
            self.silence = Duration::ZERO;
            if let Some(outcome) = self.take(event)? {
                return Ok(Some(outcome));
            }
            self.report_coverage()?;
            if self.ticked_at.elapsed() >= TICK {
                return Ok(None);
            }
            wait = Duration::ZERO;
        }
    }

    fn take(&mut self, event: StreamEvent) -> Result<Option<Outcome>, Failure> {
        match event {
            StreamEvent::Data { start, server_end, sent_at, bytes } => {
                if start > self.held {
                    let message = format!("the stream skipped from {} to {}", self.held.0, start.0);
                    return Err(PgError::Protocol(message).into());
                }
                self.sink.write(start, &bytes).map_err(Failure::Sink)?;
                self.held = self.held.max(start.plus(bytes.len() as u64));
                self.coverage.data(server_end, sent_at);
            }
            StreamEvent::Keepalive { end, sent_at, reply_requested } => {
                let answer = self.asked && !reply_requested;
                self.coverage.keepalive(end, sent_at, answer);
                if answer {
                    self.asked = false;
                    self.answered_at = Instant::now();
                }
                if reply_requested {
                    self.send_status(false)?;
                }
            }
            StreamEvent::TimelineEnd { next_timeline, next_start } => {
                return Ok(Some(Outcome::TimelineEnd { next_timeline, next_start }));
            }
        }
        Ok(None)
    }

    fn report_coverage(&mut self) -> Result<(), Failure> {
        if !self.covers {
            return Ok(());
        }
        if let Some(newer) = self.coverage.take(self.held) {
            self.covered = Some(newer);
        }
        if self.covered_at.elapsed() >= COVERAGE_INTERVAL
            && let Some((position, until)) = self.covered.take()
        {
            self.sink.covered(position, until).map_err(Failure::Sink)?;
            self.covered_at = Instant::now();
        }
        Ok(())
    }

    fn send_status(&mut self, ask: bool) -> Result<(), PgError> {
        // Written is said to be no more than flushed: commits at `remote_write` wait for what is written, and a promise of
        // ours is about what is durable. Nothing is ever applied here.
        self.stream.send_status(self.durable, self.durable, LogOffset(0), ask)?;
        self.status_at = Instant::now();
        self.asked |= ask;
        Ok(())
    }
}

/// Whose fault it was.
enum Failure {
    Stream(PgError),
    Sink(EngineError),
}

impl From<PgError> for Failure {
    fn from(error: PgError) -> Self {
        Self::Stream(error)
    }
}
