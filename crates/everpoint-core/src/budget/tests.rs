//! Single situations; the simulation beside tries their mixtures.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::*;

pub(super) fn at(text: &str) -> i64 {
    text.parse::<Timestamp>().unwrap().as_microsecond()
}

/// A right clock of a machine booted at midnight of 2026-03-01.
fn clock(text: &str) -> ClockReading {
    let wall = at(text);
    let elapsed = Micros(wall - at("2026-03-01T00:00:00Z"));
    ClockReading { wall: Micros(wall), boot: Some(BootClock { id: "first".to_owned(), elapsed }) }
}

/// As `clock`, with the wall clock off by so many hours.
fn off(text: &str, hours: i64) -> ClockReading {
    let right = clock(text);
    ClockReading { wall: Micros(right.wall.0 + hours * HOUR), ..right }
}

fn rebooted(mut reading: ClockReading) -> ClockReading {
    reading.boot = Some(BootClock { id: "second".to_owned(), elapsed: Micros(HOUR) });
    reading
}

fn open(number: u32, claimed: ClockReading) -> LedgerEntry {
    LedgerEntry { number, claimed, sending: None, outcome: None }
}

fn crashed(number: u32, sending: ClockReading) -> LedgerEntry {
    LedgerEntry { sending: Some(sending.clone()), ..open(number, sending) }
}

fn called(number: u32, sending: ClockReading, date: Option<&str>) -> LedgerEntry {
    let outcome = CallOutcome {
        status: CallStatus::Arrived,
        at: sending.later(5 * SECOND),
        provider_date: date.map(|date| Micros(at(date))),
    };
    LedgerEntry { outcome: Some(outcome), ..crashed(number, sending) }
}

fn daily(calls: u32, zone: &str) -> BudgetPolicy {
    BudgetPolicy { calls, period: BudgetPeriod::CalendarDay(TimeZone::get(zone).unwrap()) }
}

const ROLLING: BudgetPolicy = BudgetPolicy { calls: 1, period: BudgetPeriod::Rolling24h };

fn allowed(entries: &[LedgerEntry], policy: &BudgetPolicy, now: &ClockReading) -> Option<(u32, bool)> {
    match may_call(entries, policy, now) {
        BudgetDecision::Allowed { number, resumes } => Some((number, resumes)),
        BudgetDecision::Refused { .. } => None,
    }
}

fn refused(entries: &[LedgerEntry], policy: &BudgetPolicy, now: &ClockReading) -> (BudgetRefusal, String) {
    match may_call(entries, policy, now) {
        BudgetDecision::Refused { reason, next_at } => {
            let next = next_at.map(|next| Timestamp::from_microsecond(next.0).unwrap());
            (reason, next.map_or_else(String::new, |next| format!("{next:.0}")))
        }
        BudgetDecision::Allowed { .. } => panic!("allowed"),
    }
}

#[test]
fn one_call_a_day_of_the_providers_zone() {
    let policy = daily(1, "Europe/Berlin");
    assert_eq!(allowed(&[], &policy, &clock("2026-03-10T03:00:00Z")), Some((1, false)));
    let made = [called(1, clock("2026-03-10T03:00:00Z"), Some("2026-03-10T03:00:05Z"))];
    let (reason, next) = refused(&made, &policy, &clock("2026-03-10T22:59:00Z"));
    assert_eq!(reason, BudgetRefusal::Spent { by: vec![1] });
    // Midnight of Berlin, and what two clocks may differ.
    assert_eq!(next, "2026-03-10T23:02:00Z");
    assert_eq!(allowed(&made, &policy, &clock("2026-03-10T23:03:00Z")), Some((2, false)));
}

#[test]
fn days_are_as_long_as_they_are_when_clocks_change() {
    let policy = daily(1, "Europe/Berlin");
    // 23 hours on the 29th of March; 25 on the 25th of October.
    let spring = [called(1, clock("2026-03-28T23:10:00Z"), None)];
    assert_eq!(refused(&spring, &policy, &clock("2026-03-29T21:00:00Z")).1, "2026-03-29T22:02:00Z");
    let autumn = [called(1, clock("2026-10-24T22:10:00Z"), None)];
    assert_eq!(refused(&autumn, &policy, &clock("2026-10-25T22:30:00Z")).1, "2026-10-25T23:02:00Z");
}

#[test]
fn a_rolling_day_begins_when_the_call_has_ended() {
    let made = [called(1, clock("2026-03-10T03:00:00Z"), None)];
    assert_eq!(refused(&made, &ROLLING, &clock("2026-03-11T03:00:00Z")).1, "2026-03-11T03:02:05Z");
    assert_eq!(allowed(&made, &ROLLING, &clock("2026-03-11T03:02:06Z")), Some((2, false)));
}

#[test]
fn a_claim_that_was_never_sent_is_taken_up_again() {
    let entries = [called(1, clock("2026-03-09T03:00:00Z"), None), open(2, clock("2026-03-10T03:00:00Z"))];
    assert_eq!(allowed(&entries, &daily(1, "UTC"), &clock("2026-03-10T03:00:01Z")), Some((2, true)));
    assert_eq!(allowed(&entries, &daily(1, "UTC"), &off("2026-03-10T03:00:01Z", -2)), None, "clock changed");
}

