//! Counting calls by every clock that may be the right one.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{
    BudgetPeriod, BudgetPolicy, BudgetRefusal, ClockReading, DAY, LONGEST_DAY, LedgerEntry, MARGIN,
    SEND_WITHIN,
};
use crate::position::Micros;

/// A call that the provider may have counted.
struct Call<'a> {
    number: u32,
    sent: &'a ClockReading,
    /// When it had ended, by the wall clock; microseconds.
    end: i64,
    /// How long it took; microseconds.
    took: i64,
    /// The provider's date, and what our clocks read when it came.
    date: Option<(i64, &'a ClockReading)>,
}

/// From when to when a call may have been counted.
type Range = (i64, i64);

/// One way to read the clocks: whose clock is right, and what it reads now.
struct Frame {
    now: i64,
    whose: Whose,
}

enum Whose {
    /// Our wall clock is right.
    Ours,
    /// The provider's is, and is this far ahead of ours.
    Provider { ahead: i64 },
}

impl<'a> Call<'a> {
    fn of(entry: &'a LedgerEntry) -> Option<Self> {
        let sent = entry.sending.as_ref().filter(|_| entry.is_spent())?;
        let outcome = entry.outcome.as_ref();
        let took = outcome.map_or(SEND_WITHIN.0, |outcome| {
            let by_wall = outcome.at.wall.0.saturating_sub(sent.wall.0);
            outcome.at.since_boot_of(sent).unwrap_or(by_wall).max(0)
        });
        let date = outcome.and_then(|outcome| Some((outcome.provider_date?.0, &outcome.at)));
        Some(Self { number: entry.number, sent, end: sent.wall.0.saturating_add(took), took, date })
    }

    fn by_wall(&self) -> Range {
        wide(self.sent.wall.0, self.end)
    }

    /// By the provider's own date, which needs no margin but for its cut-off second.
    fn by_date(&self) -> Option<Range> {
        let (date, _) = self.date?;
        Some((date.saturating_sub(self.took), date.saturating_add(1_000_000)))
    }

    /// Microseconds since it was sent, by the time since boot.
    fn age(&self, now: &ClockReading) -> Option<i64> {
        now.since_boot_of(self.sent)
    }

    /// Whether it may be of today, and the clocks contradict each other about it; or it has no date of the provider, and
    /// the clock was changed at some time since boot, so that neither before nor after is known to be right.
    fn doubtful(&self, changed: bool, now: &ClockReading) -> bool {
        let recent = self.age(now).is_some_and(|age| age <= self.took.saturating_add(LONGEST_DAY));
        recent && (contradiction(self.sent, now) != 0 || (changed && self.date.is_none()))
    }

    /// When it may have been counted, seen from a frame.
    fn ranges(&self, frame: &Frame, now: &ClockReading) -> Vec<Range> {
        let wall = self.by_wall();
        match (&frame.whose, self.age(now)) {
            (Whose::Ours, Some(age)) => {
                let from = now.wall.0.saturating_sub(age);
                vec![wall, wide(from, from.saturating_add(self.took))]
            }
            // Since that boot the clock may have been put right: its own reading may be wrong, the provider's is not.
            (Whose::Ours, None) => [Some(wall), self.by_date()].into_iter().flatten().collect(),
            (Whose::Provider { ahead }, _) => self.by_date().map_or_else(
                || vec![wall, (wall.0.saturating_add(*ahead), wall.1.saturating_add(*ahead))],
                |range| vec![range],
            ),
        }
    }
}

/// By how much the wall clock moved differently from the time since boot; 0 unless it is more than the margin.
pub(super) fn contradiction(then: &ClockReading, now: &ClockReading) -> i64 {
    let moved = now.wall.0.saturating_sub(then.wall.0);
    let difference = now.since_boot_of(then).map_or(0, |age| moved.saturating_sub(age));
    if difference.abs() > MARGIN.0 { difference } else { 0 }
}

fn wide(from: i64, to: i64) -> Range {
    (from.saturating_sub(MARGIN.0), to.saturating_add(MARGIN.0))
}

