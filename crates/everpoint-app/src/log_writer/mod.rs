//! Writes the log that a server sends into a repository: tails while a segment is open, the whole segment when it is full.

mod errors;
pub(crate) mod fork;
mod open;
mod piece;
mod recent;
pub(crate) mod same;
mod segment;
mod tails;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use everpoint_core::{BranchId, FailureClass, LogOffset, Micros, Span};
use everpoint_engine::{EngineError, LogSink, ReadLog};
use everpoint_repo::{ClusterRepo, LogStore, Stored};

use crate::lineage::{Lineage, branch_id};
use crate::{AppError, ClusterContext, coverage};
pub(crate) use errors::{from_app, sink_error};
pub(crate) use piece::digest;
use segment::OpenBranch;
pub(crate) use segment::{DIVERGED_HINT, diverged};

/// When a part of an open segment is stored as a tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TailPolicy {
    /// No received byte waits longer than twice this, and if the segment is not about to be full, than this.
    pub interval: Duration,
    /// So many bytes don't wait, unless the segment is about to be full.
    pub bytes: usize,
    /// So many tails become one.
    pub merge: usize,
}

impl Default for TailPolicy {
    fn default() -> Self {
        Self { interval: Duration::from_millis(250), bytes: 4 << 20, merge: 32 }
    }
}

/// How often `covered until` is stored while nothing else happens.
const COVERED_IDLE: Duration = Duration::from_secs(1);
/// How often at most it is stored while much happens.
const COVERED_BUSY: Duration = Duration::from_millis(200);

/// What a writer has stored since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// Whole segments, not counting those that were there already.
    pub segments: u64,
    /// Bytes of log that were made durable.
    pub bytes: u64,
}

/// See the module. Nothing of its state is needed after a crash: the next one finds its place in the repository.
pub struct LogWriter {
    context: ClusterContext,
    identity: u32,
    /// System identifier of the identity, if it is recorded: log of another system is refused.
    system: Option<u64>,
    segment_size: u64,
    policy: TailPolicy,
    open: Option<OpenBranch>,
    /// The branch that is to begin here is not joined to what is stored before.
    apart: Option<(BranchId, LogOffset)>,
    written: Written,
}

impl LogWriter {
    /// A writer for the log of one identity of the context's cluster.
    ///
    /// # Errors
    /// If segments can't have that many bytes (powers of two from 1 MiB to 1 GiB), or the repository can't be read.
    pub fn open(context: &ClusterContext, identity: u32, segment_size: u64) -> Result<Self, AppError> {
        if !segment_size.is_power_of_two() || !((1 << 20)..=(1 << 30)).contains(&segment_size) {
            let message = format!("log segments can't have {segment_size} bytes");
            return Err(AppError::new(
                "capture.segment_size",
                FailureClass::Failed,
                "capture",
                &context.name,
                message,
            ));
        }
        let known = context.cluster.identities()?.into_iter().find(|(number, _)| *number == identity);
        Ok(Self {
            system: known.and_then(|(_, known)| known.system_identifier.parse().ok()),
            context: context.clone(),
            identity,
            segment_size,
            policy: TailPolicy::default(),
            open: None,
            apart: None,
            written: Written::default(),
        })
    }

