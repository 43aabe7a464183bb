//! When jobs run: cron expressions with a time zone, and what is due after a pause.

use croner::Cron;
use croner::parser::{CronParser, Seconds};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::position::Micros;

/// A cron expression in a time zone: five fields, or six with seconds first; `0 3 * * SUN#1` is the first Sunday of a
/// month. Where the clocks of the zone are set forward, a run in the missing hour comes right after it; where they are set
/// back, a run in the repeated hour comes once.
#[derive(Debug, Clone)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
    text: String,
}

impl Schedule {
    /// Reads an expression.
    ///
    /// # Errors
    /// In words, if it is none.
    pub fn parse(text: &str, zone: &TimeZone) -> Result<Self, String> {
        let parser = CronParser::builder().seconds(Seconds::Optional).build();
        let cron = parser.parse(text).map_err(|error| error.to_string())?;
        Ok(Self { cron, zone: zone.clone(), text: text.to_owned() })
    }

    /// The expression as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The first run later than `moment`; `None` if there is none, as for a 30th of February.
    #[must_use]
    pub fn next_after(&self, moment: Micros) -> Option<Micros> {
        let mut from = Timestamp::from_microsecond(moment.0).ok()?;
        // In a repeated hour an expression may find the same wall-clock time again: it ran already.
        let ran = from.to_zoned(self.zone.clone()).datetime();
        loop {
            let next = self.cron.find_next_occurrence(&from.to_zoned(self.zone.clone()), false).ok()?;
            let at = next.timestamp();
            if at <= from {
                return None;
            }
            let repeated = next.datetime() <= ran && at.as_microsecond() > moment.0;
            if !repeated || self.runs_within_the_hour() {
                return Some(Micros(at.as_microsecond()));
            }
            from = at;
        }
    }

    /// Whether it runs more than once an hour: then the repeated hour has all of its runs.
    fn runs_within_the_hour(&self) -> bool {
        let fields = self.text.split_whitespace().collect::<Vec<_>>();
        let hour = if fields.len() > 5 { fields.get(2) } else { fields.get(1) };
        hour.is_some_and(|hour| hour.starts_with('*'))
    }
}

/// What is to be done about a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Run it now. However many runs were missed, they are caught up by this one.
    Now {
        /// The run that is due, the first of those missed.
        scheduled: Micros,
    },
    /// It runs then.
    At(Micros),
    /// It never runs.
    Never,
}

