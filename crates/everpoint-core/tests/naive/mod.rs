//! What a server replays, found out the long way.

use everpoint_core::{BackupFacts, LogEvent, RestorePlan};

use crate::world::{Harm, Record, SEGMENT, World, aligned};

/// The naive server: fetches the log of a branch segment by segment and replays it.
pub(crate) struct Naive<'w> {
    world: &'w World,
    branch: usize,
    pub(crate) records: Vec<&'w Record>,
}

impl<'w> Naive<'w> {
    pub(crate) fn new(world: &'w World, branch: usize) -> Self {
        Self { world, branch, records: world.records(branch) }
    }

    /// The branches from the root to this one, each with the position where the next one leaves it.
    fn line(&self) -> Vec<(usize, u64)> {
        let (mut line, mut at, mut fork) = (Vec::new(), self.branch, u64::MAX);
        loop {
            line.push((at, fork));
            match self.world.branches[at].parent {
                Some((parent, leaves)) => (at, fork) = (parent, leaves.min(fork)),
                None => break,
            }
        }
        line.reverse();
        line
    }

    /// The branch whose file of this segment is read: the youngest on the line that has begun by then and has it.
    fn file_of(&self, segment: u64) -> Option<usize> {
        self.line().into_iter().rev().map(|(branch, _)| branch).find(|branch| {
            let begins = self.world.branches[*branch].parent.map_or(0, |(_, fork)| fork / SEGMENT * SEGMENT);
            begins <= segment
                && self.world.branches[*branch].stored.iter().any(|it| it.span.from.0 == segment)
        })
    }

    /// Whether the 8 bytes at `at` can be read, and follow what was read before them.
    pub(crate) fn reads(&self, at: u64) -> bool {
        let segment = at / SEGMENT * SEGMENT;
        let Some(file) = self.file_of(segment) else {
            return false;
        };
        let fork = self.line().into_iter().find(|(branch, _)| *branch == file).map(|(_, fork)| fork).unwrap();
        let held =
            self.world.branches[file].stored.iter().find(|it| it.span.from.0 <= at && at < it.span.to.0);
        at < fork
            && held.is_some_and(|it| match it.harm {
                Harm::Broken(broken) => at < broken,
                _ => true,
            })
    }

    /// Whether all of it can be read. A swapped segment fits neither to the one before nor to the one after.
    pub(crate) fn reads_all(&self, from: u64, to: u64) -> bool {
        let swapped = (from / SEGMENT * SEGMENT..to).step_by(8).filter(|at| self.is_swapped(*at));
        let mut seams = swapped.flat_map(|at| [at / SEGMENT * SEGMENT, (at / SEGMENT + 1) * SEGMENT]);
        (from / 8 * 8..to).step_by(8).all(|at| self.reads(at)) && !seams.any(|seam| from < seam && seam < to)
    }

    fn is_swapped(&self, at: u64) -> bool {
        let file = self.file_of(at / SEGMENT * SEGMENT);
        let stored = file.and_then(|it| self.world.branches[it].stored.iter().find(|it| it.span.to.0 > at));
        stored.is_some_and(|it| it.span.from.0 <= at && it.harm == Harm::Swapped)
    }

    /// Backups that may be used on this branch.
    pub(crate) fn backups(&self) -> Vec<&'w BackupFacts> {
        let on_line = |backup: &&BackupFacts| {
            let fork = self.line().into_iter().find(|(it, _)| self.world.branches[*it].id == backup.branch);
            fork.is_some_and(|(_, fork)| backup.stop.0 <= fork)
        };
        self.world.backups.iter().filter(on_line).collect()
    }

    fn is_later(event: Option<&LogEvent>, time: i64, exclusive: bool) -> bool {
        match event {
            Some(LogEvent::Commit(end) | LogEvent::Abort(end)) => {
                end.time.0 > time || (exclusive && end.time.0 == time)
            }
            _ => false,
        }
    }

    /// The record before which a server stops for a time, restored from this backup.
    pub(crate) fn stop_for(&self, backup: &BackupFacts, time: i64, exclusive: bool) -> Option<&'w Record> {
        let mut records = self.records.iter().filter(|it| it.span.start >= backup.stop);
        records.find(|it| Self::is_later(it.event.as_ref(), time, exclusive)).copied()
    }

    /// Records replayed by a plan.
    pub(crate) fn replayed(&self, plan: &RestorePlan) -> Vec<&'w Record> {
        let stop = plan.stop;
        let within =
            |it: &&&Record| it.span.start < stop.record || (stop.inclusive && it.span.start == stop.record);
        self.records.iter().filter(within).copied().collect()
    }

    /// What every plan must keep.
    pub(crate) fn check(&self, plan: &RestorePlan) {
        let backup = self.world.backups.iter().find(|it| it.label == plan.backup).unwrap();
        let stop = self.records.iter().find(|it| it.span.start == plan.stop.record);
        let stop = stop.expect("the stop is a record of the branch").span;
        assert!(self.backups().iter().any(|it| it.label == backup.label), "backup of another branch");
        assert!(
            self.reads_all(backup.start.0, stop.end.0),
            "needs log that is not there: {plan:?} {:?}",
            self.world.branches
        );
        let replayed = self.replayed(plan);
        let unreplayed = self.records.get(replayed.len());
        assert!(unreplayed.is_none_or(|it| it.span.start >= backup.stop), "not consistent");
        for other in self.backups().into_iter().filter(|it| it.stop > backup.stop) {
            let consistent = unreplayed.is_none_or(|it| it.span.start >= other.stop)
                && other.stop.0 <= aligned(replayed.last().map_or(0, |it| it.span.end.0));
            let readable = self.reads_all(other.start.0, stop.end.0);
            assert!(!(consistent && readable), "{} is newer", other.label);
        }
        let last = replayed.iter().rev().find_map(|it| match &it.event {
            Some(LogEvent::Commit(end)) => Some(end),
            _ => None,
        });
        if last
            .is_some_and(|end| self.reads_all(end.record.start.0, stop.end.0) && plan.reached.xid.is_some())
        {
            assert_eq!(plan.reached.xid, last.map(|end| end.xid));
        }
        let pieces = &plan.pieces;
        assert!(
            pieces.first().unwrap().span.from <= backup.start && stop.end <= pieces.last().unwrap().span.to
        );
        // The piece that a fork cuts may go on behind it.
        assert!(pieces.windows(2).all(|two| two[0].span.to >= two[1].span.from), "{pieces:?}");
    }
}
