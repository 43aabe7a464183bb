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

#[cfg(test)]
mod tests {
    use super::*;

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
