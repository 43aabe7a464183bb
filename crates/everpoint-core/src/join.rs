//! Whether the log that a server has goes on from what is stored before it.

/// A digest's [`crate::Digest::previous_hash`] that says: what is stored before is not what its server had there, or nobody
/// could tell.
pub const NOTHING_BEFORE: [u8; 32] = [0xff; 32];

/// So many bytes hold a record at least: fewer are the same on all servers.
const TELLING: u64 = 128;

/// What came out when log of a server was compared with what is stored for the same positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// So many bytes, all the same.
    Same(u64),
    /// Other bytes.
    Other,
    /// Nothing is stored, or the server has it no longer.
    Nothing,
}

impl Compared {
    /// Compares as far as both go.
    #[must_use]
    pub fn of(ours: &[u8], theirs: &[u8]) -> Self {
        let count = ours.len().min(theirs.len());
        match (count, ours.get(..count) == theirs.get(..count)) {
            (0, _) => Self::Nothing,
            (_, true) => Self::Same(count as u64),
            (_, false) => Self::Other,
        }
    }
}

/// Whether a timeline that is to be stored from the start of a segment on goes on from the stored log. `before`: what lies
/// before that segment; `within`: the part of the segment that is still of the timeline from which it forks off.
///
/// A server that was set back and promoted has another past than the one that is stored. What differs only within the segment
/// does no harm where enough before it is the same: that part is taken from the younger timeline. Where nothing tells, as after
/// a failover at the start of a segment, it goes on: its first record has to follow the last one that is stored all the same.
#[must_use]
pub const fn goes_on(before: Compared, within: Compared) -> bool {
    match (before, within) {
        (Compared::Same(count), _) if count >= TELLING => true,
        (before, within) => !matches!((before, within), (Compared::Other, _) | (_, Compared::Other)),
    }
}

#[cfg(test)]
mod tests {
    use super::Compared::{Nothing, Other, Same};
    use super::*;

    #[test]
    fn a_branch_goes_on_from_what_its_server_had() {
        for within in [Same(5000), Same(20), Other, Nothing] {
            assert!(goes_on(Same(65_536), within), "{within:?}");
            assert!(!goes_on(Other, within), "{within:?}");
        }
        for before in [Nothing, Same(40)] {
            assert!(!goes_on(before, Other), "{before:?}");
            for within in [Nothing, Same(40), Same(5000)] {
                assert!(goes_on(before, within), "{before:?} {within:?}");
            }
        }
    }

    #[test]
    fn bytes_are_compared_as_far_as_both_go() {
        assert_eq!(Compared::of(b"log", b"logs"), Same(3));
        assert_eq!(Compared::of(b"log", b"lag"), Other);
        assert_eq!(Compared::of(b"", b"lag"), Nothing);
    }
}
