//! Jobs that failed are tried again.

use crate::position::Micros;

/// How often and how soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Microseconds from the end of a failed run to the next try.
    pub pause: i64,
    /// Tries after the first one.
    pub times: u32,
}

impl Default for RetryPolicy {
    /// After an hour, at most three times.
    fn default() -> Self {
        Self { pause: 3_600_000_000, times: 3 }
    }
}

/// What follows a failed run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It is tried again then, as this try (1 is the first after the run itself).
    At(Micros, u32),
    /// It waits for its schedule.
    No,
}

/// Says when the run number `tried` (0: the one that the schedule asked for) that failed at `ended` is tried again.
#[must_use]
pub fn retry(policy: RetryPolicy, tried: u32, ended: Micros) -> Retry {
    if tried >= policy.times {
        return Retry::No;
    }
    Retry::At(Micros(ended.0.saturating_add(policy.pause)), tried + 1)
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEnd {
    /// It did what it should, or had nothing to do; or it still runs.
    Done,
    /// It failed.
    Failed,
    /// Its process ended before it did.
    CutOff,
}

/// The last run of a job, as far as the next one depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastTry {
    /// How it ended.
    pub end: RunEnd,
    /// Which try it was; see [`retry`].
    pub tried: u32,
    /// When it began.
    pub started: Micros,
    /// When it ended.
    pub ended: Micros,
}

/// Whether the last run is made up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// There is no need.
    NotNeeded,
    /// Then, as this try.
    At(Micros, u32),
    /// Not by itself any more; what is needed whatever the schedule says, then once more.
    GivenUp(Micros),
}

/// So long after the last try something that is still needed is begun anew: microseconds.
const REST: i64 = 86_400_000_000;

/// Says whether the last run is made up for.
#[must_use]
pub fn again(policy: RetryPolicy, last: &LastTry) -> Again {
    match last.end {
        RunEnd::Done => Again::NotNeeded,
        RunEnd::CutOff => Again::At(last.started, last.tried),
        RunEnd::Failed => match retry(policy, last.tried, last.ended) {
            Retry::At(at, tried) => Again::At(at, tried),
            Retry::No => Again::GivenUp(Micros(last.ended.0.saturating_add(REST))),
        },
    }
}

/// Whether a run begins now, and as which try. `scheduled`: one is due by the schedule since the last began; `wanted`: one is
/// needed whatever the schedule says.
///
/// A retry never takes the place of the schedule: a run that is due goes as a first try, even while a retry waits. What is
/// wanted waits with the retry, as it would fail for the same reason.
#[must_use]
pub fn begins(again: Again, scheduled: bool, wanted: bool, now: Micros) -> Option<u32> {
    match again {
        Again::At(at, tried) if at <= now => Some(tried),
        _ if scheduled => Some(0),
        Again::NotNeeded if wanted => Some(0),
        Again::GivenUp(at) if wanted && at <= now => Some(0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::{Due, Schedule, due};

    const MINUTE: i64 = 60_000_000;

    /// A day of backups that all fail within a minute; minutes at which they began, and as which try.
    fn a_day_of_failures(expression: &str, first: i64) -> Vec<(i64, u32)> {
        let schedule = Schedule::parse(expression, &jiff::tz::TimeZone::UTC).unwrap();
        let failed = |at: i64, tried| LastTry {
            end: RunEnd::Failed,
            tried,
            started: Micros(at * MINUTE),
            ended: Micros((at + 1) * MINUTE),
        };
        let (mut last, mut runs) = (failed(first, 0), vec![(first, 0)]);
        for minute in first + 2..first + 24 * 60 {
            let now = Micros(minute * MINUTE);
            let scheduled = matches!(due(&schedule, last.started, now), Due::Now { .. });
            if let Some(tried) = begins(again(RetryPolicy::default(), &last), scheduled, true, now) {
                last = failed(minute, tried);
                runs.push((minute, tried));
            }
        }
        runs
    }

    #[test]
    fn the_schedule_goes_on_while_a_retry_waits() {
        let at_two = a_day_of_failures("0 2 * * *", 120);
        assert_eq!(at_two, [(120, 0), (181, 1), (242, 2), (303, 3)], "then it waits for the next day");
        let by_hand = a_day_of_failures("30 2 * * *", 100);
        assert_eq!(by_hand, [(100, 0), (150, 0), (211, 1), (272, 2), (333, 3)], "02:30 is not left out");
        let often = a_day_of_failures("*/20 * * * *", 120);
        assert_eq!(often.get(..3), Some(&[(120, 0), (140, 0), (160, 0)][..]));
        assert_eq!(often.len(), 72, "every 20 minutes");
    }

    #[test]
    fn what_was_cut_off_goes_on_at_once_and_what_went_well_does_not() {
        let last = |end| LastTry { end, tried: 3, started: Micros(5), ended: Micros(5) };
        let policy = RetryPolicy::default();
        assert_eq!(again(policy, &last(RunEnd::CutOff)), Again::At(Micros(5), 3));
        assert_eq!(again(policy, &last(RunEnd::Done)), Again::NotNeeded);
        assert_eq!(begins(Again::NotNeeded, false, false, Micros(9)), None);
        assert_eq!(begins(Again::NotNeeded, false, true, Micros(9)), Some(0));
        let given_up = again(policy, &last(RunEnd::Failed));
        assert_eq!(begins(given_up, false, true, Micros(9)), None, "not in a loop");
        assert_eq!(begins(given_up, false, true, Micros(REST + 5)), Some(0), "nor never");
        assert_eq!(begins(given_up, false, false, Micros(REST + 5)), None);
    }

    #[test]
    fn a_failed_run_is_tried_three_times_more_an_hour_apart() {
        let (policy, mut now, mut tries) = (RetryPolicy::default(), Micros(0), Vec::new());
        let mut tried = 0;
        while let Retry::At(at, number) = retry(policy, tried, now) {
            tries.push((at.0 / 3_600_000_000, number));
            (now, tried) = (at, number);
        }
        assert_eq!(tries, [(1, 1), (2, 2), (3, 3)]);
    }
}
