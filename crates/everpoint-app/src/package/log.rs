//! The log of a package: whole segments under PostgreSQL's own names.

use std::collections::BTreeMap;

use everpoint_core::package::{BranchLog, log_needed};
use everpoint_core::{BranchFacts, LogOffset, RestorePlan, Span};
use everpoint_engine::StopFlag;
use everpoint_format::package::{PackagedLog, PackagedRange};

use super::member::{Made, Workshop};
use super::{ArrivedBranch, Contents};
use crate::facts::Facts;
use crate::{AppError, ClusterContext, text};

/// Threads that read one segment.
const READERS: usize = 2;

/// The log of one branch, in scratch.
#[derive(Debug)]
pub(super) struct MadeLog {
    pub(super) log: PackagedLog,
    /// The history file, if there is one.
    pub(super) history: Option<Made>,
    /// Segments: where each ends, and its file; the oldest first.
    pub(super) segments: Vec<(Span, Made)>,
    /// So many of the oldest are in packages that arrived, and go in again only for the sake of the image.
    pub(super) again: usize,
    /// Up to where the branch is stored.
    pub(super) end: LogOffset,
    /// Its newest segments were left out.
    pub(super) cut: bool,
    /// What was stored by the facts and could not be read.
    pub(super) holes: Vec<Span>,
    /// From here on something is missing that may still come back: no package may be said to hold what follows.
    pub(super) broken: Option<LogOffset>,
}

impl MadeLog {
    /// Bytes of each of its segments.
    pub(super) fn sizes(&self) -> impl Iterator<Item = u64> + '_ {
        self.segments.iter().map(|(_, made)| made.member.size)
    }

    /// So many segments are in no package that arrived.
    pub(super) fn new_segments(&self) -> usize {
        self.segments.len() - self.again
    }

    /// Leaves out what arrived before.
    pub(super) fn leave_out_again(&mut self) {
        self.segments.drain(..std::mem::take(&mut self.again));
        self.log.ranges = ranges(self.segments.iter().map(|(span, _)| *span));
    }

    /// Keeps only so many of the new segments, the oldest.
    pub(super) fn keep(&mut self, new: usize) {
        self.cut |= new < self.new_segments();
        self.segments.truncate(self.again + new);
        self.log.ranges = ranges(self.segments.iter().map(|(span, _)| *span));
    }

    pub(super) fn is_of(&self, branch: &BranchFacts) -> bool {
        self.log.identity == branch.identity && self.log.branch == branch.id.to_string()
    }

    /// Up to where packages hold the branch once this one has arrived; `None`: it adds nothing.
    pub(super) fn held_to(&self) -> Option<LogOffset> {
        let to = if self.cut { self.segments.last().map(|(span, _)| span.to) } else { Some(self.end) };
        to.map(|to| self.broken.map_or(to, |broken| broken.min(to)))
    }
}

/// The segments of a branch, in scratch.
#[derive(Default)]
struct Segments {
    made: Vec<(Span, Made)>,
    again: usize,
    holes: Vec<Span>,
    broken: Option<LogOffset>,
}

fn ranges(spans: impl Iterator<Item = Span>) -> Vec<PackagedRange> {
    let mut ranges: Vec<PackagedRange> = Vec::new();
    for span in spans {
        match ranges.last_mut() {
            Some(last) if last.to == span.from.0 => last.to = span.to.0,
            _ => ranges.push(PackagedRange { from: span.from.0, to: span.to.0 }),
        }
    }
    ranges
}

/// What a package has to hold of the log of a cluster.
pub(super) struct LogRequest<'a> {
    pub(super) context: &'a ClusterContext,
    pub(super) facts: &'a Facts,
    /// How the newest moment is reached, if it can be.
    pub(super) plan: Option<&'a RestorePlan>,
    /// What packages hold that arrived.
    pub(super) arrived: &'a Contents,
    pub(super) stop: &'a StopFlag,
}

