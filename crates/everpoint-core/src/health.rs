//! Whether a cluster and its repository are well enough for a backup.

use crate::position::{LogOffset, Micros};

/// Less free space than this share of the whole, in percent, is too little.
pub const LEAST_FREE_PERCENT: u64 = 15;

/// How far a standby has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StandbyFacts {
    /// End of the primary's log, as far as the standby knows; `None`: it has received nothing since it was started.
    pub received: Option<LogOffset>,
    /// Up to where it has replayed the log, after it was given a moment to reach `received`.
    pub replayed: LogOffset,
    /// When the last transaction that it replayed was committed; `None`: none since it was started.
    pub last_commit: Option<Micros>,
    /// Now, by the standby's clock.
    pub now: Micros,
    /// It is connected to its primary.
    pub receiving: bool,
}

/// What can be said of a standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StandbyHealth {
    /// It has replayed all that its primary wrote. How long ago that was says nothing: the primary may be idle.
    CaughtUp,
    /// Some log waits to be replayed, not for long.
    Behind {
        /// Bytes of it.
        bytes: u64,
    },
    /// Log waits to be replayed, and what is replayed is older than the limit.
    Late {
        /// Bytes that wait.
        bytes: u64,
        /// Age of the last commit that was replayed, in whole seconds.
        seconds: u64,
    },
    /// All that it received is replayed, but it has no connection to its primary: nobody here knows what that wrote since.
    Cut,
}

/// Judges a standby by position: time alone can't tell a standby that is late from one whose primary is idle.
#[must_use]
pub fn standby(facts: &StandbyFacts, limit: Micros) -> StandbyHealth {
    let bytes = facts.received.map_or(0, |received| received.0.saturating_sub(facts.replayed.0));
    if bytes == 0 {
        return if facts.receiving { StandbyHealth::CaughtUp } else { StandbyHealth::Cut };
    }
    match facts.last_commit.map(|commit| facts.now.0.saturating_sub(commit.0)) {
        Some(age) if age > limit.0 => {
            StandbyHealth::Late { bytes, seconds: u64::try_from(age / 1_000_000).unwrap_or_default() }
        }
        _ => StandbyHealth::Behind { bytes },
    }
}

/// What can be said of the room in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomHealth {
    /// There is enough.
    Enough,
    /// The free share of the whole is too small.
    SmallShare,
    /// What is free does not hold twice what the next backup is expected to take.
    TooLittle {
        /// Bytes that are needed.
        needed: u64,
    },
}

/// Judges the room in a repository: a further full backup has to fit twice, as it may have to stand beside the one that it
/// replaces. `expected`: bytes that it is expected to take.
#[must_use]
pub fn room(free: u64, total: u64, expected: u64) -> RoomHealth {
    let needed = expected.saturating_mul(2);
    if u128::from(free) * 100 < u128::from(total) * u128::from(LEAST_FREE_PERCENT) {
        RoomHealth::SmallShare
    } else if free < needed {
        RoomHealth::TooLittle { needed }
    } else {
        RoomHealth::Enough
    }
}

/// What the next segments of the log need, before any backup.
pub const LEAST_LOG: u64 = 32 << 20;

/// Whether a repository is as good as full: not even the log that comes next has room.
#[must_use]
pub fn is_full(free: u64, total: u64) -> bool {
    free < LEAST_LOG && u128::from(free) * 100 < u128::from(total) * u128::from(LEAST_FREE_PERCENT)
}

/// Bytes that a backup is expected to take: as many as the largest of the past, or, of a first one, half of what it reads.
#[must_use]
pub fn expected_size(largest_stored: Option<u64>, cluster: Option<u64>) -> u64 {
    largest_stored.or(cluster.map(|bytes| bytes / 2)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn facts(received: u64, replayed: u64, commit_age: Option<i64>, receiving: bool) -> StandbyFacts {
        StandbyFacts {
            received: Some(LogOffset(received)),
            replayed: LogOffset(replayed),
            last_commit: commit_age.map(|age| Micros(1_000 * SECOND - age * SECOND)),
            now: Micros(1_000 * SECOND),
            receiving,
        }
    }

    #[test]
    fn a_standby_is_judged_by_position_and_an_idle_primary_makes_none_late() {
        let minute = Micros(60 * SECOND);
        let judged = |facts| standby(&facts, minute);
        assert_eq!(judged(facts(500, 500, Some(900), true)), StandbyHealth::CaughtUp, "idle for 15 minutes");
        assert_eq!(judged(facts(500, 400, Some(59), true)), StandbyHealth::Behind { bytes: 100 });
        assert_eq!(judged(facts(500, 400, Some(60), true)), StandbyHealth::Behind { bytes: 100 });
        assert_eq!(judged(facts(500, 400, Some(61), true)), StandbyHealth::Late { bytes: 100, seconds: 61 });
        assert_eq!(judged(facts(500, 400, None, true)), StandbyHealth::Behind { bytes: 100 });
        assert_eq!(judged(facts(500, 500, Some(1), false)), StandbyHealth::Cut);
        assert_eq!(
            judged(facts(400, 500, Some(99), true)),
            StandbyHealth::CaughtUp,
            "replayed from an archive"
        );
        let nothing = StandbyFacts { received: None, ..facts(0, 500, Some(99), false) };
        assert_eq!(judged(nothing), StandbyHealth::Cut);
    }

    #[test]
    fn a_repository_needs_twice_the_expected_size_and_a_share_of_the_whole() {
        assert_eq!(room(150, 1000, 75), RoomHealth::Enough);
        assert_eq!(room(149, 1000, 0), RoomHealth::SmallShare);
        assert_eq!(room(150, 1000, 76), RoomHealth::TooLittle { needed: 152 });
        assert_eq!(room(u64::MAX, u64::MAX, u64::MAX), RoomHealth::Enough);
        assert_eq!(room(0, 0, 0), RoomHealth::Enough, "a store that knows no whole");
        assert!(is_full(LEAST_LOG - 1, 1 << 40) && is_full(0, 1) && !is_full(LEAST_LOG, 1 << 40));
        assert!(
            !is_full(20 << 20, 64 << 20) && !is_full(0, 0),
            "a small disk that is half empty; one that knows no whole"
        );
        assert_eq!(expected_size(Some(7), Some(100)), 7);
        assert_eq!(expected_size(None, Some(100)), 50);
        assert_eq!(expected_size(None, None), 0);
    }
}
