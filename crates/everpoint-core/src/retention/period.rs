//! Days, weeks, months and years of a zone.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::position::Micros;

/// A kind of period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Period {
    Day,
    Week,
    Month,
    Year,
}

impl Period {
    /// Its name as in "the first of its day".
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        }
    }

    /// A number that moments of the same period share, and that grows with time. Moments beyond the calendar's end fall
    /// into its last period.
    pub(super) fn of(self, at: Micros, zone: &TimeZone) -> i64 {
        let end = if at.0 < 0 { Timestamp::MIN } else { Timestamp::MAX };
        let date = zone.to_datetime(Timestamp::from_microsecond(at.0).unwrap_or(end)).date();
        let week = date.iso_week_date();
        match self {
            Self::Day => i64::from(date.year()) * 400 + i64::from(date.day_of_year()),
            Self::Week => i64::from(week.year()) * 60 + i64::from(week.week()),
            Self::Month => i64::from(date.year()) * 12 + i64::from(date.month()),
            Self::Year => i64::from(date.year()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Micros {
        Micros(text.parse::<Timestamp>().unwrap().as_microsecond())
    }

    #[test]
    fn periods_begin_where_the_zone_says() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let same = |period: Period, a: &str, b: &str| period.of(at(a), &zone) == period.of(at(b), &zone);
        assert!(!same(Period::Day, "2026-03-01T21:59:59Z", "2026-03-01T22:00:00Z"));
        assert!(same(Period::Day, "2026-03-01T22:00:00Z", "2026-03-02T21:59:59Z"));
        // Thursday 2026-01-01 belongs to the week that began on Monday in December.
        assert!(same(Period::Week, "2025-12-29T12:00:00Z", "2026-01-04T12:00:00Z"));
        assert!(!same(Period::Week, "2026-01-04T12:00:00Z", "2026-01-05T12:00:00Z"));
        assert!(!same(Period::Month, "2026-01-31T21:59:59Z", "2026-01-31T22:00:00Z"));
        assert!(same(Period::Year, "2026-01-01T00:00:00Z", "2026-12-31T21:59:59Z"));
    }

    proptest! {
        #[test]
        fn a_later_moment_is_never_in_an_earlier_period(a: i64, b: i64) {
            for period in [Period::Day, Period::Week, Period::Month, Period::Year] {
                let (a, b) = (a.min(b), a.max(b));
                prop_assert!(period.of(Micros(a), &TimeZone::UTC) <= period.of(Micros(b), &TimeZone::UTC));
            }
        }
    }
}
