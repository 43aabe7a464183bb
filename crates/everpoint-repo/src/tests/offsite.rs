//! The ledger of calls.

use std::sync::atomic::{AtomicUsize, Ordering};

use everpoint_core::{BootClock, ClockReading, Micros};
use everpoint_format::offsite::{ClockRecord, OffsiteClaim, OffsiteOutcome, OffsiteSending};

use super::*;
use crate::OffsiteLedger;

fn clock(wall: i64) -> ClockRecord {
    let boot = BootClock { id: "b".to_owned(), elapsed: Micros(wall / 2) };
    ClockRecord::from(&ClockReading { wall: Micros(wall), boot: Some(boot) })
}

fn claim(token: &str) -> OffsiteClaim {
    OffsiteClaim {
        clock: clock(10),
        holder: "test".to_owned(),
        host: "here".to_owned(),
        process: 1,
        token: token.to_owned(),
        name: "package".to_owned(),
    }
}

fn sending(token: &str) -> OffsiteSending {
    OffsiteSending {
        clock: clock(20),
        host: "here".to_owned(),
        process: 1,
        token: token.to_owned(),
        name: "package".to_owned(),
        size: 3,
        sha256: "ab".repeat(32),
        request: String::new(),
        contents: Default::default(),
    }
}

fn outcome(status: &str) -> OffsiteOutcome {
    OffsiteOutcome {
        status: status.to_owned(),
        clock: clock(30),
        provider_date: Some(31),
        message: String::new(),
        name: "package".to_owned(),
        size: 3,
        sha256: "ab".repeat(32),
        contents: Default::default(),
    }
}

#[test]
fn a_call_is_found_again_step_by_step() {
    let (memory, repository) = fresh();
    let ledger = repository.offsite("nightly").unwrap();
    assert!(ledger.calls().unwrap().is_empty());
    assert!(ledger.claim(1, &claim("a")).unwrap());
    assert!(ledger.entries().unwrap()[0].is_open());
    assert!(ledger.sending(1, &sending("a")).unwrap());
    assert!(ledger.entries().unwrap()[0].is_spent());
    assert!(ledger.last_arrived().unwrap().is_none());
    assert!(ledger.outcome(1, &outcome("arrived")).unwrap());
    assert!(ledger.claim(2, &claim("b")).unwrap());
    let reopened = open(&memory).offsite("nightly").unwrap();
    assert_eq!(reopened.last_arrived().unwrap().unwrap().number, 1);
    let entries = reopened.entries().unwrap();
    assert_eq!(entries.iter().map(|entry| entry.number).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(entries[0].outcome.as_ref().unwrap().provider_date, Some(Micros(31)));
    assert!(open(&memory).offsite("other").unwrap().calls().unwrap().is_empty());
    assert!(repository.offsite("a/b").is_err());
}

#[test]
fn each_step_is_taken_once() {
    let (_, repository) = fresh();
    let taken = [AtomicUsize::new(0), AtomicUsize::new(0)];
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let ledger = repository.offsite("nightly").unwrap();
                let token = OffsiteLedger::token().unwrap();
                for (count, won) in taken.iter().zip([
                    ledger.claim(1, &claim(&token)).unwrap(),
                    ledger.sending(1, &sending(&token)).unwrap(),
                ]) {
                    count.fetch_add(usize::from(won), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(taken.map(AtomicUsize::into_inner), [1, 1]);
}

#[test]
fn a_crash_at_any_write_leaves_each_step_taken_or_free() {
    for kind in [FaultKind::LoseAnswer, FaultKind::Fail] {
        let memory = MemoryStore::new();
        Repository::create(store_of(&memory), Some(&key(1))).unwrap();
        for step in 0..12 {
            let faulty: Arc<dyn Store> =
                Arc::new(FaultyStore::new(store_of(&memory), vec![Fault { step, kind }]));
            let Ok(repository) = Repository::open(faulty, Some(&key(1))) else { continue };
            let ledger = repository.offsite(&format!("{step}")).unwrap();
            let own = ledger.claim(1, &claim("a")).and_then(|_| ledger.sending(1, &sending("a")));
            let other = open(&memory).offsite(&format!("{step}")).unwrap();
            let taken = other.sending(1, &sending("b")).unwrap();
            assert!(!(taken && matches!(own, Ok(true))), "step {step}: both may send");
        }
    }
}

#[test]
fn ones_own_record_is_known_and_anothers_is_too() {
    let (_, repository) = fresh();
    let ledger = repository.offsite("nightly").unwrap();
    assert!(ledger.claim(1, &claim("a")).unwrap());
    assert!(ledger.claim(1, &claim("a")).unwrap(), "one's own");
    assert!(!ledger.claim(1, &claim("b")).unwrap(), "another's");
}
