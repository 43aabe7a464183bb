//! The call budget of an offsite provider: whether one more call may be made, from the ledger's entries and the clock.
//!
//! What counts is what the *provider* counts, and its clock is not ours. So every doubt is decided against the call: a
//! call that may have reached the provider counts; it counts for every day that it may have fallen into; and where our
//! clock, the time since boot and the provider's own `Date` disagree, a call is allowed only if all of them allow it.
//! A claim that was never marked as *sending* did not reach anybody: it is taken up again and blocks nothing.
//!
//! Not knowable, and so not covered: a clock changed while the machine was off, or before the first call since it was
//! booted; a call without a dated answer while the clock was wrong, on a machine that has been booted since.

mod frames;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod turn;

use jiff::tz::TimeZone;

use crate::position::Micros;

use self::frames::{blocked, contradiction};
pub use self::turn::{PackageTurn, package_turn};

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3600 * SECOND;
const DAY: i64 = 24 * HOUR;
/// How far a right clock here and a right clock of the provider may differ, in microseconds.
pub const MARGIN: Micros = Micros(120 * SECOND);
/// The first byte of a call goes out at most this long after it was marked as *sending*, or never, in microseconds.
pub const SEND_WITHIN: Micros = Micros(60 * SECOND);
/// No calendar day of any zone in use is longer: a day with the clocks set back by two hours.
const LONGEST_DAY: i64 = 26 * HOUR;

/// How many calls a provider takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetPolicy {
    /// Calls in a period.
    pub calls: u32,
    /// The period.
    pub period: BudgetPeriod,
}

/// In which time the calls of a budget are counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BudgetPeriod {
    /// Each calendar day of this zone, which is the provider's.
    CalendarDay(TimeZone),
    /// Any 24 hours.
    Rolling24h,
}

/// The clocks of a machine at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockReading {
    /// The wall clock.
    pub wall: Micros,
    /// The time since boot, if the machine tells it.
    pub boot: Option<BootClock>,
}

/// Time since boot, which nobody can set: it goes on while the machine sleeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootClock {
    /// Differs after every boot.
    pub id: String,
    /// Since that boot, in microseconds.
    pub elapsed: Micros,
}

impl ClockReading {
    /// This reading, `micros` later.
    #[must_use]
    pub fn later(&self, micros: i64) -> Self {
        let plus = |moment: Micros| Micros(moment.0.saturating_add(micros));
        let boot =
            self.boot.as_ref().map(|boot| BootClock { id: boot.id.clone(), elapsed: plus(boot.elapsed) });
        Self { wall: plus(self.wall), boot }
    }

    /// Microseconds from `earlier` to this reading by the time since boot; `None` if the machine was booted in between.
    #[must_use]
    pub fn since_boot_of(&self, earlier: &Self) -> Option<i64> {
        let (now, then) = (self.boot.as_ref()?, earlier.boot.as_ref()?);
        let elapsed = now.elapsed.0.checked_sub(then.elapsed.0)?;
        (now.id == then.id && elapsed >= 0).then_some(elapsed)
    }
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallStatus {
    /// The provider has what was sent.
    Arrived,
    /// It answered, or broke off, and has not.
    Failed,
    /// Nobody knows.
    Unknown,
    /// No byte of the request went out: the call counts for nothing.
    Unsent,
}

/// The end of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallOutcome {
    /// What became of it.
    pub status: CallStatus,
    /// When that was known.
    pub at: ClockReading,
    /// What the provider's answer gave as the time, if it gave one.
    pub provider_date: Option<Micros>,
}

/// One number of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerEntry {
    /// From 1 on.
    pub number: u32,
    /// When it was claimed.
    pub claimed: ClockReading,
    /// When its first byte was about to go out; `None`: none ever did.
    pub sending: Option<ClockReading>,
    /// How it ended; `None`: it runs, or its process died.
    pub outcome: Option<CallOutcome>,
}

impl LedgerEntry {
    /// Whether the provider may have counted it.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.sending.is_some() && self.outcome.as_ref().is_none_or(|end| end.status != CallStatus::Unsent)
    }

    /// Whether it was claimed and left alone: whoever marks it as *sending* first may make its call.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.sending.is_none() && self.outcome.is_none()
    }
}

/// Whether a call may be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BudgetDecision {
    /// Yes, under this number.
    Allowed {
        /// The number to claim, or to take up.
        number: u32,
        /// It was claimed before and never sent.
        resumes: bool,
    },
    /// No.
    Refused {
        /// Why.
        reason: BudgetRefusal,
        /// When this clock shows that time a call is allowed, if nothing changes; `None`: not within days.
        next_at: Option<Micros>,
    },
}

/// Why a call may not be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BudgetRefusal {
    /// So many calls were made, or may have been.
    Spent {
        /// Their numbers, ascending.
        by: Vec<u32>,
    },
    /// A call was made later than now: the clock was set back.
    ClockSetBack {
        /// Its number.
        number: u32,
        /// When it was made, as far as is known.
        at: Micros,
    },
    /// Clocks disagree, and by one of them the budget is spent.
    ClocksDisagree {
        /// The calls that count, ascending.
        by: Vec<u32>,
        /// By how much, in microseconds.
        difference: i64,
    },
}

/// Says whether one more call may be made now, and under which number.
#[must_use]
pub fn may_call(entries: &[LedgerEntry], policy: &BudgetPolicy, now: &ClockReading) -> BudgetDecision {
    if let Some(reason) = blocked(entries, policy, now) {
        return BudgetDecision::Refused { reason, next_at: next_at(entries, policy, now) };
    }
    match entries.iter().filter(|entry| entry.is_open()).map(|entry| entry.number).min() {
        Some(number) => BudgetDecision::Allowed { number, resumes: true },
        None => {
            let last = entries.iter().map(|entry| entry.number).max().unwrap_or(0);
            BudgetDecision::Allowed { number: last.saturating_add(1), resumes: false }
        }
    }
}

/// Whether the first byte of a call may still go out, at most `within` microseconds after it was marked as *sending*. If the
/// clock was changed in between, it may not: the mark would tell a wrong time, and nothing else does if no answer comes.
#[must_use]
pub fn may_send(marked: &ClockReading, now: &ClockReading, within: Micros) -> bool {
    let by_wall = now.wall.0.saturating_sub(marked.wall.0);
    let passed = now.since_boot_of(marked).unwrap_or(by_wall);
    (0..=within.0).contains(&passed) && contradiction(marked, now) == 0
}

/// How many calls may be made now, one after another.
#[must_use]
pub fn calls_left(entries: &[LedgerEntry], policy: &BudgetPolicy, now: &ClockReading) -> u32 {
    let mut entries = entries.to_vec();
    let mut left = 0;
    while left < policy.calls {
        let BudgetDecision::Allowed { number, .. } = may_call(&entries, policy, now) else { break };
        entries.retain(|entry| entry.number != number);
        entries.push(LedgerEntry { number, claimed: now.clone(), sending: Some(now.clone()), outcome: None });
        left += 1;
    }
    left
}

/// The earliest moment of this clock at which a call is allowed, among those at which anything changes.
fn next_at(entries: &[LedgerEntry], policy: &BudgetPolicy, now: &ClockReading) -> Option<Micros> {
    let mut moments = frames::changes(entries, policy, now);
    moments.sort_unstable();
    moments.dedup();
    moments
        .into_iter()
        .filter(|moment| *moment > now.wall.0)
        .find(|moment| blocked(entries, policy, &now.later(moment.saturating_sub(now.wall.0))).is_none())
        .map(Micros)
}
