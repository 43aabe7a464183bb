//! Which stored branch is which: by timeline and history, among those that share a number.

use everpoint_core::{BranchId, Carry, HistoryEntry, LogOffset, followed};
use everpoint_engine::Engine;
use everpoint_repo::{ClusterRepo, LogStore};

use crate::AppError;

/// Bytes at the end of a segment in which the unfinished record at its end is looked for first.
const TAIL_BYTES: usize = 4 << 20;

/// The name of the branch of `timeline` whose history file has this content; a first timeline has none.
#[must_use]
pub fn branch_id(timeline: u32, history: &[u8]) -> BranchId {
    let mut hash = [0; 8];
    if !history.is_empty() {
        let whole = blake3::hash(history);
        hash.iter_mut().zip(whole.as_bytes()).for_each(|(byte, source)| *byte = *source);
    }
    BranchId::new(timeline, hash)
}

/// The branches of one identity of a cluster.
#[derive(Clone, Copy)]
pub struct Lineage<'a> {
    /// The cluster.
    pub cluster: &'a ClusterRepo,
    /// Reads histories.
    pub engine: &'a dyn Engine,
    /// Number of the identity.
    pub identity: u32,
    /// Bytes of a segment.
    pub segment_size: u64,
}

impl Lineage<'_> {
    /// The log of a branch.
    #[must_use]
    pub fn log(&self, branch: BranchId) -> LogStore {
        self.cluster.log(self.identity, branch, self.segment_size)
    }

    /// The stored branch of `timeline` from which a branch with this history comes; `None` if its history does not name
    /// that timeline, or nothing of that branch is stored.
    ///
    /// # Errors
    /// If the repository can't be read, or `history` is none.
    pub fn ancestor(&self, history: &[u8], timeline: u32) -> Result<Option<BranchId>, AppError> {
        let steps = self.steps(history)?;
        let Some(at) = steps.iter().rposition(|step| step.timeline == timeline) else {
            return Ok(None);
        };
        for branch in self.of_timeline(timeline)? {
            let content = self.log(branch.clone()).history();
            // One odd object must not keep the other branches from being found.
            let own = match content {
                Ok(content) => self.steps(&content.unwrap_or_default()),
                Err(error) if error.is_damaged() => continue,
                Err(error) => return Err(error.into()),
            };
            if own.is_ok_and(|own| steps.get(..at) == Some(own.as_slice())) {
                return Ok(Some(branch));
            }
        }
        Ok(None)
    }

    fn steps(&self, history: &[u8]) -> Result<Vec<HistoryEntry>, AppError> {
        if history.is_empty() { Ok(Vec::new()) } else { Ok(self.engine.history(history)?) }
    }

    /// All stored branches of a timeline.
    ///
    /// # Errors
    /// If the repository can't be listed.
    pub fn of_timeline(&self, timeline: u32) -> Result<Vec<BranchId>, AppError> {
        let mut branches = self.cluster.branches(self.identity)?;
        branches.retain(|branch| branch.timeline() == timeline);
        Ok(branches)
    }

    /// The log that holds the whole segment before the one at `start` on the way to a branch with this history: the
    /// branch's own, or that of the ancestor which wrote it. `None` if there is no such segment, or it is not stored whole.
    ///
    /// # Errors
    /// If the repository can't be read.
    pub fn predecessor(
        &self,
        log: &LogStore,
        history: &[u8],
        start: LogOffset,
    ) -> Result<Option<Before>, AppError> {
        let Some(before) = start.0.checked_sub(self.segment_size).map(LogOffset) else {
            return Ok(None);
        };
        if let Some(hash) = log.segment_hash(before)? {
            return Ok(Some(Before { log: log.clone(), start: before, hash }));
        }
        let steps = followed(&self.steps(history)?);
        // The segment in which a timeline forks is taken from the younger one, so one that ends at the fork is the older's.
        let Some(step) = steps.iter().find(|step| step.until >= start) else {
            return Ok(None);
        };
        let Some(branch) = self.ancestor(history, step.timeline)? else {
            return Ok(None);
        };
        let log = self.log(branch);
        Ok(log.segment_hash(before)?.map(|hash| Before { log, start: before, hash }))
    }
}

/// A whole segment that is followed by another.
pub struct Before {
    /// The log that holds it.
    pub log: LogStore,
    /// Where it begins.
    pub start: LogOffset,
    /// BLAKE3 of it.
    pub hash: [u8; 32],
}

impl Before {
    /// The unfinished record at its end. Memory: 8 MiB.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn carry(&self, engine: &dyn Engine) -> Result<Carry, AppError> {
        self.carry_and_end(engine).map(|(carry, _)| carry)
    }

    /// As [`Before::carry`], and the last bytes of it.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn carry_and_end(&self, engine: &dyn Engine) -> Result<(Carry, Vec<u8>), AppError> {
        let mut tail = Vec::new();
        self.log.read_segment(self.start, &mut |bytes| {
            tail.extend_from_slice(bytes);
            if tail.len() > 2 * TAIL_BYTES {
                tail.drain(..tail.len() - TAIL_BYTES);
            }
        })?;
        let size = self.log.segment_size();
        let carry = carry_at_end(engine, &tail, self.start, size);
        if knows_something(&carry) || size <= tail.len() as u64 {
            return Ok((carry, tail));
        }
        // One long record covers all of these pages.
        let mut decoder = engine.decoder(size, unknown_carry(self.start));
        self.log.read_segment(self.start, &mut |bytes| decoder.feed(bytes))?;
        Ok((decoder.carry(), tail))
    }
}

/// Whether a decoder that begins with it knows what came before.
#[must_use]
pub fn knows_something(carry: &Carry) -> bool {
    !carry.bytes.is_empty() || carry.previous != LogOffset(0)
}

/// The unfinished record at the end of the segment that begins at `start`, of which the last bytes are given: whole
/// pages.
#[must_use]
pub fn carry_at_end(engine: &dyn Engine, last_bytes: &[u8], start: LogOffset, segment_size: u64) -> Carry {
    let begin = start.plus(segment_size.saturating_sub(last_bytes.len() as u64));
    engine.carry_of(last_bytes, begin, segment_size)
}

/// What is known before `start` if nothing is.
#[must_use]
pub fn unknown_carry(start: LogOffset) -> Carry {
    Carry { record_start: start, position: start, ..Carry::default() }
}