    /// The same writer with another policy.
    #[must_use]
    pub fn with_policy(mut self, policy: TailPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Where capture has to go on so that nothing is left out: the end of the log on the branch that production was last
    /// seen on, or the first hole in it that is not a known gap. If nothing of that is stored, of the newest branch. `None`
    /// if nothing is stored.
    ///
    /// # Errors
    /// If the repository can't be read.
    pub fn resume_point(
        cluster: &ClusterRepo,
        identity: u32,
        segment_size: u64,
    ) -> Result<Option<(u32, LogOffset)>, AppError> {
        let seen = cluster.sightings()?.into_iter().rev().filter(|seen| seen.identity == identity);
        for branch in seen.map(|seen| seen.branch) {
            let timeline = branch.timeline();
            if let Some(end) = coverage::resume_position(&cluster.log(identity, branch, segment_size))? {
                return Ok(Some((timeline, end)));
            }
        }
        let mut best: Option<(u32, Option<Micros>, LogOffset)> = None;
        for branch in cluster.branches(identity)? {
            let timeline = branch.timeline();
            let log = cluster.log(identity, branch, segment_size);
            if let Some(end) = coverage::resume_position(&log)? {
                best = best.max(Some((timeline, log.covered()?.map(|(_, until)| until), end)));
            }
        }
        Ok(best.map(|(timeline, _, end)| (timeline, end)))
    }

    /// As [`LogWriter::resume_point`], of the branch with this timeline and history.
    ///
    /// # Errors
    /// If the repository can't be read.
    pub fn position(&self, timeline: u32, history: &[u8]) -> Result<Option<LogOffset>, AppError> {
        Ok(coverage::resume_position(&self.lineage().log(branch_id(timeline, history)))?)
    }

    /// What of the log from `from` to `to` of a timeline is neither stored nor without meaning.
    ///
    /// # Errors
    /// If the repository can't be read.
    pub fn missing(
        &mut self,
        timeline: u32,
        from: LogOffset,
        to: LogOffset,
    ) -> Result<Vec<Span>, EngineError> {
        self.flush()?;
        let open = self.open.as_ref().filter(|open| open.log.branch().timeline() == timeline);
        let log = match open {
            Some(open) => open.log.clone(),
            None => self.log_of(timeline)?,
        };
        coverage::missing(&log, Span { from, to }).map_err(sink_error)
    }

    /// The branch of a timeline that the log of its server belongs to, as far as that is known.
    fn log_of(&self, timeline: u32) -> Result<LogStore, EngineError> {
        let newest = coverage::newest_of(&self.lineage(), timeline).map_err(from_app)?;
        Ok(self.lineage().log(newest.unwrap_or_else(|| branch_id(timeline, &[]))))
    }

    /// Timeline and position of the next byte of the open branch, and up to where it is durable.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        self.open.as_ref().map(|open| Place {
            timeline: open.log.branch().timeline(),
            position: open.position,
            durable: open.durable,
            covered_until: open.covered_stored.map(|(_, until)| until),
        })
    }

    /// Bytes of a segment.
    #[must_use]
    pub const fn segment_size(&self) -> u64 {
        self.segment_size
    }

    /// Makes everything durable that was received.
    ///
    /// # Errors
    /// If it can't be stored.
    pub fn flush(&mut self) -> Result<(), EngineError> {
        if self.open.is_none() {
            return Ok(());
        }
        self.step(|open, written| {
            open.store_tail(written)?;
            open.store_covered()
        })
    }

    /// Forgets the open branch; what was not stored yet is given up.
    pub fn abandon(&mut self) {
        self.open = None;
    }

    /// What was stored so far.
    #[must_use]
    pub const fn written(&self) -> Written {
        self.written
    }

    fn lineage(&self) -> Lineage<'_> {
        Lineage {
            cluster: &self.context.cluster,
            engine: self.context.engine.as_ref(),
            identity: self.identity,
            segment_size: self.segment_size,
        }
    }

    /// Runs a step on the open branch. After an error nothing in memory can be relied on: the branch is closed, and
    /// [`LogSink::timeline`] finds its place in the repository again.
    fn step<T>(
        &mut self,
        step: impl FnOnce(&mut OpenBranch, &mut Written) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let Some(mut open) = self.open.take() else {
            let message = "no timeline was named before, or an error has closed it";
            return Err(EngineError::new("capture.closed", "store", "the log", message).retryable());
        };
        let result = step(&mut open, &mut self.written)?;
        self.open = Some(open);
        Ok(result)
    }

    /// Stores what is left of the open branch and closes it.
    fn close(&mut self) -> Result<Option<OpenBranch>, EngineError> {
        let Some(mut open) = self.open.take() else {
            return Ok(None);
        };
        open.store_tail(&mut self.written)?;
        open.store_covered()?;
        Ok(Some(open))
    }

    fn open_at(&mut self, log: LogStore, history: &[u8], from: LogOffset) -> Result<(), EngineError> {
        let mut written = self.written;
        let apart = self.apart.take().filter(|(branch, _)| branch == log.branch()).map(|(_, at)| at);
        let mut opened = open::run(&self.lineage(), (&log, apart), history, from, &mut written)?;
        (opened.system, opened.joins) = (self.system, true);
        (self.open, self.written) = (Some(opened), written);
        Ok(())
    }
}

/// Where a writer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Timeline.
    pub timeline: u32,
    /// Position of the next byte.
    pub position: LogOffset,
    /// Everything before this is durable.
    pub durable: LogOffset,
    /// Nothing was committed beyond `durable` up to this moment.
    pub covered_until: Option<Micros>,
}