#[test]
fn a_call_without_an_answer_counts_and_one_that_never_left_does_not() {
    let entry = crashed(1, clock("2026-03-10T03:00:00Z"));
    let now = clock("2026-03-10T09:00:00Z");
    assert!(allowed(std::slice::from_ref(&entry), &daily(1, "UTC"), &now).is_none());
    for (status, free) in [
        (CallStatus::Arrived, false),
        (CallStatus::Failed, false),
        (CallStatus::Unknown, false),
        (CallStatus::Unsent, true),
    ] {
        let outcome = CallOutcome { status, at: clock("2026-03-10T03:00:10Z"), provider_date: None };
        let ended = LedgerEntry { outcome: Some(outcome), ..entry.clone() };
        let expected = free.then_some((2, false));
        assert_eq!(allowed(&[ended], &daily(1, "UTC"), &now), expected, "{status:?}");
    }
}

#[test]
fn a_clock_set_back_refuses() {
    let made = [called(1, rebooted(clock("2026-03-10T03:00:00Z")), Some("2026-03-10T03:00:05Z"))];
    let (reason, next) = refused(&made, &daily(1, "UTC"), &clock("2026-03-09T12:00:00Z"));
    assert!(matches!(reason, BudgetRefusal::ClockSetBack { number: 1, .. }), "{reason:?}");
    assert_eq!(next, "2026-03-11T00:02:00Z");
}

#[test]
fn a_clock_set_forward_does_not_make_a_new_day() {
    for date in [None, Some("2026-03-10T03:00:05Z")] {
        let made = [called(1, clock("2026-03-10T03:00:00Z"), date)];
        for policy in [daily(1, "UTC"), daily(2, "UTC"), ROLLING] {
            let (reason, next) = refused(&made, &policy, &off("2026-03-10T04:00:00Z", 48));
            let expected = BudgetRefusal::ClocksDisagree { by: vec![1], difference: 48 * HOUR };
            assert_eq!(reason, expected);
            assert!(next.starts_with("2026-03-13T05:00"), "26 hours after the call, by this clock: {next}");
        }
    }
}

#[test]
fn the_providers_date_counts_for_a_call_made_by_a_wrong_clock() {
    // Our clock was an hour behind, the machine was booted again, now it is right.
    let made = [called(1, rebooted(off("2026-03-10T00:30:00Z", -1)), Some("2026-03-10T00:30:05Z"))];
    assert!(allowed(&made, &daily(1, "UTC"), &clock("2026-03-10T09:00:00Z")).is_none());
    assert!(allowed(&made, &daily(1, "UTC"), &clock("2026-03-11T09:00:00Z")).is_some());
    // Made by a clock a year ahead: it does not refuse for a year.
    let made = [called(1, rebooted(off("2026-03-10T00:30:00Z", 24 * 365)), Some("2026-03-10T00:30:05Z"))];
    assert!(allowed(&made, &daily(1, "UTC"), &clock("2026-03-12T09:00:00Z")).is_some());
}

#[test]
fn a_call_across_midnight_counts_for_both_days() {
    let mut made = called(1, clock("2026-03-10T23:50:00Z"), Some("2026-03-11T00:30:00Z"));
    made.outcome.as_mut().unwrap().at = clock("2026-03-11T00:30:00Z");
    assert!(allowed(std::slice::from_ref(&made), &daily(1, "UTC"), &clock("2026-03-11T12:00:00Z")).is_none());
    assert!(allowed(&[made], &daily(2, "UTC"), &clock("2026-03-11T12:00:00Z")).is_some());
}

#[test]
fn a_budget_of_nothing_allows_nothing() {
    let BudgetDecision::Refused { next_at, .. } =
        may_call(&[], &daily(0, "UTC"), &clock("2026-03-11T12:00:00Z"))
    else {
        panic!("allowed");
    };
    assert_eq!(next_at, None);
}

#[test]
fn a_call_is_not_sent_by_a_clock_that_was_changed_since_it_was_marked() {
    let marked = clock("2026-03-10T03:00:00Z");
    assert!(may_send(&marked, &marked.later(20 * SECOND), SEND_WITHIN));
    assert!(!may_send(&marked, &marked.later(61 * SECOND), SEND_WITHIN), "too late");
    for hours in [-3, 3] {
        let mut changed = marked.later(SECOND);
        changed.wall.0 += hours * HOUR;
        assert!(!may_send(&marked, &changed, SEND_WITHIN), "{hours}");
    }
}

#[test]
fn calls_that_are_left_are_those_that_would_be_allowed_one_after_another() {
    let now = clock("2026-03-10T12:00:00Z");
    let made = [called(1, clock("2026-03-10T03:00:00Z"), None), open(2, clock("2026-03-10T04:00:00Z"))];
    assert_eq!(calls_left(&made, &daily(3, "UTC"), &now), 2, "a claim that was not sent counts for nothing");
    assert_eq!(calls_left(&made, &daily(1, "UTC"), &now), 0);
    assert_eq!(calls_left(&[], &daily(3, "UTC"), &now), 3);
    assert_eq!(calls_left(&[], &daily(0, "UTC"), &now), 0);
}
