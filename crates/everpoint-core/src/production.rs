//! Which branch is production's. Copies that were started, recoveries that were given up and old primaries leave branches
//! of their own; `latest` must never mean one of those.

use crate::facts::{BranchFacts, LogFacts};
use crate::path::{PathStep, path};
use crate::position::{BranchId, LogOffset, Micros};

/// Production was seen on a branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// Number of the identity.
    pub identity: u32,
    /// The branch.
    pub branch: BranchId,
    /// A position that it had reached there.
    pub position: LogOffset,
    /// When.
    pub at: Micros,
    /// How.
    pub by: SeenBy,
}

/// How production was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeenBy {
    /// The server at the configured address was on that branch, or somebody said so of a copy that was adopted.
    Server,
    /// A restore has replaced production, up to that position of the branch. Until its server is seen, or pushes, nothing
    /// says that it was ever started: then production is where it was before.
    Restore,
    /// A sighting that can't be read any more: of which branch it was, or whether of this identity, nobody knows.
    Unreadable,
    /// A server pushed log of that branch from a directory that is not marked as a copy.
    Push,
}

/// Where production is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Production<'a> {
    /// Nothing is stored.
    Nowhere,
    /// On this branch.
    On(&'a BranchFacts),
    /// On one of these, and nothing tells on which.
    Either(Vec<&'a BranchFacts>),
}

impl<'a> Production<'a> {
    /// The branch, if it is certain.
    #[must_use]
    pub const fn certain(&self) -> Option<&'a BranchFacts> {
        match self {
            Self::On(branch) => Some(branch),
            Self::Nowhere | Self::Either(_) => None,
        }
    }

    /// All branches that it may be on.
    #[must_use]
    pub fn candidates(&self) -> Vec<&'a BranchFacts> {
        match self {
            Self::Nowhere => Vec::new(),
            Self::On(branch) => vec![branch],
            Self::Either(branches) => branches.clone(),
        }
    }
}

/// The identity that production has, or had when its server was last seen: after pg_upgrade the newest, and an older one again
/// where the old server was taken up again. A push alone says nothing: an old server may go on to archive. Without a sighting the
/// newest that is stored.
#[must_use]
pub fn current_identity(log: &LogFacts) -> Option<u32> {
    let seen = log.sightings.iter().rfind(|seen| seen.by == SeenBy::Server).map(|seen| seen.identity);
    seen.or_else(|| log.branches.iter().map(|branch| branch.identity).max())
}

/// The branch of an identity that production is on, or was last seen on.
///
/// The last sighting at the configured address counts, and a branch that goes on from it, or from where a restore has put
/// production since, and was pushed later: where only `archive_command` brings the log, a failover shows in nothing
/// else. If what it left went on behind the fork, nobody knows: a clone that was promoted looks like a failover to a standby that
/// was behind. Without any sighting (a repository of an older version) it is the branch that no other goes on from.
#[must_use]
pub fn production(log: &LogFacts, identity: u32) -> Production<'_> {
    let named = |seen: &Sighting| log.branch(identity, &seen.branch);
    // What the newest branches go on from, and those themselves.
    let (mut known, mut base, mut restored) = (false, None, None);
    let mut lost = false;
    let mut candidates: Vec<&BranchFacts> = Vec::new();
    let ours = |seen: &&Sighting| seen.identity == identity || seen.by == SeenBy::Unreadable;
    for seen in log.sightings.iter().filter(ours) {
        match (seen.by, named(seen)) {
            (SeenBy::Unreadable, _) => lost = true,
            (SeenBy::Server, branch) => {
                lost = false;
                (known, base, restored) = (true, branch, None);
                candidates = branch.into_iter().collect();
            }
            (SeenBy::Restore, branch) => restored = branch,
            (SeenBy::Push, None) => {}
            (SeenBy::Push, Some(branch)) => {
                if restored.is_some_and(|restored| descends(log, branch, restored)) {
                    // The server that was restored has begun its own branch: what was before it is over.
                    (known, base, restored) = (true, restored, None);
                    candidates = vec![branch];
                } else if base.is_none_or(|base: &BranchFacts| descends(log, branch, base))
                    && (base.is_some() || !known)
                {
                    candidates.push(branch);
                }
            }
        }
    }
    if lost || (candidates.is_empty() && !known) {
        return unseen(log, identity);
    }
    // What was seen is not stored: nothing of an older sighting may stand for it.
    youngest(log, candidates)
}

/// Whether this sighting, now, would change where production is.
#[must_use]
pub fn changes(log: &LogFacts, seen: &Sighting) -> bool {
    let mut then = log.clone();
    then.sightings.push(seen.clone());
    production(log, seen.identity) != production(&then, seen.identity)
}

