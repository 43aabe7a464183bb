//! The open branch and its open segment.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use everpoint_core::join::NOTHING_BEFORE;
use everpoint_core::{FailureClass, LogOffset, Micros, Span, Verdict};
use everpoint_engine::{Decoded, Engine, EngineError, LogDecoder};
use everpoint_repo::{LogStore, Piece, RepoError, SegmentWriter, Stored};

use super::piece::{digest, join};
use super::recent::Recent;
use super::tails::Tails;
use super::{TailPolicy, Written, count, sink_error};
use crate::lineage::unknown_carry;

/// What to do about a server that goes on beside the stored log. Only a new timeline tells the two apart.
pub(crate) const DIVERGED_HINT: &str = "the server was set back (a snapshot of its disk or machine), or another copy of the \
    cluster has stored its log under this name. If this server is production: promote it to a new timeline (stop it, create \
    standby.signal in its data directory, start it, pg_ctl promote), then take a backup with `everpoint backup`; from there on it \
    is protected again. If it is a copy, give it a name of its own";

/// A server went on beside the stored log.
pub(crate) fn diverged(operation: &'static str, timeline: u32, at: LogOffset, message: &str) -> EngineError {
    let object = format!("the log of timeline {timeline} at {at}");
    EngineError::new("capture.diverged", operation, object, message)
        .class(FailureClass::Damaged)
        .hint(format!("{DIVERGED_HINT}; nothing of the stored log was changed"))
}

/// How many of the server's statements wait for durability at most.
const COVERED_WAITING: usize = 16;

/// The branch that is written.
pub(super) struct OpenBranch {
    pub(super) log: LogStore,
    /// System identifier that the log must have.
    pub(super) system: Option<u64>,
    pub(super) decoder: Box<dyn LogDecoder>,
    pub(super) segment: OpenSegment,
    /// Its tails.
    pub(super) tails: Tails,
    /// Tails from the first one on that can't be read: what they held is received again.
    pub(super) damaged: Vec<Piece>,
    /// BLAKE3 of the whole segment before the open one.
    pub(super) previous_hash: Option<[u8; 32]>,
    /// Where the next byte belongs.
    pub(super) position: LogOffset,
    /// The last bytes before it.
    pub(super) recent: Recent,
    /// Everything before is durable.
    pub(super) durable: LogOffset,
    /// Said by the server and not stored yet, oldest first.
    pub(super) covered_waiting: VecDeque<(LogOffset, Micros)>,
    /// The newest that is stored.
    pub(super) covered_stored: Option<(LogOffset, Micros)>,
    pub(super) covered_at: Option<Instant>,
    /// Start of the record that began before the open segment and ends in it.
    pub(super) unfinished: Option<LogOffset>,
    /// Nothing was stored since the server began to send: what comes first must continue what is stored.
    pub(super) joins: bool,
}

/// The segment that is not full yet.
pub(super) struct OpenSegment {
    start: LogOffset,
    /// Begun with the first byte, so that an idle server leaves no open object behind.
    writer: Option<SegmentWriter>,
    hasher: blake3::Hasher,
    /// What was found in the tails so far.
    decoded: Option<Decoded>,
    /// Bytes that are in no tail yet: those before the branch's position.
    pending: Vec<u8>,
    pending_since: Option<Instant>,
}

impl OpenSegment {
    pub(super) fn new(start: LogOffset) -> Self {
        Self {
            start,
            writer: None,
            hasher: blake3::Hasher::new(),
            decoded: None,
            pending: Vec::new(),
            pending_since: None,
        }
    }
}

impl OpenBranch {
    /// First position after the open segment.
    fn segment_end(&self) -> LogOffset {
        self.segment.start.plus(self.log.segment_size())
    }