impl LogSink for LogWriter {
    fn stands(&mut self, timeline: u32, history: &[u8]) -> Result<Option<LogOffset>, EngineError> {
        let branch = branch_id(timeline, history);
        match self.open.as_ref().filter(|open| *open.log.branch() == branch) {
            Some(open) => Ok(Some(open.position)),
            None => self.position(timeline, history).map_err(from_app),
        }
    }

    fn timeline(&mut self, timeline: u32, history: &[u8], from: LogOffset) -> Result<(), EngineError> {
        let branch = branch_id(timeline, history);
        if let Some(open) = &self.open
            && *open.log.branch() == branch
            && from <= open.position
        {
            return Ok(());
        }
        let same = self.open.as_ref().is_some_and(|open| *open.log.branch() == branch);
        let closed = self.close()?;
        let log = self.lineage().log(branch);
        if !history.is_empty() {
            log.put_history(history).map_err(sink_error)?;
        }
        if let Some(closed) = closed.filter(|closed| same && closed.position < from) {
            let span = Span { from: closed.position, to: from };
            log.put_gap(span, "the server went on at a later position").map_err(sink_error)?;
        }
        self.open_at(log, history, from)
    }

    fn compares_from(&self) -> Option<LogOffset> {
        self.open.as_ref().map(OpenBranch::compares_from)
    }

    fn forks(
        &mut self,
        timeline: u32,
        history: &[u8],
        from: LogOffset,
        read: &mut ReadLog<'_>,
    ) -> Result<bool, EngineError> {
        self.forks_off(timeline, history, from, read).map_err(from_app)
    }

    fn not_compared(&mut self) -> Result<bool, EngineError> {
        let engine = Arc::clone(&self.context.engine);
        self.step(|open, _| Ok(open.proves_itself() || !open.begin_apart(engine.as_ref())))
    }

    fn write(&mut self, from: LogOffset, bytes: &[u8]) -> Result<(), EngineError> {
        let step = |open: &mut OpenBranch, written: &mut Written| {
            if from > open.position {
                let message =
                    format!("log comes at {from}, and everything from {} on is missing", open.position);
                let object = format!("timeline {}", open.log.branch().timeline());
                return Err(EngineError::new("capture.hole", "store the log of", object, message).retryable());
            }
            let known = usize::try_from(open.position.since(from)).unwrap_or(usize::MAX);
            open.compare(from, bytes.get(..known).unwrap_or(bytes))?;
            open.take(bytes.get(known..).unwrap_or_default(), written)
        };
        self.step(step)
    }

    fn covered(&mut self, to: LogOffset, until: Micros) -> Result<(), EngineError> {
        self.step(|open, _| {
            open.await_covered(to, until);
            Ok(())
        })
    }

    fn tick(&mut self) -> Result<LogOffset, EngineError> {
        let policy = self.policy;
        self.step(|open, written| {
            if open.tail_is_due(policy, Instant::now()) {
                open.store_tail(written)?;
                open.merge_tails(policy.merge)?;
            }
            if open.covered_is_due(COVERED_BUSY, COVERED_IDLE) {
                open.store_covered()?;
            }
            Ok(open.durable)
        })
    }

    fn timeline_end(&mut self, at: LogOffset) -> Result<(), EngineError> {
        let closed = self.close()?;
        let missing = closed.as_ref().map(|open| (open.position, open.log.branch().timeline()));
        match missing {
            Some((position, timeline)) if position < at => {
                let message = format!("it is stored up to {position}, and it ends at {at}");
                let object = format!("timeline {timeline}");
                Err(EngineError::new("capture.hole", "close", object, message).retryable())
            }
            _ => Ok(()),
        }
    }

    fn gap(
        &mut self,
        timeline: u32,
        from: LogOffset,
        to: LogOffset,
        reason: &str,
    ) -> Result<(), EngineError> {
        let was_open = self.open.as_ref().is_some_and(|open| open.log.branch().timeline() == timeline);
        let closed = self.close()?;
        let log = match closed.filter(|_| was_open) {
            Some(closed) => closed.log,
            None => self.log_of(timeline)?,
        };
        for span in coverage::missing(&log, Span { from, to }).map_err(sink_error)? {
            log.put_gap(span, reason).map_err(sink_error)?;
        }
        if was_open {
            let history = log.history().map_err(sink_error)?.unwrap_or_default();
            self.open_at(log, &history, to)?;
        }
        Ok(())
    }
}

/// What became of a segment, counted.
fn count(written: &mut Written, stored: Stored) {
    if stored == Stored::New {
        written.segments = written.segments.saturating_add(1);
    }
}
