//! What the sink holds must be what the server has there.

use everpoint_core::{LogOffset, Span};
use everpoint_engine::{CaptureOptions, EngineError, LogSink};

use super::Session;
use crate::catalog::log_keeping;
use crate::lsn::Lsn;
use crate::replication::loss::is_gone;
use crate::replication::read::read_span;
use crate::replication::receive::{Outcome, Receiver};
use crate::replication::start::{Start, segment_start};

impl Session {
    /// Receives from a start, beginning a little before it: what the sink has stored last must be what the server has there.
    /// Where the server no longer has that much, it begins with the segment, or where the sink stands.
    pub(super) fn receive(
        &mut self,
        start: &Start,
        options: &CaptureOptions,
        sink: &mut dyn LogSink,
    ) -> Result<(Outcome, LogOffset), EngineError> {
        for from in self.asked_for(start, options, sink) {
            let (outcome, reached) = self.receive_from(from, start, options, sink)?;
            match outcome {
                Outcome::Failed(error) if is_gone(&error) && from < start.position && reached <= from => {
                    tracing::info!(%error, from = %Lsn::from(from), "not there any more to compare");
                    self.renew_slot(options)?;
                }
                outcome => return Ok((outcome, reached.max(start.position))),
            }
        }
        // All that could be compared lies in a segment that is gone. After a failover that is so in good order; a server that
        // went on by itself has told its slot, unless it was set back.
        let compares = start.timeline == self.server.timeline
            && sink.compares_from().is_some_and(|begin| begin < start.position);
        if compares && !self.has_acknowledged(start.position, options) {
            sink.not_compared()?;
        }
        self.receive_from(start.position, start, options, sink)
    }

    /// Whether a lasting slot says that this server was told that the sink holds everything before a position: a slot that was
    /// made since, or set back with its server, stands elsewhere.
    fn has_acknowledged(&mut self, position: LogOffset, options: &CaptureOptions) -> bool {
        let stands = match &options.lasting {
            Some(name) => self.replication.read_slot(name).ok().flatten(),
            None => self.slot_position.filter(|_| options.slot.is_some() && !options.temporary),
        };
        stands.and_then(|slot| slot.restart) == Some(position)
    }

    /// What of [`Self::compared`] the server is asked for: to ask for what is gone leaves an error in its log.
    fn asked_for(&mut self, start: &Start, options: &CaptureOptions, sink: &dyn LogSink) -> Vec<LogOffset> {
        let mut compared = self.compared(start, sink);
        let Some(first) = compared.first().copied().filter(|first| !self.has_surely(*first)) else {
            return compared;
        };
        let tells = !self.server.in_recovery && start.timeline == self.server.timeline;
        if let Some(oldest) = tells.then(|| log_keeping(&self.config)?.oldest).flatten() {
            compared.retain(|from| *from >= oldest);
        } else if self.has_acknowledged(start.position, options) {
            compared.retain(|from| *from > first && self.has_surely(*from));
        }
        compared
    }

    /// Whether the server has its log from there on: in the segment that is being written nothing is gone, nor behind a slot.
    fn has_surely(&self, from: LogOffset) -> bool {
        let segment = self.server.segment_size;
        let kept = self.slot_position.and_then(|slot| slot.restart).is_some_and(|restart| restart <= from);
        kept || segment_start(from, segment) == segment_start(self.server.position, segment)
    }

    /// Where to begin, in the order in which it is tried.
    fn compared(&self, start: &Start, sink: &dyn LogSink) -> Vec<LogOffset> {
        let position = start.position;
        let begin = sink.compares_from().filter(|begin| self.has_more(start) && *begin < position);
        let segment = segment_start(position, self.server.segment_size);
        let within = begin.map(|begin| begin.max(segment)).filter(|within| *within < position);
        let mut from: Vec<LogOffset> = begin.into_iter().chain(within).collect();
        from.dedup();
        from
    }

    /// Of a timeline that ends where the sink stands nothing comes that could be other log.
    fn has_more(&self, start: &Start) -> bool {
        let left = self.history.left_at(start.timeline);
        start.timeline == self.server.timeline || left.is_some_and(|left| start.position < left)
    }

    fn receive_from(
        &mut self,
        from: LogOffset,
        start: &Start,
        options: &CaptureOptions,
        sink: &mut dyn LogSink,
    ) -> Result<(Outcome, LogOffset), EngineError> {
        let covers = !self.server.in_recovery && start.timeline == self.server.timeline;
        match self.replication.stream(self.slot.as_deref(), start.timeline, from) {
            Ok(stream) => Receiver::new(stream, sink, options, (from, start.position), covers).run(),
            Err(error) => Ok((Outcome::Failed(error), from)),
        }
    }

    /// Reads a part of the log; `None` if the server has it no longer.
    pub(super) fn read(
        &mut self,
        timeline: u32,
        span: Span,
        options: &CaptureOptions,
    ) -> Result<Option<Vec<u8>>, EngineError> {
        let whole = |bytes: &Vec<u8>| bytes.len() as u64 == span.to.since(span.from);
        match read_span(&mut self.replication, timeline, span) {
            Ok(bytes) => Ok(Some(bytes).filter(whole)),
            Err(error) if is_gone(&error) => {
                tracing::info!(%error, from = %Lsn::from(span.from), "not there any more to compare");
                self.renew_slot(options)?;
                Ok(None)
            }
            Err(error) => {
                let object = format!("{}, timeline {timeline} at {}", self.object, Lsn::from(span.from));
                Err(error.at("read the log of", object))
            }
        }
    }
}
