//! Whether the server at production's address is a restored copy that nobody has adopted, and what that means for `latest`.

use crate::position::BranchId;
use crate::production::{SeenBy, Sighting};

/// What a server says of itself to everybody who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SaysCopy {
    /// Nothing of a copy.
    No,
    /// That it is one, by its name.
    Named,
    /// Of which cluster it is one.
    Of(String),
}

/// Whether a server is a copy of a cluster. `marked`: whether its directory holds the mark, where that can be seen; it alone
/// counts then. `branch`: where the server is, if it could be asked.
///
/// What a server says of itself may outlive an adoption until it reads its configuration again: on a branch on which
/// production was seen last it was adopted. The copy of another cluster that is all that this one ever was is this cluster: it got a
/// name of its own.
#[must_use]
pub fn is_copy(
    cluster: &str,
    marked: Option<bool>,
    says: &SaysCopy,
    branch: Option<&BranchId>,
    sightings: &[Sighting],
) -> bool {
    if let Some(marked) = marked {
        return marked;
    }
    let last = sightings.iter().rfind(|seen| seen.by == SeenBy::Server);
    let elsewhere = last.map(|last| Some(&last.branch) != branch);
    match says {
        SaysCopy::No => false,
        SaysCopy::Of(other) if other != cluster => elsewhere.unwrap_or(false),
        SaysCopy::Named | SaysCopy::Of(_) => elsewhere.unwrap_or(true),
    }
}

/// What `latest` means while a copy is at production's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LatestBesides {
    /// What it meant before: production was seen last somewhere else.
    AsBefore,
    /// The copy's own branch: it was taken for production when nothing told what it is. With the branch on which production
    /// was seen before, if it ever was.
    TheCopys(Option<BranchId>),
    /// Nothing says where production was.
    Unknown,
}

/// Judges where production was seen last; `branch` is the copy's.
#[must_use]
pub fn latest_besides(branch: &BranchId, sightings: &[Sighting]) -> LatestBesides {
    let mut seen = sightings.iter().rev().filter(|seen| matches!(seen.by, SeenBy::Server | SeenBy::Push));
    match seen.next() {
        None => LatestBesides::Unknown,
        Some(last) if last.branch != *branch => LatestBesides::AsBefore,
        Some(_) => {
            let before = seen.find(|seen| seen.branch != *branch);
            LatestBesides::TheCopys(before.map(|before| before.branch.clone()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::{LogOffset, Micros};

    fn seen(branch: &BranchId, by: SeenBy) -> Sighting {
        Sighting { identity: 1, branch: branch.clone(), position: LogOffset(0), at: Micros(0), by }
    }

    #[test]
    fn the_mark_counts_where_it_can_be_seen_else_what_the_server_says() {
        let (one, two) = (BranchId::new(1, [0; 8]), BranchId::new(2, [1; 8]));
        let of = |name: &str| SaysCopy::Of(name.to_owned());
        let before = [seen(&one, SeenBy::Server)];
        let judge =
            |marked, says: &SaysCopy, seen: &[Sighting]| is_copy("db", marked, says, Some(&two), seen);
        for says in [SaysCopy::No, SaysCopy::Named, of("db")] {
            assert!(judge(Some(true), &says, &before) && !judge(Some(false), &says, &before), "{says:?}");
        }
        assert!(!judge(None, &SaysCopy::No, &before));
        for says in [SaysCopy::Named, of("db")] {
            assert!(judge(None, &says, &before) && judge(None, &says, &[]), "{says:?}");
            // A push says nothing of an adoption.
            assert!(judge(None, &says, &[seen(&two, SeenBy::Push)]), "{says:?}");
            assert!(
                !judge(None, &says, &[seen(&one, SeenBy::Server), seen(&two, SeenBy::Server)]),
                "{says:?}"
            );
            assert!(is_copy("db", None, &says, None, &before));
        }
        // A copy that has a name of its own is that cluster; one at the address of another production is not.
        assert!(!judge(None, &of("other"), &[]) && !judge(None, &of("other"), &[seen(&two, SeenBy::Server)]));
        assert!(judge(None, &of("other"), &before));
    }

    #[test]
    fn latest_is_what_it_was_unless_the_copy_was_taken_for_production() {
        let (one, two) = (BranchId::new(1, [0; 8]), BranchId::new(2, [1; 8]));
        let (at_one, at_two) = (seen(&one, SeenBy::Server), seen(&two, SeenBy::Server));
        assert_eq!(latest_besides(&two, &[]), LatestBesides::Unknown);
        assert_eq!(
            latest_besides(&two, &[at_one.clone(), seen(&two, SeenBy::Restore)]),
            LatestBesides::AsBefore
        );
        assert_eq!(latest_besides(&two, &[at_two.clone(), at_one.clone()]), LatestBesides::AsBefore);
        assert_eq!(latest_besides(&two, &[at_one, at_two.clone()]), LatestBesides::TheCopys(Some(one)));
        assert_eq!(latest_besides(&two, &[at_two]), LatestBesides::TheCopys(None));
    }
}