impl LogRequest<'_> {
    /// Makes the members, parents before the branches that forked from them. Branches of which nothing new has to go in
    /// come without segments. What should go in and can't be read is named among `shortfalls`.
    pub(super) fn make(
        &self,
        workshop: &mut Workshop,
        shortfalls: &mut Vec<String>,
    ) -> Result<Vec<MadeLog>, AppError> {
        let mut branches: Vec<&BranchFacts> = self.facts.log.branches.iter().collect();
        branches.sort_by(|a, b| (a.identity, &a.id).cmp(&(b.identity, &b.id)));
        branches.into_iter().map(|branch| self.branch(branch, workshop, shortfalls)).collect()
    }

    /// Bytes of log that have to go in, before they are compressed.
    pub(super) fn bytes(&self) -> u64 {
        let needed = self.facts.log.branches.iter().filter_map(|branch| {
            let end = branch.pieces.iter().map(|piece| piece.span.to).max()?;
            let (_, span) = self.needed(branch, end)?;
            Some(span.to.since(span.from))
        });
        needed.sum()
    }

    /// The segments that have to go in.
    fn segments(
        &self,
        branch: &BranchFacts,
        end: LogOffset,
        workshop: &mut Workshop,
        shortfalls: &mut Vec<String>,
    ) -> Result<Segments, AppError> {
        let directory = directory(&self.context.name, branch.identity, &branch.id.to_string());
        let store = self.context.cluster.log(branch.identity, branch.id.clone(), branch.segment_size);
        let mut found = Segments::default();
        let Some((wanted, needed)) = self.needed(branch, end) else { return Ok(found) };
        let (known, mut at) = (store.gaps()?, store.segment_start(needed.from));
        while at < needed.to {
            super::stopped(self.stop)?;
            let next = at.plus(branch.segment_size);
            let mut missing = Span { from: at.max(needed.from), to: next.min(needed.to) };
            let mut reason = "it is not stored".to_owned();
            match store.read_stored(at, READERS) {
                Ok(Some((mut bytes, stored))) => {
                    // More may have come since the facts were read: it belongs to the next package.
                    let to = stored.min(end);
                    bytes.truncate(usize::try_from(to.since(at)).unwrap_or(usize::MAX));
                    bytes.resize(usize::try_from(branch.segment_size).unwrap_or(usize::MAX), 0);
                    let path = format!("{directory}/{}.zst", store.segment_name(at));
                    let made = workshop.compressed(&path, &mut |out| {
                        out.write_all(&bytes)
                            .map_err(|error| AppError::io("write", std::path::Path::new(&path), error))
                    })?;
                    let span = Span { from: at, to };
                    found.again += usize::from(wanted.holds(span));
                    found.made.push((span, made));
                    missing.from = missing.from.max(to);
                }
                Ok(None) => {}
                Err(error) if error.is_damaged() || error.is_missing() => reason = error.to_string(),
                Err(error) => return Err(error.into()),
            }
            if missing.from < missing.to {
                found.holes.push(missing);
                let gap = known.iter().find(|(gap, _)| gap.from <= missing.from && missing.to <= gap.to);
                // What a recorded gap lost never comes; anything else may be brought back, so the next package asks again.
                if gap.is_none() {
                    found.broken.get_or_insert(missing.from);
                }
                let reason = gap.map_or(reason, |(_, gap)| gap.reason.clone());
                shortfalls.push(format!(
                    "{}: the log from {} to {} is missing: {reason}",
                    self.context.name,
                    text::lsn(missing.from),
                    text::lsn(missing.to)
                ));
            }
            at = next;
        }
        Ok(found)
    }

    fn branch(
        &self,
        branch: &BranchFacts,
        workshop: &mut Workshop,
        shortfalls: &mut Vec<String>,
    ) -> Result<MadeLog, AppError> {
        let directory = directory(&self.context.name, branch.identity, &branch.id.to_string());
        let store = self.context.cluster.log(branch.identity, branch.id.clone(), branch.segment_size);
        let end = branch.pieces.iter().map(|piece| piece.span.to).max().unwrap_or_default();
        let Segments { made: segments, again, holes, broken } =
            self.segments(branch, end, workshop, shortfalls)?;
        let history = match store.history()?.filter(|_| !segments.is_empty()) {
            Some(bytes) => {
                let path = format!("{directory}/{:08X}.history", branch.timeline);
                Some(workshop.plain(&path, &mut |out| {
                    out.write_all(&bytes)
                        .map_err(|error| AppError::io("write", std::path::Path::new(&path), error))
                })?)
            }
            None => None,
        };
        let log = PackagedLog {
            directory,
            identity: branch.identity,
            branch: branch.id.to_string(),
            timeline: branch.timeline,
            history: history.is_some(),
            ranges: ranges(segments.iter().map(|(span, _)| *span)),
            covered: branch.covered.map(|(position, until)| (position.0, until.0)),
            gaps: branch
                .gaps
                .iter()
                .map(|gap| (gap.span.from.0, gap.span.to.0, gap.reason.clone()))
                .collect(),
        };
        Ok(MadeLog { log, history, segments, again, end, cut: false, holes, broken })
    }

    fn needed(&self, branch: &BranchFacts, end: LogOffset) -> Option<(BranchLog, Span)> {
        let first = branch.pieces.iter().map(|piece| piece.span.from).min()?;
        let plan = self.plan.filter(|plan| plan.identity == branch.identity);
        let replayed_from = plan.and_then(|plan| {
            let (_, span) = plan.path.iter().find(|(id, _)| *id == branch.id)?;
            let start = plan.pieces.first().map_or(span.from, |piece| piece.span.from);
            (start < span.to).then(|| span.from.max(start))
        });
        let known = self.arrived.clusters.get(&self.context.name);
        let arrived = known.and_then(|known| known.iter().find(|held| held.is(branch)));
        let log = BranchLog {
            stored: Span { from: first, to: end },
            arrived: arrived.map(|held| LogOffset(held.to)),
            replayed_from,
        };
        // Without an image nothing says what older log is good for: all goes in, an image may lie elsewhere.
        Some((log, log_needed(log, known.is_none() && self.plan.is_some())?))
    }
}

