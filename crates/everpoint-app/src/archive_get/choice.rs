//! Which branch of the log a recovering server follows.

use everpoint_core::{BranchId, FailureClass, LogOffset, SeenBy, followed};
use everpoint_format::identity::Identity;
use everpoint_repo::LogStore;

use crate::lineage::Lineage;
use crate::{AppError, ClusterContext, coverage};

/// A branch with its ancestors.
pub struct Choice<'a> {
    lineage: Lineage<'a>,
    branch: BranchId,
    history: Vec<u8>,
}

impl<'a> Choice<'a> {
    /// The branch that is named, or else the newest one of the newest identity.
    ///
    /// # Errors
    /// If there is no such branch, or the repository can't be read.
    pub fn new(context: &'a ClusterContext, hint: Option<&str>) -> Result<Self, AppError> {
        let identities = context.cluster.identities()?;
        let (branch, number) = match hint {
            Some(hint) => parse(hint).ok_or_else(|| no_branch(context, hint))?,
            None => (None, None),
        };
        let seen = context.cluster.sightings()?.into_iter().rfind(|seen| seen.by == SeenBy::Server);
        let mut ordered: Vec<_> = identities.iter().rev().collect();
        ordered.sort_by_key(|(number, _)| seen.as_ref().is_none_or(|seen| seen.identity != *number));
        for (identity, known) in ordered {
            if number.is_some_and(|number| number != *identity) {
                continue;
            }
            let lineage = lineage(context, *identity, known);
            let found = match &branch {
                Some(branch) => {
                    lineage.cluster.branches(*identity)?.into_iter().find(|other| other == branch)
                }
                None => newest(&lineage)?,
            };
            if let Some(branch) = found {
                let history = lineage.log(branch.clone()).history()?.unwrap_or_default();
                return Ok(Self { lineage, branch, history });
            }
        }
        Err(no_branch(context, hint.unwrap_or("any branch")))
    }

    /// A branch that is known already, with its history.
    pub(crate) const fn of(lineage: Lineage<'a>, branch: BranchId, history: Vec<u8>) -> Self {
        Self { lineage, branch, history }
    }

    /// Bytes of a segment.
    #[must_use]
    pub const fn segment_size(&self) -> u64 {
        self.lineage.segment_size
    }

    /// The log of a timeline on the way to this branch.
    ///
    /// # Errors
    /// If the repository can't be read.
    pub fn log_of(&self, timeline: u32) -> Result<Option<LogStore>, AppError> {
        if timeline == self.branch.timeline() {
            return Ok(Some(self.lineage.log(self.branch.clone())));
        }
        let ancestor = self.lineage.ancestor(&self.history, timeline)?;
        Ok(ancestor.map(|branch| self.lineage.log(branch)))
    }

    /// The log that holds most of a segment of a timeline: where the way forks off in it, the younger branch's segment begins
    /// with the same bytes, and an old primary that died may never have sent the last of them.
    ///
    /// # Errors
    /// If the repository can't be read.
    pub fn log_with(&self, timeline: u32, start: LogOffset) -> Result<Option<LogStore>, AppError> {
        let Some(log) = self.log_of(timeline)? else { return Ok(None) };
        let end = start.plus(self.segment_size());
        let steps = if self.history.is_empty() {
            Vec::new()
        } else {
            followed(&self.lineage.engine.history(&self.history)?)
        };
        let mut best = (coverage::contiguous_end(&log, start)?, log);
        let mut step = steps.iter().position(|step| step.timeline == timeline);
        while let Some(fork) = step.and_then(|at| steps.get(at)).map(|step| step.until) {
            if best.0 >= fork || !(start < fork && fork < end) {
                break;
            }
            step = step.map(|at| at + 1);
            let younger =
                step.and_then(|at| steps.get(at)).map_or(self.branch.timeline(), |step| step.timeline);
            if let Some(log) = self.log_of(younger)? {
                let reaches = coverage::contiguous_end(&log, start)?;
                if reaches > best.0 {
                    best = (reaches, log);
                }
            }
        }
        Ok(Some(best.1))
    }

    /// The history of a timeline. Of timelines that are not on the way any that is stored, and if there are younger ones, that
    /// of a younger one: servers ask for it to learn which numbers are taken, and one that is skipped must not be taken again.
    ///
    /// # Errors
    /// If the repository can't be read.
    pub fn history_of(&self, timeline: u32) -> Result<Option<Vec<u8>>, AppError> {
        if let Some(log) = self.log_of(timeline)? {
            return Ok(log.history()?);
        }
        let mut branches = self.lineage.cluster.branches(self.lineage.identity)?;
        branches.retain(|branch| branch.timeline() >= timeline);
        branches.sort_by_key(BranchId::timeline);
        for branch in branches {
            if let Some(history) = self.lineage.log(branch).history()? {
                return Ok(Some(history));
            }
        }
        Ok(None)
    }

    /// The whole segment at `at`, next to the one of `log` at `start`.
    ///
    /// # Errors
    /// If it can't be read.
    pub(super) fn whole_segment(
        &self,
        log: &LogStore,
        start: LogOffset,
        at: LogOffset,
    ) -> Result<Option<Vec<u8>>, AppError> {
        if at >= start {
            let found = log.read_stored(at, 1)?;
            return Ok(found.filter(|(_, end)| end.since(at) == log.segment_size()).map(|(bytes, _)| bytes));
        }
        let history = log.history()?.unwrap_or_default();
        let before = self.lineage.predecessor(log, &history, start)?.filter(|before| before.start == at);
        Ok(before.map(|before| before.log.read_segment_into(at, 1)).transpose()?)
    }
}

/// The branch that production was last seen on, as far as its log is stored; else the youngest timeline of which log is
/// stored, and of its branches the newest.
fn newest(lineage: &Lineage<'_>) -> Result<Option<BranchId>, AppError> {
    let branches = lineage.cluster.branches(lineage.identity)?;
    let seen = lineage
        .cluster
        .sightings()?
        .into_iter()
        .rfind(|seen| seen.identity == lineage.identity && seen.by != SeenBy::Restore);
    if let Some(seen) = seen.filter(|seen| branches.contains(&seen.branch)) {
        return Ok(Some(seen.branch));
    }
    let mut timelines: Vec<u32> = branches.iter().map(BranchId::timeline).collect();
    timelines.sort_unstable();
    timelines.dedup();
    for timeline in timelines.into_iter().rev() {
        if let Some(branch) = coverage::newest_of(lineage, timeline)? {
            return Ok(Some(branch));
        }
    }
    Ok(None)
}

fn lineage<'a>(context: &'a ClusterContext, identity: u32, known: &Identity) -> Lineage<'a> {
    Lineage {
        cluster: &context.cluster,
        engine: context.engine.as_ref(),
        identity,
        segment_size: known.segment_size,
    }
}

/// `<branch>` or `<identity>/<branch>`.
fn parse(hint: &str) -> Option<(Option<BranchId>, Option<u32>)> {
    match hint.split_once('/') {
        Some((identity, branch)) => Some((Some(BranchId::parse(branch)?), Some(identity.parse().ok()?))),
        None => Some((Some(BranchId::parse(hint)?), None)),
    }
}

fn no_branch(context: &ClusterContext, wanted: &str) -> AppError {
    let message = format!("the repository holds no log of {} ({wanted})", context.name);
    AppError::new("archive.no_branch", FailureClass::Failed, "fetch", "the log", message)
        .hint("check the repository and the name of the cluster: everpoint list")
}
