//! One server under two names: each would hold half of its backups, and the second slot would fill its disk once one of the
//! names is given up.

use crate::position::{BranchId, Micros};

/// What is known of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The name.
    pub name: String,
    /// Identifier of its system, as text; `None`: nothing is known of it yet.
    pub system: Option<String>,
    /// Branch on which its server was seen last.
    pub branch: Option<BranchId>,
    /// When it was seen first.
    pub since: Option<Micros>,
}

/// The name that has the server of `ours` already: the same system on the same branch, seen earlier under it. A clone that
/// goes on by itself shares the system, but has a branch of its own. Of two that were never seen the first by name stays.
#[must_use]
pub fn twin<'a>(ours: &Named, others: &'a [Named]) -> Option<&'a Named> {
    let earlier = |other: &&Named| match (other.since, ours.since) {
        (Some(their), Some(our)) if their != our => their < our,
        (Some(_), None) => true,
        (None, Some(_)) => false,
        _ => other.name < ours.name,
    };
    others.iter().filter(|other| same(ours, other)).find(earlier)
}

/// The name that has the server of one that is to be added, whenever it was seen.
#[must_use]
pub fn holder<'a>(new: &Named, others: &'a [Named]) -> Option<&'a Named> {
    others.iter().find(|other| same(new, other))
}

fn same(ours: &Named, other: &Named) -> bool {
    let same_branch = match (&ours.branch, &other.branch) {
        (Some(our), Some(their)) => our == their,
        _ => true,
    };
    other.name != ours.name && other.system.is_some() && other.system == ours.system && same_branch
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, system: Option<&str>, timeline: u32, since: Option<i64>) -> Named {
        Named {
            name: name.to_owned(),
            system: system.map(str::to_owned),
            branch: Some(BranchId::new(timeline, [0; 8])),
            since: since.map(Micros),
        }
    }

    #[test]
    fn the_name_that_came_first_has_the_server_and_exactly_one_of_two_is_refused() {
        let found =
            |ours: &Named, other: &Named| twin(ours, std::slice::from_ref(other)).map(|it| it.name.clone());
        let old = named("b", Some("7"), 1, Some(5));
        let new = named("a", Some("7"), 1, None);
        assert_eq!(found(&new, &old).as_deref(), Some("b"));
        assert_eq!(found(&old, &new), None);
        for since in [None, Some(5)] {
            let (first, second) = (named("a", Some("7"), 1, since), named("b", Some("7"), 1, since));
            assert_eq!(found(&first, &second), None);
            assert_eq!(found(&second, &first).as_deref(), Some("a"));
        }
        let never_seen = named("b", Some("7"), 1, None);
        assert_eq!(found(&new, &never_seen), None);
        assert_eq!(
            holder(&new, std::slice::from_ref(&never_seen)),
            Some(&never_seen),
            "to be added it is too late"
        );
        assert_eq!(holder(&new, &[named("b", Some("7"), 2, None), named("c", None, 1, None)]), None);
        assert_eq!(found(&new, &named("b", Some("8"), 1, Some(5))), None, "another server");
        assert_eq!(found(&new, &named("b", None, 1, Some(5))), None, "nothing is known");
        assert_eq!(found(&new, &named("b", Some("7"), 2, Some(5))), None, "a clone with a life of its own");
        let unseen = Named { branch: None, ..named("b", Some("7"), 1, Some(5)) };
        assert_eq!(found(&new, &unseen).as_deref(), Some("b"));
    }
}
