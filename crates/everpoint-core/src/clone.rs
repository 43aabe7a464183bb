//! Whether a server that stores log is a copy of the protected one.

use crate::position::BranchId;

/// Where the server of a data directory is, as its files tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    /// System identifier.
    pub system: u64,
    /// The branch on which it goes on.
    pub branch: BranchId,
    /// It follows another server, or recovers.
    pub recovering: bool,
}

/// Whether the server in one directory is a clone of the one in the directory that is configured: two that write, on one
/// branch, under the same names. A standby may store what it follows, and one that was promoted has a branch of its own.
#[must_use]
pub fn is_clone(storing: &Seat, configured: &Seat) -> bool {
    storing.system == configured.system
        && storing.branch == configured.branch
        && !storing.recovering
        && !configured.recovering
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_that_write_on_one_branch_are_clones() {
        let seat = |system, timeline, recovering| Seat {
            system,
            branch: BranchId::new(timeline, [0; 8]),
            recovering,
        };
        let production = seat(1, 1, false);
        assert!(is_clone(&seat(1, 1, false), &production));
        assert!(!is_clone(&seat(1, 2, false), &production), "a failover");
        assert!(!is_clone(&seat(1, 1, true), &production), "a standby that archives, too");
        assert!(!is_clone(&production, &seat(1, 1, true)), "files are read from a standby");
        assert!(!is_clone(&seat(2, 1, false), &production), "told as another cluster");
    }
}
