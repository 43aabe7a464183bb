//! The writer of a capture, as its engine sees it: what it does is told.

use std::time::{Duration, Instant};

use everpoint_core::{FailureClass, LogOffset, Micros, SeenBy};
use everpoint_engine::{EngineError, LogSink, ReadLog};
use everpoint_repo::KeptLease;

use crate::log_writer::{LogWriter, fork, from_app};
use crate::{ClusterContext, Event, Events, production, text};

/// How often progress is told at most.
const TELL: Duration = Duration::from_secs(1);
/// The log that is missing is needed by nobody here; begin elsewhere.
pub(super) const GAP_REFUSED: &str = "capture.gap_refused";

/// Notes where production goes while it is captured.
pub(super) struct Production<'a> {
    pub(super) context: &'a ClusterContext,
    pub(super) identity: u32,
    /// The timeline on which it was seen; `None`: the server is no production, but a copy.
    pub(super) timeline: Option<u32>,
}

impl Production<'_> {
    /// A stream that goes on to a younger timeline shows a promotion; one that still catches up shows nothing.
    fn follow(
        &mut self,
        timeline: u32,
        history: &[u8],
        position: LogOffset,
        segment_size: u64,
    ) -> Result<(), EngineError> {
        if self.timeline.is_none_or(|seen| seen >= timeline) {
            return Ok(());
        }
        let place = production::Place { identity: self.identity, timeline, history, position };
        production::note(self.context, &place, segment_size, SeenBy::Server).map_err(from_app)?;
        self.timeline = Some(timeline);
        Ok(())
    }
}

/// Tells what the writer does.
pub(super) struct Watched<'a> {
    pub(super) writer: &'a mut LogWriter,
    pub(super) events: &'a dyn Events,
    pub(super) lease: Option<&'a KeptLease>,
    pub(super) refuse_gaps: bool,
    /// Refuse log of which nobody can tell whether it goes on from what is stored.
    pub(super) refuse_unproven: bool,
    pub(super) production: Production<'a>,
    pub(super) told: Option<(Instant, u32, LogOffset, Option<Micros>)>,
    /// The timeline of which was told that it is captured, and when.
    pub(super) told_timeline: &'a mut Option<(u32, Instant)>,
}

/// A capture that begins again and again, because nothing can be stored, says so this often at most.
const TELL_TIMELINE: Duration = Duration::from_secs(600);

/// Whether it is news that a timeline is captured.
fn is_news(told: Option<(u32, Instant)>, timeline: u32, now: Instant) -> bool {
    told.is_none_or(|(known, at)| known != timeline || now.duration_since(at) >= TELL_TIMELINE)
}

impl LogSink for Watched<'_> {
    fn stands(&mut self, timeline: u32, history: &[u8]) -> Result<Option<LogOffset>, EngineError> {
        self.writer.stands(timeline, history)
    }

    fn timeline(&mut self, timeline: u32, history: &[u8], from: LogOffset) -> Result<(), EngineError> {
        self.writer.timeline(timeline, history, from)?;
        self.production.follow(timeline, history, from, self.writer.segment_size())?;
        let now = Instant::now();
        if is_news(*self.told_timeline, timeline, now) {
            *self.told_timeline = Some((timeline, now));
            self.events.emit(Event::Info(format!("capturing timeline {timeline} from {}", text::lsn(from))));
        }
        Ok(())
    }

    fn compares_from(&self) -> Option<LogOffset> {
        self.writer.compares_from()
    }

    fn forks(
        &mut self,
        timeline: u32,
        history: &[u8],
        from: LogOffset,
        read: &mut ReadLog<'_>,
    ) -> Result<bool, EngineError> {
        let joined = self.writer.forks(timeline, history, from, read)?;
        if !joined {
            let text = fork::not_joined(&self.production.context.name, timeline, from);
            self.events.emit(Event::Warning(text));
        }
        Ok(joined)
    }

    fn not_compared(&mut self) -> Result<bool, EngineError> {
        let Some((timeline, at)) = self.writer.place().map(|place| (place.timeline, place.position)) else {
            return Ok(true);
        };
        if self.refuse_unproven {
            let object = format!("{} of timeline {timeline}", text::lsn(at));
            let message = "the server has no longer what is stored before it";
            return Err(EngineError::new(GAP_REFUSED, "take the log from", object, message).retryable());
        }
        let joined = self.writer.not_compared()?;
        if !joined {
            let text = fork::not_joined(&self.production.context.name, timeline, at);
            self.events.emit(Event::Warning(text));
        }
        Ok(joined)
    }

    fn write(&mut self, from: LogOffset, bytes: &[u8]) -> Result<(), EngineError> {
        self.writer.write(from, bytes)
    }

    fn covered(&mut self, to: LogOffset, until: Micros) -> Result<(), EngineError> {
        self.writer.covered(to, until)
    }

    fn tick(&mut self) -> Result<LogOffset, EngineError> {
        if self.lease.is_some_and(|lease| !lease.is_valid()) {
            let message = "its lock was not renewed in time: another capture may have begun";
            return Err(EngineError::new("capture.lease", "go on capturing", "the log", message)
                .class(FailureClass::Locked)
                .retryable());
        }
        let durable = self.writer.tick()?;
        if let Some(place) = self.writer.place() {
            let (timeline, covered_until) = (place.timeline, place.covered_until);
            let due = self.told.is_none_or(|(at, old_timeline, old_durable, old_covered)| {
                at.elapsed() >= TELL
                    && (old_timeline, old_durable, old_covered) != (timeline, durable, covered_until)
            });
            if due {
                self.told = Some((Instant::now(), timeline, durable, covered_until));
                self.events.emit(Event::Captured { timeline, position: durable, covered_until });
            }
        }
        Ok(durable)
    }

    fn timeline_end(&mut self, at: LogOffset) -> Result<(), EngineError> {
        self.writer.timeline_end(at)?;
        self.events.emit(Event::Info(format!("the timeline ended at {}", text::lsn(at))));
        Ok(())
    }

    fn gap(
        &mut self,
        timeline: u32,
        from: LogOffset,
        to: LogOffset,
        reason: &str,
    ) -> Result<(), EngineError> {
        // What a server has written behind a switch of segments holds nothing.
        if self.writer.missing(timeline, from, to)?.is_empty() {
            return self.writer.gap(timeline, from, to, reason);
        }
        if self.refuse_gaps {
            let span = format!("{} to {} of timeline {timeline}", text::lsn(from), text::lsn(to));
            return Err(EngineError::new(GAP_REFUSED, "take the log from", span, reason));
        }
        self.writer.gap(timeline, from, to, reason)?;
        self.events.emit(Event::Gap { timeline, from, to, reason: reason.to_owned() });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_is_told_once_until_another_comes_or_time_has_passed() {
        let now = Instant::now();
        assert!(is_news(None, 1, now) && is_news(Some((1, now)), 2, now));
        assert!(!is_news(Some((1, now)), 1, now + Duration::from_secs(3)));
        assert!(is_news(Some((1, now)), 1, now + TELL_TIMELINE));
    }
}
