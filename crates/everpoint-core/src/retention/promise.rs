//! Whether what is kept is what the policy promises.

use super::RetentionPolicy;
use crate::position::Micros;
use crate::schedule::Schedule;
use crate::window::Window;

const DAY: i64 = 86_400_000_000;
/// The newest moment of a window that is behind by less still counts as now: a quiet server commits nothing.
const SLACK: i64 = DAY;
/// So many runs of a schedule are looked at.
const RUNS: usize = 400;

/// What of the promised seconds can be brought back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// The policy promises none.
    NothingPromised,
    /// All of them.
    All,
    /// Not all yet: nothing is known from before.
    Growing {
        /// The first moment that can be.
        since: Micros,
    },
    /// Fewer.
    Less {
        /// The first moment from which on all can be; `None`: not even now.
        since: Option<Micros>,
    },
}

/// Looks at the windows of production's branch. `protected_since`: when the earliest backup that is
/// known had ended: nothing was there before.
#[must_use]
pub fn kept(
    policy: &RetentionPolicy,
    windows: &[&Window],
    protected_since: Option<Micros>,
    now: Micros,
) -> Kept {
    if policy.window_days == 0 {
        return Kept::NothingPromised;
    }
    let promised = Micros(now.0.saturating_sub(i64::from(policy.window_days).saturating_mul(DAY)));
    let newest = windows.iter().max_by_key(|window| (window.to, window.to_position));
    let since = newest.filter(|window| window.to.0.saturating_add(SLACK) >= now.0).map(|window| window.from);
    let protected = protected_since.map_or(now, |since| since.max(promised));
    match since {
        Some(since) if since <= promised => Kept::All,
        Some(since) if windows.len() == 1 && first_of(windows, since) && since.0 - protected.0 < DAY => {
            Kept::Growing { since }
        }
        since => Kept::Less { since },
    }
}

fn first_of(windows: &[&Window], since: Micros) -> bool {
    windows.iter().all(|window| window.from >= since)
}

/// The longest time between two backups of a schedule, if `within` is shorter: then there are times at which it keeps none but
/// the newest.
#[must_use]
pub fn keeps_none_between(policy: &RetentionPolicy, schedule: &Schedule, now: Micros) -> Option<Micros> {
    let within = policy.within?;
    let mut at = schedule.next_after(now)?;
    let mut longest = 0;
    for _ in 0..RUNS {
        let Some(next) = schedule.next_after(at) else { break };
        longest = longest.max(next.0 - at.0);
        at = next;
    }
    (longest > within).then_some(Micros(longest))
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::position::{BranchId, LogOffset};

    const NOW: i64 = 100 * DAY;

    fn window(from: i64, to: i64) -> Window {
        Window {
            identity: 1,
            branch: BranchId::parse("00000001-0000000000000000").unwrap(),
            timeline: 1,
            from: Micros(from),
            to: Micros(to),
            from_position: LogOffset(1),
            to_position: LogOffset(2),
            backup: "b".to_owned(),
            backups: vec!["b".to_owned()],
        }
    }

    fn judged(windows: &[Window], protected_since: i64) -> Kept {
        let policy = RetentionPolicy { window_days: 7, ..RetentionPolicy::default() };
        let windows: Vec<&Window> = windows.iter().collect();
        kept(&policy, &windows, Some(Micros(protected_since)), Micros(NOW))
    }

    #[test]
    fn a_promise_is_kept_grows_or_is_broken() {
        let days = |n: i64| NOW - n * DAY;
        assert_eq!(judged(&[window(days(8), NOW)], days(90)), Kept::All);
        // Protected for three days only.
        assert_eq!(judged(&[window(days(3), NOW)], days(3) - 60), Kept::Growing { since: Micros(days(3)) });
        // Protected for longer, and a gap or a removed backup took the rest.
        assert_eq!(judged(&[window(days(3), NOW)], days(20)), Kept::Less { since: Some(Micros(days(3))) });
        let gap = [window(days(9), days(4)), window(days(3), NOW)];
        assert_eq!(judged(&gap, days(9)), Kept::Less { since: Some(Micros(days(3))) });
        // The newest moment is two days old.
        assert_eq!(judged(&[window(days(8), days(2))], days(90)), Kept::Less { since: None });
        assert_eq!(judged(&[], days(90)), Kept::Less { since: None });
        let none = RetentionPolicy { window_days: 0, ..RetentionPolicy::default() };
        assert_eq!(kept(&none, &[], None, Micros(NOW)), Kept::NothingPromised);
    }

    #[test]
    fn a_schedule_that_is_too_rare_for_what_is_kept_is_noticed() {
        let weekly = Schedule::parse("0 2 * * SUN", &TimeZone::UTC).unwrap();
        let daily = Schedule::parse("0 2 * * *", &TimeZone::UTC).unwrap();
        let policy = |within| RetentionPolicy { within, ..RetentionPolicy::default() };
        assert_eq!(keeps_none_between(&policy(Some(2 * DAY)), &weekly, Micros(NOW)), Some(Micros(7 * DAY)));
        assert_eq!(keeps_none_between(&policy(Some(2 * DAY)), &daily, Micros(NOW)), None);
        assert_eq!(keeps_none_between(&policy(None), &weekly, Micros(NOW)), None);
    }
}
