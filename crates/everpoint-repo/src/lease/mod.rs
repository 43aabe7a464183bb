//! Leases: who may do what only one may do at a time.
//!
//! A lease is a row of objects `leases/<id>/<n>`; the one with the highest number counts. Whoever creates number n+1
//! holds the lease: to take it, to renew it, or to mark it released. Creation is create-only, so of two who try, one
//! succeeds. Lower numbers are removed afterwards; a number that was overtaken is worth nothing, even to its maker.
//!
//! A lease has expired when its newest object is older than the time to live that it names. Both moments are the store's
//! own: the age is taken against a probe object written just then. No two hosts' clocks are compared. A holder on the
//! same machine whose process has died is noticed at once.

mod row;

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use everpoint_core::FailureClass;
use everpoint_format::records::LeaseRecord;

use self::row::{Claim, claim, holder_of, name, newest, row};
pub(crate) use self::row::{remove_row, state, store_now};
use crate::error::code;
use crate::object::{Shared, hex, random};
use crate::{RepoError, process};

/// How often acquisition starts anew when others change the lease meanwhile.
const ATTEMPTS: usize = 10;
/// A probe older than this was left by a crash.
const PROBE_AGE: Duration = Duration::from_secs(600);

/// Whether a lease is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseState {
    /// Nobody holds it.
    Free,
    /// Somebody does, and has not let it expire.
    Held {
        /// What the holder said of itself.
        holder: String,
    },
}

/// A held lease. Dropping it releases it as far as that is possible; else it expires.
pub struct Lease {
    shared: Arc<Shared>,
    id: String,
    record: LeaseRecord,
    state: Mutex<State>,
}

struct State {
    number: u32,
    valid_until: Instant,
    ended: bool,
}

impl Lease {
    pub(crate) fn acquire(
        shared: Arc<Shared>,
        id: &str,
        holder: &str,
        ttl: Duration,
    ) -> Result<Self, RepoError> {
        let record = LeaseRecord {
            holder: holder.to_owned(),
            token: hex(&random::<16>()?),
            ttl_millis: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
            released: false,
            host: process::mark().unwrap_or_default(),
            process: std::process::id(),
        };
        for _ in 0..ATTEMPTS {
            let newest = newest(&shared, id)?;
            if let Some(newest) = &newest
                && let Some(holder) = holder_of(&shared, id, newest, true)?
            {
                return Err(locked(id, &holder));
            }
            let number = newest.map_or(0, |newest| newest.number).saturating_add(1);
            let begun = Instant::now();
            if claim(&shared, id, number, &record)? != Claim::Taken {
                let state = Mutex::new(State { number, valid_until: later(begun, ttl), ended: false });
                let lease = Self { shared, id: id.to_owned(), record, state };
                lease.remove_below(number);
                return Ok(lease);
            }
        }
        Err(RepoError::new(code::LOCKED, "take the lock", id, "others take and release it all the time")
            .class(FailureClass::Locked)
            .retryable())
    }

    /// Extends the lease by its time to live.
    ///
    /// # Errors
    /// `repo.locked` if it was taken over meanwhile: the holder must stop what the lease allows. Another error, while
    /// [`Lease::is_valid`]: try again.
    pub fn renew(&self) -> Result<(), RepoError> {
        let mut state = self.state();
        if state.ended {
            return Err(lost(&self.id, "it has ended"));
        }
        let previous = state.number;
        let (number, begun) = loop {
            let (number, begun) = (state.number.saturating_add(1), Instant::now());
            match claim(&self.shared, &self.id, number, &self.record)? {
                Claim::Made => break (number, begun),
                // Its age is not known exactly: only one that is made now counts.
                Claim::Found => state.number = number,
                Claim::Taken => {
                    state.ended = true;
                    return Err(lost(&self.id, "another holder has taken it over"));
                }
            }
        };
        // Numbers below the newest may have been removed: what counts is that nobody is ahead.
        let highest = row(&self.shared, &self.id)?.numbers.iter().map(|(number, _)| *number).max();
        if highest.is_some_and(|highest| highest > number) {
            state.ended = true;
            let _ = self.shared.store.delete(&name(&self.id, number));
            return Err(lost(&self.id, "another holder has taken it over"));
        }
        state.number = number;
        state.valid_until = later(begun, self.ttl());
        drop(state);
        for old in previous..number {
            // What stays is removed by the next holder.
            let _ = self.shared.store.delete(&name(&self.id, old));
        }
        Ok(())
    }

    /// Gives the lease up, so that another can take it at once.
    ///
    /// # Errors
    /// If the store can't be changed: it expires then.
    pub fn release(self) -> Result<(), RepoError> {
        self.end()
    }

    /// Whether it certainly has not expired, by this process's own clock since the last renewal.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let state = self.state();
        !state.ended && Instant::now() < state.valid_until
    }

    /// How long it lasts after each renewal.
    #[must_use]
    pub const fn ttl(&self) -> Duration {
        Duration::from_millis(self.record.ttl_millis)
    }

    /// Renews it from a thread, three times within its time to live, until dropped.
    #[must_use]
    pub fn keep(self) -> KeptLease {
        let lease = Arc::new(self);
        let (stop, stopped) = mpsc::channel();
        let renewed = Arc::clone(&lease);
        let thread = std::thread::spawn(move || {
            let pause = renewed.ttl() / 3;
            while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                match renewed.renew() {
                    Ok(()) => {}
                    Err(error) if error.code == code::LOCKED => return,
                    Err(error) => {
                        tracing::warn!(
                            lease = renewed.id,
                            error = &error as &dyn std::error::Error,
                            "renewal failed"
                        );
                    }
                }
            }
        });
        KeptLease { lease, stop: Some(stop), thread: Some(thread) }
    }

    fn end(&self) -> Result<(), RepoError> {
        let mut state = self.state();
        if state.ended {
            return Ok(());
        }
        state.ended = true;
        // A marker, not a removal: numbers must never be used again.
        let number = state.number.saturating_add(1);
        let released = LeaseRecord { released: true, ..self.record.clone() };
        if claim(&self.shared, &self.id, number, &released)? != Claim::Taken {
            self.remove_below(number);
        }
        Ok(())
    }

    fn remove_below(&self, number: u32) {
        let Ok(row) = row(&self.shared, &self.id) else {
            return;
        };
        for (old, _) in row.numbers.iter().filter(|(old, _)| *old < number) {
            // What stays is removed by the next one.
            let _ = self.shared.store.delete(&name(&self.id, *old));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!(
                lease = self.id,
                error = &error as &dyn std::error::Error,
                "not released; it will expire"
            );
        }
    }
}

/// A lease that a thread renews until this is dropped.
pub struct KeptLease {
    lease: Arc<Lease>,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl KeptLease {
    /// Whether it is still held; see [`Lease::is_valid`].
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.lease.is_valid()
    }
}

impl Drop for KeptLease {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread is of no consequence here: the lease ends either way.
            let _ = thread.join();
        }
    }
}

fn later(begin: Instant, ttl: Duration) -> Instant {
    begin.checked_add(ttl).unwrap_or(begin)
}

fn locked(id: &str, holder: &str) -> RepoError {
    RepoError::new(code::LOCKED, "take the lock", id, format!("it is held by {holder}"))
        .class(FailureClass::Locked)
        .hint("wait until it has ended; a holder that has died loses its lock by itself")
}

fn lost(id: &str, why: &str) -> RepoError {
    RepoError::new(code::LOCKED, "renew the lock", id, why).class(FailureClass::Locked)
}
