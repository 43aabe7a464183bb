//! Which segments of the log are joined into hourly bundles.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::position::{LogOffset, Micros, Span};

/// An hour of a zone, as it stands in names: `2026/01/29/14`.
///
/// Where clocks are set back, an hour comes twice and holds the bundles of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BundleHour {
    /// Year, 0 to 9999.
    pub year: i16,
    /// Month, 1 to 12.
    pub month: i8,
    /// Day, 1 to 31.
    pub day: i8,
    /// Hour, 0 to 23.
    pub hour: i8,
}

impl BundleHour {
    /// The hour of a moment. Moments outside of the calendar fall into its first or last hour.
    #[must_use]
    pub fn of(at: Micros, zone: &TimeZone) -> Self {
        let end = if at.0 < 0 { Timestamp::MIN } else { Timestamp::MAX };
        let civil = zone.to_datetime(Timestamp::from_microsecond(at.0).unwrap_or(end));
        Self { year: civil.year().max(0), month: civil.month(), day: civil.day(), hour: civil.hour() }
    }

    /// Reads what [`BundleHour`]'s `Display` prints; `None` if it is no hour.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let mut number = |digits: usize| {
            let part = parts.next().filter(|part| part.len() == digits)?;
            part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse::<i16>().ok()).flatten()
        };
        let (year, month, day, hour) = (number(4)?, number(2)?, number(2)?, number(2)?);
        let (month, day, hour) =
            (i8::try_from(month).ok()?, i8::try_from(day).ok()?, i8::try_from(hour).ok()?);
        let possible = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24;
        (possible && parts.next().is_none()).then_some(Self { year, month, day, hour })
    }
}

impl std::fmt::Display for BundleHour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04}/{:02}/{:02}/{:02}", self.year, self.month, self.day, self.hour)
    }
}

/// A whole segment that is stored, and when it was filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentTime {
    /// Where it begins.
    pub start: LogOffset,
    /// The latest moment that its digest tells of; `None` if it tells of none.
    pub at: Option<Micros>,
}

/// A bundle to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BundlePlan {
    /// The hour in which its segments were filled.
    pub hour: BundleHour,
    /// Its segments: whole ones that follow each other.
    pub span: Span,
}

/// Joins segments that follow each other and belong to the same hour into bundles of at most `limit` bytes.
///
/// A segment belongs to the hour of the latest moment that it tells of; one that tells of none belongs to the hour of
/// the one before it, or else of the one after it. Only hours that are over are joined, as `now` and `zone` have it;
/// with `close` the hour that still runs too. `segments` are sorted; `size` is that of each.
#[must_use]
pub fn plan_bundles(
    segments: &[SegmentTime],
    size: u64,
    limit: u64,
    zone: &TimeZone,
    now: Micros,
    close: bool,
) -> Vec<BundlePlan> {
    let current = BundleHour::of(now, zone);
    let mut hour =
        segments.iter().find_map(|segment| segment.at).map_or(current, |at| BundleHour::of(at, zone));
    let mut plans: Vec<BundlePlan> = Vec::new();
    for segment in segments {
        hour = segment.at.map_or(hour, |at| BundleHour::of(at, zone));
        if hour >= current && !close {
            continue;
        }
        let span = Span { from: segment.start, to: segment.start.plus(size) };
        match plans.last_mut() {
            Some(last)
                if last.hour == hour
                    && last.span.to == span.from
                    && span.to.since(last.span.from) <= limit =>
            {
                last.span.to = span.to;
            }
            _ => plans.push(BundlePlan { hour, span }),
        }
    }
    plans
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: i64 = 60_000_000;

    fn plans(minutes: &[(u64, Option<i64>)], now: i64, close: bool) -> Vec<(i8, u64, u64)> {
        let segments: Vec<SegmentTime> = minutes
            .iter()
            .map(|(start, at)| SegmentTime { start: LogOffset(*start), at: at.map(|at| Micros(at * MINUTE)) })
            .collect();
        plan_bundles(&segments, 1, 3, &TimeZone::UTC, Micros(now * MINUTE), close)
            .iter()
            .map(|plan| (plan.hour.hour, plan.span.from.0, plan.span.to.0))
            .collect()
    }

    #[test]
    fn segments_are_joined_by_the_hour_in_which_they_were_filled() {
        let log = [(0, None), (1, Some(10)), (2, Some(59)), (3, Some(60)), (4, None), (5, Some(130))];
        assert_eq!(plans(&log, 125, false), [(0, 0, 3), (1, 3, 5)], "the hour that runs is left alone");
        assert_eq!(plans(&log, 125, true), [(0, 0, 3), (1, 3, 5), (2, 5, 6)]);
        assert_eq!(plans(&log, 59, false), [], "a clock set back leaves all alone");
        assert_eq!(
            plans(&[(0, Some(1)), (2, Some(2))], 99, false),
            [(0, 0, 1), (0, 2, 3)],
            "a hole parts them"
        );
        let many: Vec<_> = (0..7).map(|start| (start, Some(1))).collect();
        assert_eq!(plans(&many, 99, false), [(0, 0, 3), (0, 3, 6), (0, 6, 7)], "none grows beyond the limit");
        assert_eq!(plans(&[(0, None)], 99, false), [], "nothing says when it was filled");
        assert_eq!(plans(&[(0, None)], 99, true), [(1, 0, 1)]);
    }

    #[test]
    fn an_hour_is_that_of_the_zone_and_survives_printing_and_parsing() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let at = Micros("2026-01-29T22:30:00Z".parse::<Timestamp>().unwrap().as_microsecond());
        let hour = BundleHour::of(at, &zone);
        assert_eq!(hour.to_string(), "2026/01/30/00");
        assert_eq!(BundleHour::parse("2026/01/30/00"), Some(hour));
        for bad in [
            "",
            "2026/01/30",
            "2026/1/30/00",
            "2026/13/30/00",
            "2026/01/30/24",
            "2026/01/30/00/1",
            "+026/01/30/00",
        ] {
            assert_eq!(BundleHour::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_segment_is_in_one_bundle_at_most(times in prop::collection::vec(prop::option::of(0_i64..600), 0..40), now in 0_i64..700, close: bool) {
            let log: Vec<(u64, Option<i64>)> = (0..).zip(times).collect();
            let found = plans(&log, now, close);
            prop_assert!(found.windows(2).all(|pair| pair[0].2 <= pair[1].1));
            let joined: u64 = found.iter().map(|(_, from, to)| to - from).sum();
            prop_assert!(!close || joined == log.len() as u64);
        }
    }
}