/// Every reading of the clocks that may be right.
fn frames(calls: &[Call<'_>], now: &ClockReading) -> Vec<Frame> {
    let mut found = vec![Frame { now: now.wall.0, whose: Whose::Ours }];
    let dated = calls.iter().filter_map(|call| Some((call.number, call.date?)));
    if let Some((_, (date, at))) = dated.max_by_key(|(number, _)| *number) {
        let since = now.since_boot_of(at).unwrap_or_else(|| now.wall.0.saturating_sub(at.wall.0));
        let ahead = date.saturating_sub(at.wall.0);
        found.push(Frame { now: date.saturating_add(since), whose: Whose::Provider { ahead } });
    }
    found
}

/// Why a call is not allowed; `None` if it is.
pub(super) fn blocked(
    entries: &[LedgerEntry],
    policy: &BudgetPolicy,
    now: &ClockReading,
) -> Option<BudgetRefusal> {
    let calls: Vec<Call<'_>> = entries.iter().filter_map(Call::of).collect();
    if let Some(reason) = set_back(&calls, now).or_else(|| doubted(entries, &calls, now)) {
        return Some(reason);
    }
    let allowed = usize::try_from(policy.calls).unwrap_or(usize::MAX);
    for frame in frames(&calls, now) {
        let mut periods = counted(&calls, &frame, &policy.period, now).into_iter();
        if let Some(by) = periods.find(|by| by.len() >= allowed) {
            let difference = frame.now.saturating_sub(now.wall.0);
            return Some(if difference.abs() > MARGIN.0 {
                BudgetRefusal::ClocksDisagree { by, difference }
            } else {
                BudgetRefusal::Spent { by }
            });
        }
    }
    None
}

/// A call of this boot that may be of today, and the wall clock has been changed since boot: what day it is now, and what
/// day it was for any call, is not known.
fn doubted(entries: &[LedgerEntry], calls: &[Call<'_>], now: &ClockReading) -> Option<BudgetRefusal> {
    let difference = change(entries, now)?;
    let by: Vec<u32> = calls.iter().filter(|call| call.doubtful(true, now)).map(|call| call.number).collect();
    (!by.is_empty()).then_some(BudgetRefusal::ClocksDisagree { by, difference })
}

/// By how much the wall clock was changed since anything of this boot was written down; `None` if it was not.
fn change(entries: &[LedgerEntry], now: &ClockReading) -> Option<i64> {
    let read = entries.iter().rev().flat_map(|entry| entry.sending.iter().chain([&entry.claimed]));
    read.map(|then| contradiction(then, now)).find(|difference| *difference != 0)
}

/// A call later than now by our clock and, where it is known, by the provider's.
fn set_back(calls: &[Call<'_>], now: &ClockReading) -> Option<BudgetRefusal> {
    calls
        .iter()
        .map(|call| (call.number, call.date.map_or(call.sent.wall.0, |(date, _)| date.min(call.sent.wall.0))))
        .filter(|(_, at)| at.saturating_sub(MARGIN.0) > now.wall.0)
        .max_by_key(|(_, at)| *at)
        .map(|(number, at)| BudgetRefusal::ClockSetBack { number, at: Micros(at) })
}

/// The calls that count against one more, for each period that now may lie in.
fn counted(calls: &[Call<'_>], frame: &Frame, period: &BudgetPeriod, now: &ClockReading) -> Vec<Vec<u32>> {
    let within = |from: i64, to: i64| {
        let counts =
            |call: &&Call<'_>| call.ranges(frame, now).iter().any(|range| range.1 >= from && range.0 < to);
        let mut numbers: Vec<u32> = calls.iter().filter(counts).map(|call| call.number).collect();
        numbers.sort_unstable();
        numbers
    };
    match period {
        BudgetPeriod::Rolling24h => vec![within(frame.now.saturating_sub(DAY), i64::MAX)],
        BudgetPeriod::CalendarDay(zone) => {
            days(zone, frame.now).into_iter().map(|(from, to)| within(from, to)).collect()
        }
    }
}

/// The calendar days that a moment may lie in.
fn days(zone: &TimeZone, moment: i64) -> Vec<Range> {
    let near = [moment.saturating_sub(MARGIN.0), moment, moment.saturating_add(MARGIN.0)];
    let mut found: Vec<Range> = near.into_iter().map(|at| day(zone, at)).collect();
    found.dedup();
    found
}

/// The calendar day that holds a moment, first to after its last microsecond. What is no date is a day of its own.
pub(super) fn day(zone: &TimeZone, moment: i64) -> Range {
    let bounds = || {
        let here = Timestamp::from_microsecond(moment).ok()?.to_zoned(zone.clone());
        let start = here.start_of_day().ok()?;
        let end = here.tomorrow().ok()?.start_of_day().ok()?;
        Some((start.timestamp().as_microsecond(), end.timestamp().as_microsecond()))
    };
    bounds().unwrap_or((moment.saturating_sub(DAY), moment.saturating_add(DAY)))
}

/// Moments of our clock at which a refusal may end.
pub(super) fn changes(entries: &[LedgerEntry], policy: &BudgetPolicy, now: &ClockReading) -> Vec<i64> {
    let calls: Vec<Call<'_>> = entries.iter().filter_map(Call::of).collect();
    let mut found = Vec::new();
    for frame in frames(&calls, now) {
        let ours =
            |moment: i64| moment.saturating_add(now.wall.0.saturating_sub(frame.now)).saturating_add(1);
        match &policy.period {
            BudgetPeriod::CalendarDay(zone) => {
                let ends = calls.iter().flat_map(|call| call.ranges(&frame, now)).map(|range| range.1);
                for from in ends.chain([frame.now]) {
                    let (_, next) = day(zone, from);
                    found.push(ours(next.saturating_add(MARGIN.0)));
                }
            }
            BudgetPeriod::Rolling24h => found.extend(
                calls.iter().flat_map(|call| call.ranges(&frame, now)).map(|r| ours(r.1.saturating_add(DAY))),
            ),
        }
    }
    let changed = change(entries, now).is_some();
    found.extend(calls.iter().filter(|call| call.doubtful(changed, now)).filter_map(|call| {
        let left = call.took.saturating_add(LONGEST_DAY).saturating_sub(call.age(now)?);
        Some(now.wall.0.saturating_add(left).saturating_add(1))
    }));
    found
}
