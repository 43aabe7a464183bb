//! The call budget against a provider that counts: random schedules of daemons, crashes, provider failures and clocks.
//!
//! `EVERPOINT_BUDGET_SCHEDULES=1000 EVERPOINT_BUDGET_SEED=7 cargo test -p everpoint-app --test offsite_budget` runs more.
//! The calls are real requests to the mock, which counts by its own clock whatever becomes of them. A crash is a store
//! that fails for good at some step, after which the daemon can do nothing more.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use everpoint_app::offsite::{CallContext, CallReport, Clock, Parcel, spend};
use everpoint_app::{AppError, Quiet};
use everpoint_core::{BootClock, BudgetPeriod, BudgetPolicy, ClockReading, Micros};
use everpoint_offsite::mock::{MockOptions, MockPeriod, MockServer};
use everpoint_offsite::{HttpOptions, HttpProvider};
use everpoint_repo::Repository;
use everpoint_store::{Fault, FaultKind, FaultyStore, MemoryStore, Store};
use jiff::tz::TimeZone;

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3600 * SECOND;

/// Xorshift: small, and the same everywhere for the same seed.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound.max(1)
    }

    fn seconds(&mut self, bound: u64) -> i64 {
        i64::try_from(self.below(bound)).unwrap() * SECOND
    }
}

#[derive(Clone)]
struct Machine {
    time: i64,
    offset: i64,
    boot: u32,
    booted: i64,
}

struct Clocks(Arc<Mutex<Machine>>);

impl Clock for Clocks {
    fn read(&self) -> ClockReading {
        let machine = self.0.lock().unwrap();
        let boot = BootClock { id: machine.boot.to_string(), elapsed: Micros(machine.time - machine.booted) };
        ClockReading { wall: Micros(machine.time + machine.offset), boot: Some(boot) }
    }
}

struct World {
    machine: Arc<Mutex<Machine>>,
    memory: MemoryStore,
    mock: MockServer,
    policy: BudgetPolicy,
    file: tempfile::NamedTempFile,
    _directory: tempfile::TempDir,
}

