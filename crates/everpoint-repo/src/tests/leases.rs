//! Leases.

use std::time::Duration;

use super::*;
use crate::{LeaseState, code};

const TTL: Duration = Duration::from_secs(30);

/// As if the holder ran on another machine: without a mark that could be judged here.
fn stranger(memory: &MemoryStore) -> crate::Lease {
    open(memory).lease("backup-shop", "stranger", TTL).unwrap()
}

#[test]
fn a_lease_is_held_renewed_and_released() {
    let (memory, repository) = fresh();
    let lease = stranger(&memory);
    assert!(lease.is_valid());
    let error = repository.lease("backup-shop", "other", TTL).err().unwrap();
    assert_eq!(error.code, code::LOCKED);
    assert!(error.to_string().contains("stranger"), "{error}");
    assert!(repository.lease("backup-mail", "other", TTL).is_ok(), "another lease");
    for _ in 0..5 {
        lease.renew().unwrap();
    }
    assert_eq!(
        repository.lease_state("backup-shop").unwrap(),
        LeaseState::Held { holder: "stranger".to_owned() }
    );
    lease.release().unwrap();
    assert_eq!(repository.lease_state("backup-shop").unwrap(), LeaseState::Free);
    drop(repository.lease("backup-shop", "other", TTL).unwrap());
    drop(repository.lease("backup-shop", "again", TTL).unwrap());
    let left = memory.names().into_iter().filter(|name| name.starts_with("leases/backup-shop/")).count();
    assert_eq!(left, 1, "only the newest number stays: {:?}", memory.names());
}

#[test]
fn a_lease_that_was_not_renewed_expires_by_the_stores_clock() {
    let (memory, repository) = fresh();
    let lease = stranger(&memory);
    memory.advance(20_000_000);
    assert!(repository.lease("backup-shop", "other", TTL).is_err());
    lease.renew().unwrap();
    memory.advance(20_000_000);
    assert!(repository.lease("backup-shop", "other", TTL).is_err());
    memory.advance(20_000_000);
    let taken = repository.lease("backup-shop", "other", TTL).unwrap();
    assert_eq!(lease.renew().unwrap_err().code, code::LOCKED, "the old holder notices");
    assert!(!lease.is_valid());
    taken.renew().unwrap();
    drop(lease);
    assert!(taken.is_valid());
    taken.renew().unwrap();
}

#[test]
fn a_late_holder_whose_numbers_were_removed_does_not_come_back() {
    let (memory, repository) = fresh();
    let late = stranger(&memory);
    for _ in 0..3 {
        memory.advance(60_000_000);
        let taken = repository.lease("backup-shop", "other", TTL).unwrap();
        taken.renew().unwrap();
        std::mem::forget(taken);
    }
    assert_eq!(late.renew().unwrap_err().code, code::LOCKED);
    assert!(!late.is_valid());
}

#[test]
fn of_many_who_want_a_lease_one_gets_it() {
    for _ in 0..20 {
        let (memory, _) = fresh();
        std::mem::forget(stranger(&memory));
        memory.advance(60_000_000);
        let held: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|number| {
                    let memory = &memory;
                    scope.spawn(move || open(memory).lease("backup-shop", &number.to_string(), TTL).ok())
                })
                .collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(held.len(), 1);
    }
}

#[test]
fn a_kept_lease_outlives_its_time() {
    let (_, repository) = fresh();
    let kept = repository.lease("backup-shop", "keeper", Duration::from_millis(300)).unwrap().keep();
    std::thread::sleep(Duration::from_millis(700));
    assert!(kept.is_valid());
    drop(kept);
    assert!(repository.lease("backup-shop", "other", TTL).is_ok());
}

#[test]
fn a_damaged_lease_counts_as_held_until_it_expires() {
    let (memory, repository) = fresh();
    std::mem::forget(stranger(&memory));
    assert!(memory.flip("leases/backup-shop/1", 100));
    assert!(repository.lease("backup-shop", "other", TTL).is_err());
    memory.advance(400_000_000);
    assert!(repository.lease("backup-shop", "other", TTL).is_ok());
}

#[test]
fn a_take_over_that_is_cut_off_leaves_at_most_one_holder_and_the_lease_can_be_taken_again() {
    let (memory, _) = fresh();
    std::mem::forget(stranger(&memory));
    memory.advance(60_000_000);
    at_every_step(
        &memory,
        &HONEST,
        |store| {
            let repository = Repository::open(store, Some(&key(1))).ok()?;
            let lease = repository.lease("backup-shop", "second", TTL).ok()?;
            let renewed = lease.renew().is_ok();
            // It dies here without releasing.
            std::mem::forget(lease);
            Some(renewed)
        },
        |memory, held, what| {
            let repository = open(memory);
            if held.is_some() {
                let error = repository.lease("backup-shop", "third", TTL).err().expect(what);
                assert!(error.to_string().contains("second"), "{what}: {error}");
            }
            memory.advance(60_000_000);
            repository.lease("backup-shop", "third", TTL).expect(what).renew().expect(what);
        },
    );
}

#[test]
fn a_renewal_that_fails_in_passing_can_be_repeated() {
    let (base, _) = fresh();
    at_every_step(
        &base,
        &[FaultKind::Fail, FaultKind::LoseAnswer],
        |store| {
            let repository = Repository::open(store, Some(&key(1))).ok()?;
            let lease = repository.lease("backup-shop", "me", TTL).ok()?;
            let renewed = (0..2).all(|_| lease.renew().or_else(|_| lease.renew()).is_ok());
            let valid = lease.is_valid();
            std::mem::forget(lease);
            Some((renewed, valid))
        },
        |memory, held, what| {
            assert!(held.is_none_or(|held| held == (true, true)), "{what}");
            memory.advance(20_000_000);
            assert_eq!(open(memory).lease("backup-shop", "other", TTL).is_err(), held.is_some(), "{what}");
        },
    );
}
