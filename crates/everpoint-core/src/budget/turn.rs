//! Whether a package that a schedule wants goes out now, waits for the budget, or is there already.

use super::frames::day;
use super::{BudgetDecision, BudgetPeriod, BudgetPolicy, ClockReading, LedgerEntry, may_call};
use crate::position::Micros;

/// What is done about a package that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackageTurn {
    /// A call is allowed: it is made and sent.
    Go,
    /// One arrived that serves: it was sent then.
    Done(Micros),
    /// No call is allowed before this moment; `None`: not within days.
    Wait(Option<Micros>),
}

/// Says what is done about a package that is wanted since `wanted`: the moment of its schedule, or the start of a run that
/// failed or was cut off. `arrived`: when each package that arrived was sent.
///
/// A calendar day that has its package needs no second one: else a run that had to wait for the next day, or a package
/// sent by hand, would take that day's call away from its schedule, and so every day after. In a rolling period there is no
/// such day: the schedule slides.
#[must_use]
pub fn package_turn(
    entries: &[LedgerEntry],
    policy: &BudgetPolicy,
    arrived: &[Micros],
    wanted: Micros,
    now: &ClockReading,
) -> PackageTurn {
    if let Some(at) = arrived.iter().rev().find(|at| **at >= wanted) {
        return PackageTurn::Done(*at);
    }
    let next = match may_call(entries, policy, now) {
        BudgetDecision::Allowed { .. } => return PackageTurn::Go,
        BudgetDecision::Refused { next_at, .. } => next_at,
    };
    if let BudgetPeriod::CalendarDay(zone) = &policy.period {
        let (from, to) = day(zone, wanted.0);
        if let Some(at) = arrived.iter().rev().find(|at| (from..to).contains(&at.0)) {
            return PackageTurn::Done(*at);
        }
    }
    PackageTurn::Wait(next)
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::budget::{BootClock, CallOutcome, CallStatus};

    const SECOND: i64 = 1_000_000;

    fn at(text: &str) -> Micros {
        Micros(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
    }

    fn shown(moment: Micros) -> String {
        jiff::Timestamp::from_microsecond(moment.0).unwrap().to_string()
    }

    fn clock(moment: Micros) -> ClockReading {
        let boot = at("2026-03-01T00:00:00Z");
        let elapsed = Micros(moment.0 - boot.0);
        ClockReading { wall: moment, boot: Some(BootClock { id: "boot".to_owned(), elapsed }) }
    }

    /// Calls so far, and which of them arrived.
    #[derive(Default)]
    struct Calls {
        entries: Vec<LedgerEntry>,
        arrived: Vec<Micros>,
    }

    impl Calls {
        fn with(mut self, moment: &str, status: CallStatus) -> Self {
            self.call(at(moment), status);
            self
        }

        fn call(&mut self, moment: Micros, status: CallStatus) {
            let end = Micros(moment.0 + 20 * SECOND);
            let outcome = CallOutcome { status, at: clock(end), provider_date: Some(end) };
            self.entries.push(LedgerEntry {
                number: u32::try_from(self.entries.len()).unwrap() + 1,
                claimed: clock(moment),
                sending: Some(clock(moment)),
                outcome: Some(outcome),
            });
            self.arrived.extend((status == CallStatus::Arrived).then_some(moment));
        }

        fn turn(&self, period: &BudgetPeriod, wanted: Micros, now: Micros) -> PackageTurn {
            let policy = BudgetPolicy { calls: 1, period: period.clone() };
            package_turn(&self.entries, &policy, &self.arrived, wanted, &clock(now))
        }
    }

    fn utc() -> BudgetPeriod {
        BudgetPeriod::CalendarDay(TimeZone::UTC)
    }

    #[test]
    fn after_a_failed_call_it_waits_for_the_next_day() {
        let calls = Calls::default().with("2026-03-10T03:00:00Z", CallStatus::Failed);
        let wanted = at("2026-03-10T03:00:00Z");
        let PackageTurn::Wait(Some(next)) = calls.turn(&utc(), wanted, at("2026-03-10T04:00:20Z")) else {
            panic!("it does not wait");
        };
        assert!(shown(next).starts_with("2026-03-11T00:02:00"), "{}", shown(next));
        assert_eq!(calls.turn(&utc(), wanted, next), PackageTurn::Go);
    }

    #[test]
    fn a_day_that_has_its_package_needs_no_second_one() {
        let sent = "2026-03-10T01:00:00Z";
        let calls = Calls::default().with(sent, CallStatus::Arrived);
        let wanted = at("2026-03-10T03:00:00Z");
        assert_eq!(calls.turn(&utc(), wanted, wanted), PackageTurn::Done(at(sent)));
        // A run that was cut off after its file had arrived.
        assert_eq!(calls.turn(&utc(), at("2026-03-10T00:59:00Z"), wanted), PackageTurn::Done(at(sent)));
        // The next day is another one.
        let next = at("2026-03-11T03:00:00Z");
        assert_eq!(calls.turn(&utc(), next, next), PackageTurn::Go);
    }

    #[test]
    fn at_midnight_the_package_of_the_day_before_does_not_stand_for_the_new_day() {
        let calls = Calls::default().with("2026-03-10T00:02:10Z", CallStatus::Arrived);
        let wanted = at("2026-03-11T00:00:00Z");
        let PackageTurn::Wait(Some(next)) = calls.turn(&utc(), wanted, wanted) else {
            panic!("it does not wait");
        };
        assert!(shown(next).starts_with("2026-03-11T00:02:00"), "{}", shown(next));
    }

    #[test]
    fn within_any_24_hours_the_schedule_slides() {
        let calls = Calls::default().with("2026-03-10T03:00:00Z", CallStatus::Arrived);
        let wanted = at("2026-03-11T03:00:00Z");
        let PackageTurn::Wait(Some(next)) = calls.turn(&BudgetPeriod::Rolling24h, wanted, wanted) else {
            panic!("it does not wait");
        };
        assert!(shown(next).starts_with("2026-03-11T03:02:20"), "{}", shown(next));
    }

    /// Runs of a schedule over days, as the daemon makes them; what each call does is given.
    fn days(hour: i64, days: i64, outcome: impl Fn(usize) -> CallStatus) -> Calls {
        let (mut calls, begin) = (Calls::default(), at("2026-03-10T00:00:00Z"));
        let (hours, day) = (hour * 3600 * SECOND, 86_400 * SECOND);
        let mut pending: Option<Micros> = None;
        let mut scheduled = begin.0 + hours;
        let mut now = begin.0;
        while now < begin.0 + days * day {
            if now >= scheduled {
                pending = pending.or(Some(Micros(scheduled)));
                scheduled += day;
            }
            if let Some(wanted) = pending {
                match calls.turn(&utc(), wanted, Micros(now)) {
                    PackageTurn::Go => {
                        let status = outcome(calls.entries.len());
                        calls.call(Micros(now), status);
                        pending = (status != CallStatus::Arrived).then_some(Micros(now));
                    }
                    PackageTurn::Done(_) => pending = None,
                    PackageTurn::Wait(_) => {}
                }
            }
            now += 60 * SECOND;
        }
        calls
    }

    #[test]
    fn every_day_gets_its_call_whatever_fails_and_the_schedule_comes_back() {
        for hour in [0, 3, 12, 23] {
            let calls =
                days(
                    hour,
                    12,
                    |call| if (3..6).contains(&call) { CallStatus::Failed } else { CallStatus::Arrived },
                );
            let sent: Vec<String> = calls.entries.iter().map(|entry| shown(entry.claimed.wall)).collect();
            assert_eq!(calls.entries.len(), 12, "{hour}: {sent:?}");
            let last = sent.last().unwrap();
            let expected = if hour == 0 { "T00:0".to_owned() } else { format!("T{hour:02}:00") };
            assert!(last.contains(&expected), "{hour}: {sent:?}");
        }
    }
}