    /// Takes bytes that begin at the position; stores every segment that they fill.
    pub(super) fn take(&mut self, bytes: &[u8], written: &mut Written) -> Result<(), EngineError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = usize::try_from(self.segment_end().since(self.position)).unwrap_or(usize::MAX);
            let (now, later) = rest.split_at_checked(room).unwrap_or((rest, &[]));
            self.feed(now).map_err(sink_error)?;
            self.segment.pending.extend_from_slice(now);
            self.segment.pending_since.get_or_insert_with(Instant::now);
            if self.position == self.segment_end() {
                self.finish_segment(written)?;
            }
            rest = later;
        }
        Ok(())
    }

    /// Hashes, decodes and compresses bytes of the open segment, and moves the position behind them.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<(), RepoError> {
        let segment = &mut self.segment;
        let mut writer = match segment.writer.take() {
            Some(writer) => writer,
            None => self.log.begin_segment(segment.start)?,
        };
        writer.write(bytes)?;
        segment.writer = Some(writer);
        segment.hasher.update(bytes);
        self.decoder.feed(bytes);
        self.recent.push(bytes);
        self.position = self.position.plus(bytes.len() as u64);
        Ok(())
    }

    /// Notes what was found up to the position as part of the open segment.
    pub(super) fn cut(&mut self) -> Decoded {
        let found = self.decoder.cut();
        self.segment.decoded = Some(join(self.segment.decoded.take(), found.clone()));
        found
    }

    /// Stores the full segment and begins the next one. Its tails go when it is stored and was read back.
    pub(super) fn finish_segment(&mut self, written: &mut Written) -> Result<(), EngineError> {
        let found = self.decoder.cut();
        self.check_system(&found)?;
        self.check_join(&found)?;
        let next = OpenSegment::new(self.segment_end());
        let full = std::mem::replace(&mut self.segment, next);
        (self.tails, self.damaged) = (Tails::default(), Vec::new());
        let span = Span { from: full.start, to: self.segment.start };
        let hash = *full.hasher.finalize().as_bytes();
        let decoded = join(full.decoded, found);
        let digest = digest(self.log.branch(), span, hash, self.previous_hash, self.covered_until(), decoded);
        let Some(writer) = full.writer else {
            return Err(EngineError::new(
                "capture.closed",
                "store",
                self.log.segment_name(span.from),
                "it was not begun",
            ));
        };
        let stored = writer.finish(&digest).map_err(|error| self.explain(error, span.from))?;
        self.log.remove_tails(span.from).map_err(sink_error)?;
        if stored == Stored::New {
            written.bytes = written.bytes.saturating_add(span.to.since(self.durable));
        }
        count(written, stored);
        (self.previous_hash, self.durable, self.joins) = (Some(hash), span.to, false);
        self.unfinished = None;
        Ok(())
    }

    /// Stores what is in no tail yet.
    pub(super) fn store_tail(&mut self, written: &mut Written) -> Result<(), EngineError> {
        if self.segment.pending.is_empty() {
            return Ok(());
        }
        let found = self.cut();
        self.check_system(&found)?;
        self.check_join(&found)?;
        let pending = std::mem::take(&mut self.segment.pending);
        self.segment.pending_since = None;
        let from = LogOffset(self.position.0.saturating_sub(pending.len() as u64));
        let span = Span { from, to: self.position };
        self.replace_damaged()?;
        let hash = *blake3::hash(&pending).as_bytes();
        let digest = digest(self.log.branch(), span, hash, self.previous_hash, self.covered_until(), found);
        self.log.put_tail(&digest, &pending).map_err(|error| self.explain(error, from))?;
        written.bytes = written.bytes.saturating_add(pending.len() as u64);
        (self.durable, self.joins) = (self.position, false);
        self.tails.push(span);
        self.segment.pending = pending;
        self.segment.pending.clear();
        Ok(())
    }

    /// Removes tails that can't be read, when everything that they held was received again: the next tail may need the
    /// name, and a reader should not choose them.
    fn replace_damaged(&mut self) -> Result<(), EngineError> {
        let position = self.position;
        for tail in self.damaged.extract_if(.., |tail| tail.stored.to <= position) {
            self.log.remove_unreadable(&tail).map_err(sink_error)?;
        }
        Ok(())
    }

    /// Refuses the log of another cluster.
    fn check_system(&self, found: &Decoded) -> Result<(), EngineError> {
        let Some(system) = self.system.filter(|system| found.system != 0 && *system != found.system) else {
            return Ok(());
        };
        let message = format!("it is written by system {}, and the stored log by {system}", found.system);
        let object = format!("the log of timeline {}", self.log.branch().timeline());
        Err(EngineError::new("capture.wrong_cluster", "store", object, message)
            .class(FailureClass::Damaged)
            .hint("the address leads to another cluster: check it, or give that cluster a name of its own"))
    }

    /// Refuses the log of a copy that went its own way: its first record links to another than the last one that is stored.
    /// After a reset it links to none; that is stored, and told as a reset.
    fn check_join(&self, found: &Decoded) -> Result<(), EngineError> {
        let Verdict::Broken { at, .. } = &found.verdict else { return Ok(()) };
        let is_first = (found.first_record == Some(*at) && found.first_previous != Some(LogOffset(0)))
            || (self.unfinished == Some(*at) && self.durable == self.segment.start);
        if self.joins && is_first {
            return Err(self.diverged(*at, "its first record does not follow the last one that is stored"));
        }
        Ok(())
    }

    /// Whether what is in no tail yet should be stored as one. A segment that will be full soon is worth waiting for:
    /// storing it whole makes its tails superfluous.
    pub(super) fn tail_is_due(&self, policy: TailPolicy, now: Instant) -> bool {
        let Some(since) = self.segment.pending_since else {
            return false;
        };
        let age = now.saturating_duration_since(since);
        if age < policy.interval && self.segment.pending.len() < policy.bytes {
            return false;
        }
        // At the rate at which the waiting bytes came, the rest comes within as long again.
        let soon_full = self.segment_end().since(self.position) <= self.segment.pending.len() as u64;
        !soon_full || age >= policy.interval.saturating_mul(2)
    }

    /// Where what can be compared begins.
    pub(super) fn compares_from(&self) -> LogOffset {
        LogOffset(self.position.0.saturating_sub(self.recent.known()))
    }

    /// Whether what comes shows by itself that it continues what is stored: a record that began before ends in it.
    pub(super) fn proves_itself(&self) -> bool {
        self.position > self.segment.start || self.unfinished.is_some()
    }

    /// What comes is stored by itself: nothing that is stored goes before. False if there is nothing of it.
    pub(super) fn begin_apart(&mut self, engine: &dyn Engine) -> bool {
        if self.previous_hash.is_none() {
            return false;
        }
        self.decoder = engine.decoder(self.log.segment_size(), unknown_carry(self.position));
        (self.previous_hash, self.recent) = (Some(NOTHING_BEFORE), Recent::default());
        true
    }

    /// Compares bytes that were sent again with those that are still in memory. What a different content means is told
    /// at once instead of at the end of the segment.
    pub(super) fn compare(&self, from: LogOffset, again: &[u8]) -> Result<(), EngineError> {
        let same = |ours: &[u8]| {
            let ours_from = LogOffset(self.position.0.saturating_sub(ours.len() as u64));
            let skip = usize::try_from(ours_from.since(from)).unwrap_or(usize::MAX);
            let into = usize::try_from(from.since(ours_from)).unwrap_or(usize::MAX);
            let theirs = again.get(skip..).unwrap_or_default();
            ours.get(into..).unwrap_or_default().iter().zip(theirs).all(|(a, b)| a == b)
        };
        if same(&self.segment.pending) && self.recent.is_same(self.position, from, again) {
            return Ok(());
        }
        Err(self.diverged(from, "the server sends other bytes than before for the same position"))
    }

    fn diverged(&self, at: LogOffset, message: &str) -> EngineError {
        diverged("store", self.log.branch().timeline(), at, message)
    }

    fn explain(&self, error: RepoError, at: LogOffset) -> EngineError {
        if error.code == everpoint_repo::code::DIFFERS {
            return self.diverged(at, "another content is stored for the same positions").cause(error);
        }
        sink_error(error)
    }

    /// Notes what the server says; stored when everything up to `to` is durable.
    pub(super) fn await_covered(&mut self, to: LogOffset, until: Micros) {
        // While much happens the older ones become storable first; of what nobody could store in between the newest count.
        if self.covered_waiting.len() >= COVERED_WAITING {
            self.covered_waiting.pop_back();
        }
        self.covered_waiting.push_back((to, until));
    }

    /// The newest `covered until` that speaks only of what is durable and is not stored yet.
    fn covered_ready(&self) -> Option<(LogOffset, Micros)> {
        let ready = self.covered_waiting.iter().copied().filter(|(to, _)| *to <= self.durable).max();
        ready.filter(|ready| self.covered_stored.is_none_or(|stored| stored < *ready))
    }

    /// Whether `covered until` should be stored now.
    pub(super) fn covered_is_due(&self, busy: Duration, idle: Duration) -> bool {
        let Some((to, _)) = self.covered_ready() else {
            return false;
        };
        let moved = self.covered_stored.is_none_or(|(position, _)| position != to);
        self.covered_at.is_none_or(|at| at.elapsed() >= if moved { busy } else { idle })
    }

    /// Stores `covered until`, if everything that it speaks of is durable.
    pub(super) fn store_covered(&mut self) -> Result<(), EngineError> {
        let Some((to, until)) = self.covered_ready() else {
            return Ok(());
        };
        self.log.put_covered(to, until).map_err(sink_error)?;
        self.covered_stored = Some((to, until));
        self.covered_at = Some(Instant::now());
        self.covered_waiting.retain(|waiting| *waiting > (to, until));
        Ok(())
    }

    /// The moment up to which nothing was committed beyond the position.
    fn covered_until(&self) -> Option<Micros> {
        let known = self.covered_waiting.iter().copied().chain(self.covered_stored);
        known.filter(|(to, _)| *to <= self.position).map(|(_, until)| until).max()
    }
}
