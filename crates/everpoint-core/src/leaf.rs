//! Which branches a request may mean.

use std::cmp::Reverse;

use crate::facts::{BackupFacts, BranchFacts, LogFacts};
use crate::position::{LogOffset, Micros};
use crate::target::{RestoreRequest, Target};

/// A branch to try.
pub(crate) struct Leaf<'a> {
    pub(crate) branch: &'a BranchFacts,
    /// That another one has the same number.
    pub(crate) note: Option<String>,
}

/// The branches to try for a request, the first that holds the target wins: one of each identity, the newest identity
/// first. Of several with the wanted (or highest) number it is the one with the newest log.
pub(crate) fn leaves<'a>(
    log: &'a LogFacts,
    backups: &[BackupFacts],
    request: &RestoreRequest,
) -> Vec<Leaf<'a>> {
    if let Target::Backup(label) = &request.target
        && request.timeline.is_none()
        && let Some(backup) = backups.iter().find(|backup| backup.label == *label)
    {
        let branch = log.branch(backup.identity, &backup.branch);
        return branch.map(|branch| Leaf { branch, note: None }).into_iter().collect();
    }
    let mut identities: Vec<u32> = log.branches.iter().map(|branch| branch.identity).collect();
    identities.sort_unstable_by_key(|identity| Reverse(*identity));
    identities.dedup();
    // What is newest lies in the newest identity, or can't be reached.
    let tried =
        if request.target == Target::Latest && request.timeline.is_none() { 1 } else { identities.len() };
    identities.into_iter().take(tried).filter_map(|identity| leaf(log, identity, request.timeline)).collect()
}

fn leaf(log: &LogFacts, identity: u32, timeline: Option<u32>) -> Option<Leaf<'_>> {
    let of_identity = || log.branches.iter().filter(move |branch| branch.identity == identity);
    let wanted = timeline.or_else(|| of_identity().map(|branch| branch.timeline).max())?;
    let same = || of_identity().filter(move |branch| branch.timeline == wanted);
    let branch = same().max_by_key(|branch| (age(branch), branch.id.clone()))?;
    let note = (same().count() > 1).then(|| {
        format!(
            "{} branches have the number {wanted}; {}, which has the newest log, is taken",
            same().count(),
            branch.id
        )
    });
    Some(Leaf { branch, note })
}

/// How new the log of a branch is.
fn age(branch: &BranchFacts) -> (Option<Micros>, Option<LogOffset>) {
    let of_pieces =
        branch.pieces.iter().filter_map(|piece| piece.times.map(|(_, last)| last).max(piece.known_until));
    let covered = branch.covered.map(|(_, until)| until);
    let end = branch.pieces.last().map(|piece| piece.span.to);
    (of_pieces.chain(covered).max(), end)
}