/// Nothing tells where production is: any branch may be its that has log of its own behind where the others left it.
fn unseen(log: &LogFacts, identity: u32) -> Production<'_> {
    let all = || log.branches.iter().filter(move |branch| branch.identity == identity);
    let end = |branch: &BranchFacts| branch.pieces.last().map(|piece| piece.span.to);
    let is_over = |branch: &&BranchFacts| {
        let mut forks = all().filter_map(|other| left_at(log, other, branch));
        forks.any(|fork| end(branch).is_none_or(|end| end <= fork))
    };
    let mut left: Vec<&BranchFacts> = all().filter(|branch| !is_over(branch)).collect();
    left.sort_by(|a, b| a.id.cmp(&b.id));
    match left.as_slice() {
        [] => Production::Nowhere,
        [only] => Production::On(only),
        _ => Production::Either(left),
    }
}

/// Those that none of the others has taken over.
fn youngest<'a>(log: &'a LogFacts, mut candidates: Vec<&'a BranchFacts>) -> Production<'a> {
    candidates.sort_by(|a, b| a.id.cmp(&b.id));
    candidates.dedup_by(|a, b| a.id == b.id);
    let all = candidates.clone();
    let is_over = |branch: &BranchFacts, other: &BranchFacts| {
        left_at(log, other, branch).is_some_and(|fork| reached(log, branch).is_none_or(|end| end <= fork))
    };
    candidates.retain(|branch| !all.iter().any(|other| is_over(branch, other)));
    match candidates.as_slice() {
        [] => Production::Nowhere,
        [only] => Production::On(only),
        _ => Production::Either(candidates),
    }
}

/// Whether `branch` forked, over however many others, from `ancestor`.
#[must_use]
pub fn descends(log: &LogFacts, branch: &BranchFacts, ancestor: &BranchFacts) -> bool {
    left_at(log, branch, ancestor).is_some()
}

/// Where `branch` forked, over however many others, from `ancestor`.
#[must_use]
pub fn left_at(log: &LogFacts, branch: &BranchFacts, ancestor: &BranchFacts) -> Option<LogOffset> {
    let of_ancestor =
        |step: &PathStep<'_>| (step.branch.identity, &step.branch.id) == (ancestor.identity, &ancestor.id);
    path(log, branch).into_iter().find(of_ancestor).filter(|_| branch.id != ancestor.id).map(|step| step.fork)
}

