//! The objects of a lease: which counts, whose it is, and whether it has expired.

use std::ops::ControlFlow;
use std::time::Duration;

use everpoint_core::FailureClass;
use everpoint_format::records::LeaseRecord;
use everpoint_format::seal::ObjectKind;
use everpoint_store::StoreErrorKind;

use super::{ATTEMPTS, LeaseState, PROBE_AGE};
use crate::error::code;
use crate::object::{Shared, format_error, hex, random};
use crate::{RepoError, names, process};

/// The newest object of a lease.
pub(super) struct Newest {
    pub(super) number: u32,
    modified: i64,
    record: Option<LeaseRecord>,
}

/// What stands under a lease's prefix.
#[derive(Default)]
pub(super) struct Row {
    pub(super) numbers: Vec<(u32, i64)>,
    probes: Vec<(String, i64)>,
}

/// Removes a lease whose id is never used again.
pub(crate) fn remove_row(shared: &Shared, id: &str) -> Result<(), RepoError> {
    for (number, _) in row(shared, id)?.numbers {
        shared.store.delete(&name(id, number))?;
    }
    Ok(())
}

/// Whether somebody holds it.
pub(crate) fn state(shared: &Shared, id: &str) -> Result<LeaseState, RepoError> {
    let holder = match newest(shared, id)? {
        Some(newest) => holder_of(shared, id, &newest, false)?,
        None => None,
    };
    Ok(holder.map_or(LeaseState::Free, |holder| LeaseState::Held { holder }))
}

/// Whose a number is after we tried to create it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// Ours, made just now.
    Made,
    /// Ours, made by an earlier call whose answer was lost.
    Found,
    /// Another's.
    Taken,
}

/// Creates number `number`. An answer that was lost is looked up.
pub(super) fn claim(
    shared: &Shared,
    id: &str,
    number: u32,
    record: &LeaseRecord,
) -> Result<Claim, RepoError> {
    let name = name(id, number);
    let Err(error) = shared.put(&name, ObjectKind::Lease, &record.encode()) else {
        return Ok(Claim::Made);
    };
    let taken = error.code == code::EXISTS;
    if !taken && !error.retryable {
        return Err(error);
    }
    match read(shared, &name) {
        Ok(Some(found)) if found == *record => Ok(if taken { Claim::Found } else { Claim::Made }),
        Ok(_) if taken => Ok(Claim::Taken),
        Err(unreadable) if taken && unreadable.is_damaged() => Ok(Claim::Taken),
        Err(unreadable) if taken => Err(unreadable),
        Ok(Some(_)) => Ok(Claim::Taken),
        _ => Err(error),
    }
}

fn read(shared: &Shared, name: &str) -> Result<Option<LeaseRecord>, RepoError> {
    let Some(bytes) = shared.get(name, ObjectKind::Lease)? else {
        return Ok(None);
    };
    LeaseRecord::decode(&bytes).map(Some).map_err(|error| format_error("read", name, error))
}

pub(super) fn row(shared: &Shared, id: &str) -> Result<Row, RepoError> {
    let prefix = format!("leases/{id}/");
    let mut row = Row::default();
    shared.store.list(&prefix, None, &mut |info| {
        let part = info.name.strip_prefix(&prefix).unwrap_or_default();
        match names::parse_number(part) {
            Some(number) => row.numbers.push((number, info.modified_micros)),
            None => row.probes.push((info.name, info.modified_micros)),
        }
        ControlFlow::Continue(())
    })?;
    Ok(row)
}

/// The newest object with its content. One that can't be read counts as held by a stranger until it expires.
pub(super) fn newest(shared: &Shared, id: &str) -> Result<Option<Newest>, RepoError> {
    for _ in 0..ATTEMPTS {
        let Some((number, modified)) = row(shared, id)?.numbers.into_iter().max() else {
            return Ok(None);
        };
        match read(shared, &name(id, number)) {
            Ok(Some(record)) => {
                return Ok(Some(Newest { number, modified, record: Some(record) }));
            }
            // Overtaken and removed since it was listed.
            Ok(None) => {}
            Err(error) if error.is_damaged() => {
                return Ok(Some(Newest { number, modified, record: None }));
            }
            Err(error) => return Err(error),
        }
    }
    Err(RepoError::new(code::LOCKED, "look up the lock", id, "it changes all the time")
        .class(FailureClass::Locked)
        .retryable())
}

/// Who holds it now; `None` if nobody does. `exact`: fail rather than guess where no probe can be written.
pub(super) fn holder_of(
    shared: &Shared,
    id: &str,
    newest: &Newest,
    exact: bool,
) -> Result<Option<String>, RepoError> {
    /// For a lease that can't be read.
    const UNKNOWN_TTL: Duration = Duration::from_secs(300);
    let record = newest.record.as_ref();
    if record.is_some_and(|record| record.released || process::is_dead(&record.host)) {
        return Ok(None);
    }
    let holder =
        || record.map_or_else(|| "somebody (its record is damaged)".to_owned(), |found| found.holder.clone());
    let now = match store_now(shared, id) {
        Ok(now) => now,
        Err(_) if !exact => return Ok(Some(holder())),
        Err(error) => return Err(error),
    };
    let ttl = record.map_or(UNKNOWN_TTL, |found| Duration::from_millis(found.ttl_millis));
    let age = Duration::from_micros(u64::try_from(now.saturating_sub(newest.modified)).unwrap_or_default());
    // Stores stamp whole seconds: a second more than needed never takes a lease that is alive.
    let expired = age > ttl.saturating_add(Duration::from_secs(1));
    Ok((!expired).then(holder))
}

/// What the store's clock says: the time of an object written just now.
pub(crate) fn store_now(shared: &Shared, id: &str) -> Result<i64, RepoError> {
    let probe = format!("leases/{id}/probe-{}", hex(&random::<8>()?));
    match shared.store.put_new(&probe, &[]) {
        Err(error) if error.kind != StoreErrorKind::AlreadyExists => return Err(error.into()),
        _ => {}
    }
    let found = shared.store.head(&probe);
    let _ = shared.store.delete(&probe);
    let now = found?.map(|info| info.modified_micros).ok_or_else(|| {
        RepoError::new(code::UNAVAILABLE, "ask the clock of", "the store", "an object just written is gone")
            .retryable()
    })?;
    let limit = i64::try_from(PROBE_AGE.as_micros()).unwrap_or(i64::MAX);
    for (old, _) in row(shared, id)?.probes.iter().filter(|(_, at)| now.saturating_sub(*at) > limit) {
        let _ = shared.store.delete(old);
    }
    Ok(now)
}

pub(super) fn name(id: &str, number: u32) -> String {
    format!("leases/{id}/{number}")
}
