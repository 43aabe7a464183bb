//! Two daemons, crashes at every step, boots, clocks set back and forth, and a provider that counts by its own clock.
//!
//! Left out is what nobody can know (see the module above): a clock changed while no call of this boot is known, and a
//! boot with a right clock after a call by a wrong one that got no answer.

use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::tests::at;
use super::*;

#[derive(Debug, Clone)]
enum Step {
    /// A daemon does its next step.
    Daemon(usize),
    /// A daemon is killed and started again.
    Crash(usize),
    /// Seconds go by.
    Pass(i64),
    /// The wall clock is set to so many seconds from the true time.
    SetClock(i64),
    /// The machine is booted; its clock comes up right.
    Boot,
}

#[derive(Debug, Clone, Default)]
enum Doing {
    #[default]
    Nothing,
    Claimed(u32),
    /// The clock was read for the mark that is written next.
    Checked(u32, ClockReading),
    Marked(u32, ClockReading),
    Sent(u32),
}

struct World {
    policy: BudgetPolicy,
    /// The provider's clock is the true time and this.
    skew: i64,
    time: i64,
    offset: i64,
    booted: (u32, i64),
    ledger: Vec<LedgerEntry>,
    daemons: [Doing; 2],
    /// When calls reached the provider, by its clock.
    counted: Vec<i64>,
    /// Numbers of the calls that were made by a wrong clock.
    wrong: Vec<u32>,
    answers: bool,
}

impl World {
    fn new(policy: BudgetPolicy, skew: i64, answers: bool) -> Self {
        let time = at("2026-03-27T20:00:00Z");
        let daemons = [Doing::Nothing, Doing::Nothing];
        let booted = (1, time - HOUR);
        Self {
            policy,
            skew,
            time,
            offset: 0,
            booted,
            ledger: Vec::new(),
            daemons,
            counted: Vec::new(),
            wrong: Vec::new(),
            answers,
        }
    }

    fn now(&self) -> ClockReading {
        let (boot, since) = self.booted;
        let boot = BootClock { id: boot.to_string(), elapsed: Micros(self.time - since) };
        ClockReading { wall: Micros(self.time + self.offset), boot: Some(boot) }
    }

    fn entry(&mut self, number: u32) -> &mut LedgerEntry {
        self.ledger.iter_mut().find(|entry| entry.number == number).unwrap()
    }

    fn end(&mut self, number: u32, status: CallStatus, answered: bool) {
        let provider_date = answered.then_some(Micros((self.time + self.skew) / SECOND * SECOND));
        let at = self.now();
        self.entry(number).outcome = Some(CallOutcome { status, at, provider_date });
    }

    /// One step of a daemon that wants a call as soon as one is allowed.
    fn daemon(&mut self, which: usize) {
        let now = self.now();
        let allowed = match may_call(&self.ledger, &self.policy, &now) {
            BudgetDecision::Allowed { number, .. } => Some(number),
            BudgetDecision::Refused { .. } => None,
        };
        self.daemons[which] = match self.daemons[which].clone() {
            Doing::Nothing => allowed.map_or(Doing::Nothing, |number| {
                if self.ledger.iter().all(|entry| entry.number != number) {
                    self.ledger.push(LedgerEntry { number, claimed: now, sending: None, outcome: None });
                }
                Doing::Claimed(number)
            }),
            Doing::Claimed(number) if allowed == Some(number) => Doing::Checked(number, now),
            Doing::Claimed(_) => Doing::Nothing,
            Doing::Checked(number, read) => {
                if self.entry(number).sending.is_some() {
                    Doing::Nothing
                } else {
                    self.entry(number).sending = Some(read.clone());
                    Doing::Marked(number, read)
                }
            }
            Doing::Marked(number, read) => {
                if may_send(&read, &now, SEND_WITHIN) {
                    self.counted.push(self.time + self.skew);
                    if self.offset != 0 {
                        self.wrong.push(number);
                    }
                    Doing::Sent(number)
                } else {
                    self.end(number, CallStatus::Unsent, false);
                    Doing::Nothing
                }
            }
            Doing::Sent(number) => {
                let status = if self.time % 3 == 0 { CallStatus::Failed } else { CallStatus::Arrived };
                self.end(number, status, self.answers);
                Doing::Nothing
            }
        };
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Daemon(which) => self.daemon(which),
            Step::Crash(which) => self.daemons[which] = Doing::Nothing,
            Step::Pass(seconds) => self.time += seconds * SECOND,
            Step::SetClock(offset) => {
                let last = self.ledger.iter().filter_map(|entry| entry.sending.as_ref()).next_back();
                if last.is_some_and(|last| self.now().since_boot_of(last).is_some()) {
                    self.offset = offset * SECOND;
                }
            }
            Step::Boot => {
                let unanswered = |number: &u32| {
                    let entry = self.ledger.iter().find(|entry| entry.number == *number);
                    entry
                        .and_then(|entry| entry.outcome.as_ref())
                        .is_none_or(|end| end.provider_date.is_none())
                };
                if !self.wrong.iter().any(unanswered) {
                    self.daemons = [Doing::Nothing, Doing::Nothing];
                    self.booted = (self.booted.0 + 1, self.time);
                    self.offset = 0;
                }
            }
        }
    }

    /// Whether the provider ever counted more than it takes.
    fn exceeded(&self) -> bool {
        let calls = usize::try_from(self.policy.calls).unwrap();
        let within = |from: i64, to: i64| self.counted.iter().filter(|at| (from..to).contains(at)).count();
        self.counted.iter().any(|call| match &self.policy.period {
            BudgetPeriod::Rolling24h => within(*call, call + DAY) > calls,
            BudgetPeriod::CalendarDay(zone) => {
                let (from, to) = frames::day(zone, *call);
                within(from, to) > calls
            }
        })
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let far = prop_oneof![Just(0), -90_000..90_000_i64, -300..300_i64, -400_000..400_000_i64];
    let step = prop_oneof![
        20 => (0..2_usize).prop_map(Step::Daemon),
        2 => (0..2_usize).prop_map(Step::Crash),
        8 => (0..30_i64).prop_map(Step::Pass),
        3 => (60..4000_i64).prop_map(Step::Pass),
        3 => (4000..90_000_i64).prop_map(Step::Pass),
        2 => far.prop_map(Step::SetClock),
        1 => Just(Step::Boot),
    ];
    prop::collection::vec(step, 20..200)
}