impl ArrivedBranch {
    fn is(&self, branch: &BranchFacts) -> bool {
        self.identity == branch.identity && self.branch == branch.id.to_string()
    }
}

/// Where the log of a branch lies in a package.
fn directory(cluster: &str, identity: u32, branch: &str) -> String {
    format!("clusters/{cluster}/wal/{identity}-{branch}")
}

/// Joins what arrived before with what a package that arrived now holds.
#[must_use]
pub fn joined(before: &Contents, now: &Contents) -> Contents {
    let mut all: BTreeMap<String, Vec<ArrivedBranch>> = before.clusters.clone();
    for (name, branches) in &now.clusters {
        let known = all.entry(name.clone()).or_default();
        for branch in branches {
            match known
                .iter_mut()
                .find(|held| held.identity == branch.identity && held.branch == branch.branch)
            {
                Some(held) => held.to = held.to.max(branch.to),
                None => known.push(branch.clone()),
            }
        }
    }
    Contents { clusters: all }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use everpoint_format::package::PackageMember;

    use super::*;

    /// Segments of 10 each, of which the first `again` arrived before.
    fn log(segments: u64, again: usize) -> MadeLog {
        let member = PackageMember { path: String::new(), size: 1, sha256: String::new() };
        let made = Made { member, file: std::path::PathBuf::new() };
        let spans = (0..segments).map(|n| Span { from: LogOffset(n * 10), to: LogOffset(n * 10 + 10) });
        let segments: Vec<_> = spans.map(|span| (span, made.clone())).collect();
        let log = PackagedLog {
            directory: String::new(),
            identity: 1,
            branch: String::new(),
            timeline: 1,
            history: false,
            ranges: ranges(segments.iter().map(|(span, _)| *span)),
            covered: None,
            gaps: Vec::new(),
        };
        let end = segments.last().unwrap().0.to;
        MadeLog { log, history: None, segments, again, end, cut: false, holes: Vec::new(), broken: None }
    }

    #[test]
    fn without_the_image_what_arrived_before_makes_room_for_what_is_new() {
        let mut all = log(5, 3);
        assert_eq!(all.new_segments(), 2);
        all.leave_out_again();
        assert_eq!(all.log.ranges, [PackagedRange { from: 30, to: 50 }]);
        assert_eq!(all.held_to(), Some(LogOffset(50)));

        all.keep(1);
        assert_eq!(all.log.ranges, [PackagedRange { from: 30, to: 40 }]);
        assert_eq!(all.held_to(), Some(LogOffset(40)), "the next package goes on there");
        all.keep(0);
        assert_eq!(all.held_to(), None);
    }

    #[test]
    fn with_the_image_all_that_it_needs_stays() {
        let mut all = log(5, 3);
        all.keep(2);
        assert_eq!(all.log.ranges, [PackagedRange { from: 0, to: 50 }]);
        assert_eq!(all.held_to(), Some(LogOffset(50)));
    }
}