/// Says whether a job is due at `now`. `last` is when it was started last, or, if it never was, when it came to be known:
/// nothing is made up for a time before.
#[must_use]
pub fn due(schedule: &Schedule, last: Micros, now: Micros) -> Due {
    // A clock that was set back must not keep a job waiting until it has caught up.
    match schedule.next_after(last.min(now)) {
        Some(next) if next <= now => Due::Now { scheduled: next },
        Some(next) => Due::At(next),
        None => Due::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(text: &str, zone: &str) -> Schedule {
        Schedule::parse(text, &TimeZone::get(zone).unwrap()).unwrap()
    }

    fn at(text: &str) -> Micros {
        Micros(text.parse::<Timestamp>().unwrap().as_microsecond())
    }

    fn shown(moment: Option<Micros>) -> String {
        moment.map_or_else(String::new, |m| Timestamp::from_microsecond(m.0).unwrap().to_string())
    }

    #[test]
    fn runs_come_in_the_zone_of_the_schedule() {
        let daily = schedule("0 2 * * *", "Europe/Berlin");
        assert_eq!(shown(daily.next_after(at("2026-01-10T00:30:00Z"))), "2026-01-10T01:00:00Z");
        assert_eq!(shown(daily.next_after(at("2026-01-10T01:00:00Z"))), "2026-01-11T01:00:00Z");
        assert_eq!(shown(daily.next_after(at("2026-07-10T00:30:00Z"))), "2026-07-11T00:00:00Z");
    }

    #[test]
    fn the_first_sunday_can_be_said() {
        let sunday = schedule("0 3 * * SUN#1", "UTC");
        assert_eq!(shown(sunday.next_after(at("2026-11-02T00:00:00Z"))), "2026-12-06T03:00:00Z");
        let seconds = schedule("*/5 * * * * *", "UTC");
        assert_eq!(shown(seconds.next_after(at("2026-11-02T00:00:01Z"))), "2026-11-02T00:00:05Z");
        assert!(Schedule::parse("61 * * * *", &TimeZone::UTC).is_err());
        assert!(Schedule::parse("", &TimeZone::UTC).is_err());
    }

    #[test]
    fn a_run_in_the_hour_that_is_left_out_comes_once_after_it() {
        // 2026-03-29 02:00 becomes 03:00.
        let daily = schedule("30 2 * * *", "Europe/Berlin");
        let first = daily.next_after(at("2026-03-28T12:00:00Z")).unwrap();
        assert_eq!(shown(Some(first)), "2026-03-29T01:00:00Z");
        assert_eq!(shown(daily.next_after(first)), "2026-03-30T00:30:00Z");
    }

    #[test]
    fn a_run_in_the_hour_that_comes_twice_comes_once() {
        // 2026-10-25 03:00 becomes 02:00.
        let daily = schedule("30 2 * * *", "Europe/Berlin");
        let first = daily.next_after(at("2026-10-24T12:00:00Z")).unwrap();
        assert_eq!(shown(Some(first)), "2026-10-25T00:30:00Z");
        assert_eq!(shown(daily.next_after(first)), "2026-10-26T01:30:00Z");
        let hourly = schedule("0 * * * *", "Europe/Berlin");
        let first = hourly.next_after(at("2026-10-25T00:10:00Z")).unwrap();
        assert_eq!(shown(Some(first)), "2026-10-25T01:00:00Z");
        assert_eq!(shown(hourly.next_after(first)), "2026-10-25T02:00:00Z");
    }

    #[test]
    fn missed_runs_are_caught_up_once() {
        let daily = schedule("0 2 * * *", "UTC");
        let now = at("2026-11-21T09:00:00Z");
        let missed = due(&daily, at("2026-11-17T02:00:00Z"), now);
        assert_eq!(missed, Due::Now { scheduled: at("2026-11-18T02:00:00Z") });
        assert_eq!(due(&daily, now, now), Due::At(at("2026-11-22T02:00:00Z")));
        let never = schedule("0 0 30 2 *", "UTC");
        assert_eq!(due(&never, now, now), Due::Never);
    }

    #[test]
    fn a_clock_set_back_does_not_stop_jobs() {
        let hourly = schedule("0 * * * *", "UTC");
        let (last, now) = (at("2026-11-25T00:00:00Z"), at("2026-11-21T09:10:00Z"));
        assert_eq!(due(&hourly, last, now), Due::At(at("2026-11-21T10:00:00Z")));
    }

    /// A day by a clock that is looked at every 20 seconds.
    #[test]
    fn a_day_of_schedules() {
        for (text, zone, day, runs) in [
            ("0 2 * * *", "UTC", "2026-11-21T00:00:00Z", 1),
            ("0 * * * *", "UTC", "2026-11-21T00:00:00Z", 24),
            ("*/15 * * * *", "Europe/Berlin", "2026-10-24T22:00:00Z", 100),
            ("30 2 * * *", "Europe/Berlin", "2026-10-24T22:00:00Z", 1),
            ("30 2 * * *", "Europe/Berlin", "2026-03-28T23:00:00Z", 1),
        ] {
            let schedule = schedule(text, zone);
            let begin = at(day);
            let hours = hours_of(zone, day);
            let (mut last, mut count) = (begin, 0);
            let mut now = begin;
            while now < Micros(begin.0 + hours * 3_600_000_000) {
                now = Micros(now.0 + 20_000_000);
                if let Due::Now { scheduled } = due(&schedule, last, now) {
                    assert!(now.0 - scheduled.0 < 20_000_000, "{text}: late by {}", now.0 - scheduled.0);
                    (last, count) = (now, count + 1);
                }
            }
            assert_eq!(count, runs, "{text} in {zone} from {day}");
        }
    }

    /// Hours of the civil day that begins then.
    fn hours_of(zone: &str, day: &str) -> i64 {
        let zone = TimeZone::get(zone).unwrap();
        let begin = day.parse::<Timestamp>().unwrap().to_zoned(zone);
        let end = begin.tomorrow().unwrap();
        (end.timestamp().as_second() - begin.timestamp().as_second()) / 3600
    }
}
