//! Which branches a request may mean.

use std::cmp::Reverse;

use crate::facts::{BackupFacts, BranchFacts, LogFacts};
use crate::position::{BranchId, Micros};
use crate::production::{Production, current_identity, production};
use crate::target::{BranchChoice, RestoreRequest, Target};

/// The branches of one identity to try: several where nothing tells which of them production is on. Then they all have to
/// lead to the same.
pub(crate) type Group<'a> = Vec<&'a BranchFacts>;

/// What to try for a request, the first group that holds the target wins: production's identity first, then the newest.
///
/// # Errors
/// Why no branch can be chosen, in words.
pub(crate) fn leaves<'a>(
    log: &'a LogFacts,
    backups: &[BackupFacts],
    request: &RestoreRequest,
) -> Result<Vec<Group<'a>>, String> {
    if let Target::Backup(label) = &request.target
        && request.timeline.is_none()
        && let Some(backup) = backups.iter().find(|backup| backup.label == *label)
    {
        let branch = log.branch(backup.identity, &backup.branch);
        return Ok(branch.map(|branch| vec![branch]).into_iter().collect());
    }
    let mut identities: Vec<u32> = log.branches.iter().map(|branch| branch.identity).collect();
    identities.extend(log.sightings.iter().map(|seen| seen.identity));
    let current = current_identity(log);
    identities.sort_unstable_by_key(|identity| (current != Some(*identity), Reverse(*identity)));
    identities.dedup();
    // What is newest lies in the identity that production has, or can't be reached.
    let tried =
        if request.target == Target::Latest && request.timeline.is_none() { 1 } else { identities.len() };
    let mut groups = Vec::new();
    for identity in identities.into_iter().take(tried) {
        let group = match &request.timeline {
            Some(BranchChoice::Named(name)) => Ok(log.branch(identity, name).into_iter().collect()),
            Some(BranchChoice::Timeline(number)) => of_number(log, identity, *number),
            None => of_production(log, identity),
        };
        match group {
            Ok(group) => groups.extend(Some(group).filter(|group: &Group<'_>| !group.is_empty())),
            // What is unclear of an older identity says nothing of a newer one.
            Err(reason) if groups.is_empty() => return Err(reason),
            Err(_) => {}
        }
    }
    Ok(groups)
}

/// The branch with this number; of several the one on production's way.
fn of_number(log: &LogFacts, identity: u32, number: u32) -> Result<Group<'_>, String> {
    let same: Group<'_> =
        log.branches.iter().filter(|it| it.identity == identity && it.timeline == number).collect();
    if same.len() < 2 {
        return Ok(same);
    }
    let production = production(log, identity).certain();
    let on_the_way = |branch: &&&BranchFacts| {
        production
            .is_some_and(|leaf| crate::path::path(log, leaf).iter().any(|step| step.branch.id == branch.id))
    };
    match same.iter().find(on_the_way) {
        Some(branch) => Ok(vec![branch]),
        None => Err(format!("{} branches have the timeline {number}: {}", same.len(), told(&same))),
    }
}

fn of_production(log: &LogFacts, identity: u32) -> Result<Group<'_>, String> {
    let found = production(log, identity);
    if found != Production::Nowhere {
        return Ok(found.candidates());
    }
    let Some(seen) = log.sightings.iter().rfind(|seen| seen.identity == identity) else {
        return Ok(Vec::new());
    };
    let others: Group<'_> = log.branches.iter().filter(|branch| branch.identity == identity).collect();
    if others.is_empty() {
        return Ok(others);
    }
    let (timeline, branch) = (seen.branch.timeline(), &seen.branch);
    let reason =
        format!("nothing is stored of timeline {timeline} (branch {branch}), which production was on");
    Err(format!("{reason}; there is: {}", told(&others)))
}

/// Branches by name, with what tells them apart.
pub(crate) fn told(branches: &[&BranchFacts]) -> String {
    let one = |branch: &&BranchFacts| {
        let until = age(branch).map_or_else(String::new, |until| format!(", log until {until}"));
        format!("{} (timeline {}{until})", branch.id, branch.timeline)
    };
    branches.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Names of branches, as one types them.
pub(crate) fn names<'a>(branches: impl IntoIterator<Item = &'a BranchId>) -> String {
    branches.into_iter().map(|id| format!("--timeline {id}")).collect::<Vec<_>>().join(" or ")
}

/// The last moment that the log of a branch tells of.
fn age(branch: &BranchFacts) -> Option<Micros> {
    let of_pieces =
        branch.pieces.iter().filter_map(|piece| piece.times.map(|(_, last)| last).max(piece.known_until));
    of_pieces.chain(branch.covered.map(|(_, until)| until)).max()
}