fn policies() -> impl Strategy<Value = BudgetPolicy> {
    let zones = prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Pacific/Auckland"]);
    let periods = prop_oneof![
        Just(BudgetPeriod::Rolling24h),
        zones.prop_map(|zone| BudgetPeriod::CalendarDay(TimeZone::get(zone).unwrap())),
    ];
    (1..4_u32, periods).prop_map(|(calls, period)| BudgetPolicy { calls, period })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn the_provider_never_counts_more_calls_than_it_takes(
        policy in policies(), skew in -50..50_i64, answers: bool, steps in steps()
    ) {
        let mut world = World::new(policy, skew * SECOND, answers);
        for step in &steps {
            world.step(step);
            prop_assert!(!world.exceeded(), "after {:?}: {:?}", step, world.counted);
        }
    }

    #[test]
    fn every_day_gets_its_call_unless_a_daemon_dies_after_the_first_byte(
        answers: bool, crashes in prop::collection::vec(0..4_usize, 30), hour in 1..22_i64,
        zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York"])
    ) {
        let zone = TimeZone::get(zone).unwrap();
        let policy = BudgetPolicy { calls: 1, period: BudgetPeriod::CalendarDay(zone.clone()) };
        let mut world = World::new(policy, 0, answers);
        for (day, crash) in crashes.iter().enumerate() {
            let start = frames::day(&zone, at("2026-03-28T12:00:00Z") + i64::try_from(day).unwrap() * DAY).0;
            world.time = start + hour * HOUR;
            // Dies after so many steps, of which the fourth would send; then another daemon comes.
            let before = world.counted.len();
            for _ in 0..*crash {
                world.step(&Step::Daemon(0));
                world.step(&Step::Pass(1));
            }
            world.step(&Step::Crash(0));
            for _ in 0..6 {
                world.step(&Step::Daemon(1));
                world.step(&Step::Pass(1));
            }
            let marked = *crash == 3;
            prop_assert_eq!(world.counted.len() - before, usize::from(!marked), "day {}", day);
        }
    }

    #[test]
    fn what_is_refused_is_allowed_at_the_moment_that_is_named(policy in policies(), steps in steps()) {
        let mut world = World::new(policy, 0, true);
        for step in &steps {
            world.step(step);
            let now = world.now();
            if let BudgetDecision::Refused { next_at, .. } = may_call(&world.ledger, &world.policy, &now) {
                let next = next_at.map(|next| now.later(next.0 - now.wall.0));
                let then = next.map(|next| may_call(&world.ledger, &world.policy, &next));
                prop_assert!(matches!(then, Some(BudgetDecision::Allowed { .. })), "{:?}", then);
            }
        }
    }
}