impl World {
    fn new(policy: BudgetPolicy, failure_rate: f64, seed: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let period = match &policy.period {
            BudgetPeriod::CalendarDay(zone) => MockPeriod::Day(zone.clone()),
            BudgetPeriod::Rolling24h => MockPeriod::Rolling,
        };
        let options = MockOptions {
            calls: policy.calls,
            period,
            failure_rate,
            seed,
            ..MockOptions::new(directory.path())
        };
        let mock = MockServer::start(&options).unwrap();
        let memory = MemoryStore::new();
        Repository::create(Arc::new(memory.clone()), None).unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[7; 1000]).unwrap();
        // Two days before clocks change in Europe.
        let time = "2026-03-27T20:00:00Z".parse::<jiff::Timestamp>().unwrap().as_microsecond();
        let machine = Machine { time, offset: 0, boot: 1, booted: time - HOUR };
        let world = Self {
            machine: Arc::new(Mutex::new(machine)),
            memory,
            mock,
            policy,
            file,
            _directory: directory,
        };
        world.pass(0);
        world
    }

    fn pass(&self, micros: i64) {
        let mut machine = self.machine.lock().unwrap();
        machine.time += micros;
        self.mock.set_now(Some(machine.time));
    }

    fn provider(&self) -> HttpProvider {
        HttpProvider::new(HttpOptions::mock(&format!("http://{}", self.mock.address()))).unwrap()
    }

    /// A daemon wants to make a call; its store may break.
    fn daemon(
        &self,
        name: &str,
        faults: Vec<Fault>,
        provider: &HttpProvider,
    ) -> Result<CallReport, AppError> {
        let store: Arc<dyn Store> = Arc::new(FaultyStore::new(Arc::new(self.memory.clone()), faults));
        let ledger = Repository::open(store, None)?.offsite("nightly")?;
        let clock = Clocks(Arc::clone(&self.machine));
        let context =
            CallContext { ledger: &ledger, provider, policy: &self.policy, clock: &clock, holder: "daemon" };
        let sha256 = "ab".repeat(32);
        let contents = serde_json::Map::new();
        let parcel = Parcel { path: self.file.path(), name, size: 1000, sha256: &sha256, contents };
        spend(&context, &parcel, &Quiet)
    }

    fn check(&self, what: &str) {
        let stats = self.mock.stats();
        let most = match self.policy.period {
            BudgetPeriod::CalendarDay(_) => stats.most_in_a_day,
            BudgetPeriod::Rolling24h => stats.most_in_24h,
        };
        assert!(most <= self.policy.calls && stats.refused == 0, "{what}: {stats:?}");
    }

    /// Whether the last call of this boot is in the ledger, so that a change of the clock shows.
    fn clock_is_watched(&self) -> bool {
        let ledger =
            Repository::open(Arc::new(self.memory.clone()), None).unwrap().offsite("nightly").unwrap();
        let boot = self.machine.lock().unwrap().boot.to_string();
        let calls = ledger.entries().unwrap();
        let last = calls.iter().filter_map(|entry| entry.sending.as_ref()).next_back();
        last.and_then(|sent| sent.boot.as_ref()).is_some_and(|last| last.id == boot)
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn schedule(seed: u64) -> u32 {
    let mut draw = Draw(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let zones = ["UTC", "Europe/Berlin", "America/New_York", "Pacific/Auckland"];
    let period = match draw.below(5) {
        4 => BudgetPeriod::Rolling24h,
        zone => BudgetPeriod::CalendarDay(TimeZone::get(zones[usize::try_from(zone).unwrap()]).unwrap()),
    };
    let calls = u32::try_from(1 + draw.below(2)).unwrap();
    let world = World::new(BudgetPolicy { calls, period }, 0.3, seed);
    let provider = world.provider();
    let mut wrong = false;
    for step in 0..30 {
        let what = format!("seed {seed}, step {step}");
        match draw.below(10) {
            0 if world.clock_is_watched() => {
                let offset = draw.seconds(200_000) - 100_000 * SECOND;
                world.machine.lock().unwrap().offset = if draw.below(2) == 0 { 0 } else { offset };
                wrong |= world.machine.lock().unwrap().offset != 0;
            }
            // A boot hides that the clock was wrong before: nobody could know.
            1 if !wrong => {
                let mut machine = world.machine.lock().unwrap();
                machine.boot += 1;
                machine.booted = machine.time;
            }
            2 | 3 => world.pass(draw.seconds(30_000)),
            4 => world.pass(draw.seconds(90_000)),
            _ => {
                let mut faults = || {
                    let kinds = [
                        FaultKind::CrashBefore,
                        FaultKind::CrashAfter,
                        FaultKind::LoseAnswer,
                        FaultKind::Fail,
                    ];
                    let kind = kinds[usize::try_from(draw.below(4)).unwrap()];
                    let fault = Fault { step: 1 + draw.below(20), kind };
                    if draw.below(2) == 0 { vec![fault] } else { Vec::new() }
                };
                let (first, second) = (faults(), faults());
                std::thread::scope(|scope| {
                    // Refusals and failures are part of the trial: what counts is what the provider counted.
                    scope.spawn(|| drop(world.daemon(&format!("a{step}"), first, &provider)));
                    scope.spawn(|| drop(world.daemon(&format!("b{step}"), second, &provider)));
                });
                world.pass(SECOND);
            }
        }
        world.check(&what);
    }
    u32::try_from(world.mock.stats().uploads.len()).unwrap()
}

#[test]
fn the_provider_never_counts_more_calls_than_it_takes() {
    let (count, seed) = (setting("EVERPOINT_BUDGET_SCHEDULES", 40), setting("EVERPOINT_BUDGET_SEED", 1));
    let calls: u32 = (seed..seed + count).map(schedule).sum();
    assert!(u64::from(calls) >= count, "calls were made at all: {calls} in {count} schedules");
}

#[test]
fn every_day_gets_its_call_though_daemons_die_before_the_first_byte_and_the_provider_is_away_at_first() {
    let zone = TimeZone::get("Europe/Berlin").unwrap();
    let world = World::new(BudgetPolicy { calls: 1, period: BudgetPeriod::CalendarDay(zone) }, 0.0, 1);
    let (provider, away) =
        (world.provider(), HttpProvider::new(HttpOptions::mock("http://127.0.0.1:9")).unwrap());
    for day in 0..5_u64 {
        let crash = Fault { step: 1 + day, kind: FaultKind::CrashBefore };
        drop(world.daemon(&format!("c{day}"), vec![crash], &away));
        let error = world.daemon(&format!("d{day}"), Vec::new(), &away).unwrap_err();
        assert_eq!((&*error.code, error.retryable), ("offsite.unreachable", true), "{error}");
        let report = world.daemon(&format!("e{day}"), Vec::new(), &provider).unwrap();
        assert!(report.recorded && report.provider_date.is_some());
        let error = world.daemon(&format!("f{day}"), Vec::new(), &provider).unwrap_err();
        assert_eq!((&*error.code, error.class.exit_code()), ("offsite.budget_spent", 5));
        assert!(error.message.contains("the next call is allowed at 2026-03-"), "{error}");
        world.pass(24 * HOUR);
    }
    assert_eq!(world.mock.stats().uploads.len(), 5);
}

#[test]
fn a_call_without_an_answer_is_spent_and_not_known_to_have_arrived() {
    let world = World::new(BudgetPolicy { calls: 1, period: BudgetPeriod::Rolling24h }, 1.0, 3);
    let provider = world.provider();
    let error = world.daemon("a", Vec::new(), &provider).unwrap_err();
    assert!(error.hint.as_ref().is_some_and(|hint| hint.contains("call 1")), "{error:?}");
    assert_eq!(world.daemon("b", Vec::new(), &provider).unwrap_err().code, "offsite.budget_spent");
    world.pass(24 * HOUR + Duration::from_secs(300).as_micros() as i64);
    drop(world.daemon("c", Vec::new(), &provider));
    assert_eq!(world.mock.stats().uploads.len(), 2);
    world.check("a day later");
}
