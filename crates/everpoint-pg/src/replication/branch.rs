//! Where a capture goes on when the server has left the branch on which the sink stands: it was brought back in place, or
//! failed over to a server that forked off earlier.

use everpoint_engine::{EngineError, LogSink, ServerIdentity};

use super::Replication;
use super::start::{Obstacle, Start, after};
use crate::history::History;

/// A server, and the way that its log took.
pub(super) struct Way<'a> {
    pub(super) replication: &'a mut Replication,
    pub(super) server: &'a ServerIdentity,
    pub(super) history: &'a History,
}

impl Way<'_> {
    /// Whether what the sink holds of this timeline lies on the way: two branches may have one number.
    pub(super) fn has(&mut self, timeline: u32, sink: &mut dyn LogSink) -> Result<bool, EngineError> {
        if timeline == self.server.timeline {
            return Ok(sink.stands(timeline, &self.server.history)?.is_some());
        }
        if self.history.left_at(timeline).is_none() {
            return Ok(false);
        }
        // A server that has no longer the file of an ancestor can't be asked: then the number has to do.
        match self.replication.timeline_history(timeline) {
            Ok(content) => Ok(sink.stands(timeline, &content)?.is_some()),
            Err(_) => Ok(true),
        }
    }

    /// From the last of the way that the sink holds.
    pub(super) fn after_what_is_held(
        &mut self,
        sink: &mut dyn LogSink,
    ) -> Result<Result<Start, Obstacle>, EngineError> {
        for step in self.history.followed().into_iter().rev() {
            let Ok(content) = self.replication.timeline_history(step.timeline) else { continue };
            let Some(position) = sink.stands(step.timeline, &content)? else { continue };
            return Ok(Ok(if position <= step.until {
                Start { timeline: step.timeline, position, close: None }
            } else {
                after(step.until, self.server, self.history)
            }));
        }
        Ok(Err(Obstacle::OtherHistory))
    }
}