/// How far the server on a branch is known to have come.
fn reached(log: &LogFacts, branch: &BranchFacts) -> Option<LogOffset> {
    let at_server = |seen: &&Sighting| {
        seen.by == SeenBy::Server && (seen.identity, &seen.branch) == (branch.identity, &branch.id)
    };
    let seen = log.sightings.iter().filter(at_server).map(|seen| seen.position);
    // A record that has only begun is no commit.
    let last = branch.pieces.iter().rev().find_map(|piece| piece.last_record);
    seen.chain(last.map(|record| record.end)).max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::{Digest, RecordSpan, Verdict};
    use crate::facts::PieceFacts;
    use crate::position::Span;

    fn branch(timeline: u32, hash: u8, parent: Option<(&BranchFacts, u64)>) -> BranchFacts {
        BranchFacts {
            identity: 1,
            id: BranchId::new(timeline, [hash; 8]),
            timeline,
            segment_size: 1 << 20,
            parent: parent.map(|(parent, at)| (parent.id.clone(), LogOffset(at))),
            pieces: Vec::new(),
            covered: None,
            gaps: Vec::new(),
            expired: None,
        }
    }

    fn seen(branch: &BranchFacts, by: SeenBy) -> Sighting {
        Sighting { identity: 1, branch: branch.id.clone(), position: LogOffset(0), at: Micros(0), by }
    }

    /// Its last whole record ends at `end`.
    fn piece(from: u64, to: u64, end: u64) -> PieceFacts {
        let record = RecordSpan { start: LogOffset(from), end: LogOffset(end) };
        PieceFacts::from(&Digest {
            system: 1,
            timeline: 1,
            log_format: 1,
            span: Span { from: LogOffset(from), to: LogOffset(to) },
            content_hash: [0; 32],
            previous_hash: None,
            verdict: Verdict::Intact,
            first_record: Some(record.start),
            last_record: Some(record),
            first_previous: None,
            head_unknown: false,
            covered_until: None,
            records: 1,
            events: Vec::new(),
        })
    }

    /// One; two and its copy fork from it; three goes on from two.
    fn family() -> [BranchFacts; 4] {
        let one = branch(1, 0, None);
        let (two, copy) = (branch(2, 1, Some((&one, 50))), branch(2, 2, Some((&one, 70))));
        let three = branch(3, 3, Some((&two, 90)));
        [one, two, copy, three]
    }

    #[test]
    fn the_last_sighting_counts_and_what_was_pushed_from_there() {
        let [one, two, copy, three] = family();
        let all = vec![one.clone(), two.clone(), copy.clone(), three.clone()];
        let of = |sightings: &[Sighting]| {
            let log = LogFacts { branches: all.clone(), sightings: sightings.to_vec() };
            let found = production(&log, 1);
            found.candidates().iter().map(|branch| branch.id.to_string()).collect::<Vec<_>>()
        };
        let (server, push) = (SeenBy::Server, SeenBy::Push);
        assert_eq!(of(&[seen(&one, server)]), [one.id.to_string()]);
        assert_eq!(of(&[seen(&one, server), seen(&two, push)]), [two.id.to_string()]);
        assert_eq!(of(&[seen(&one, server), seen(&two, push), seen(&three, push)]), [three.id.to_string()]);
        // An old primary that goes on pushing is behind, a copy beside, and two that go on from it are not told apart.
        assert_eq!(of(&[seen(&two, server), seen(&one, push), seen(&copy, push)]), [two.id.to_string()]);
        let both = of(&[seen(&one, server), seen(&two, push), seen(&copy, push)]);
        assert_eq!(both, [two.id.to_string(), copy.id.to_string()]);
        // A later look settles it.
        assert_eq!(
            of(&[seen(&one, server), seen(&two, push), seen(&copy, push), seen(&two, server)]),
            [two.id.to_string()]
        );
        // A restore that nobody has started yet moves nothing; the branch that its server begins does.
        let restore = SeenBy::Restore;
        assert_eq!(of(&[seen(&two, server), seen(&one, restore)]), [two.id.to_string()]);
        let begun = of(&[seen(&two, server), seen(&one, restore), seen(&copy, push)]);
        assert_eq!(begun, [copy.id.to_string()]);
        assert_eq!(of(&[seen(&two, server), seen(&one, restore), seen(&two, push)]), [two.id.to_string()]);
        let log =
            LogFacts { branches: all.clone(), sightings: vec![seen(&three, server), seen(&one, restore)] };
        assert!(changes(&log, &seen(&copy, push)), "what was restored has gone on");
        assert!(!changes(&log, &seen(&three, push)) && !changes(&log, &seen(&one, push)));
        // Back to before a failover.
        assert_eq!(of(&[seen(&three, server), seen(&one, server)]), [one.id.to_string()]);
    }

    #[test]
    fn what_went_on_behind_the_fork_is_not_over_because_another_pushes() {
        let [mut one, two, ..] = family();
        let (server, push) = (SeenBy::Server, SeenBy::Push);
        let of = |one: &BranchFacts, sightings: &[Sighting]| {
            let log = LogFacts { branches: vec![one.clone(), two.clone()], sightings: sightings.to_vec() };
            production(&log, 1).candidates().iter().map(|branch| branch.timeline).collect::<Vec<_>>()
        };
        let first = seen(&one, server);
        let at = |position: u64| Sighting { position: LogOffset(position), ..first.clone() };
        // Two left it at 50.
        assert_eq!(of(&one, &[at(50), seen(&two, push)]), [2], "a failover to a standby that had all");
        assert_eq!(of(&one, &[at(51), seen(&two, push)]), [1, 2], "a clone, or a standby that was behind");
        assert_eq!(of(&one, &[at(40), seen(&two, push), at(60)]), [1], "the address leads there");
        assert_eq!(of(&one, &[at(40), seen(&two, push), at(60), seen(&two, push)]), [1, 2]);
        assert_eq!(of(&one, &[at(60), seen(&two, push), seen(&two, server)]), [2]);
        one.pieces.push(piece(32, 64, 50));
        assert_eq!(of(&one, &[at(40), seen(&two, push)]), [2]);
        one.pieces.push(piece(64, 96, 80));
        assert_eq!(of(&one, &[at(40), seen(&two, push)]), [1, 2], "it wrote more");
    }

    #[test]
    fn the_identity_is_that_of_the_server_seen_last_also_when_that_is_an_older_one_again() {
        let [one, two, ..] = family();
        let upgraded = BranchFacts { identity: 2, ..one.clone() };
        let of = |sightings: &[Sighting]| {
            let branches = vec![one.clone(), two.clone(), upgraded.clone()];
            current_identity(&LogFacts { branches, sightings: sightings.to_vec() })
        };
        let new = Sighting { identity: 2, ..seen(&one, SeenBy::Server) };
        assert_eq!(of(&[]), Some(2));
        assert_eq!(of(&[seen(&one, SeenBy::Server), new.clone()]), Some(2));
        // The old server that still archives is not production, until it is seen at the address.
        assert_eq!(of(&[new.clone(), seen(&two, SeenBy::Push)]), Some(2));
        assert_eq!(of(&[new, seen(&two, SeenBy::Server)]), Some(1));
        assert_eq!(current_identity(&LogFacts::default()), None);
    }

    #[test]
    fn without_sightings_it_is_the_branch_that_none_goes_on_from_and_what_is_not_stored_is_nowhere() {
        let [one, two, copy, three] = family();
        let chain =
            LogFacts { branches: vec![one.clone(), two.clone(), three.clone()], sightings: Vec::new() };
        assert_eq!(production(&chain, 1), Production::On(&three));
        let forked = LogFacts { branches: vec![one.clone(), two, copy], sightings: Vec::new() };
        assert!(matches!(production(&forked, 1), Production::Either(both) if both.len() == 2));
        let log = LogFacts { branches: vec![one], sightings: vec![seen(&three, SeenBy::Server)] };
        assert_eq!(production(&log, 1), Production::Nowhere);
        assert_eq!(production(&log, 2), Production::Nowhere);
    }
}
