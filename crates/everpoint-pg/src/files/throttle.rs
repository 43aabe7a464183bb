//! Keeps the reading of all threads together under a rate.

use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Bytes per second, shared by threads.
#[derive(Debug)]
pub(super) struct Throttle {
    rate: Option<u64>,
    /// When the bytes promised so far will have been due.
    due: Mutex<Instant>,
}

impl Throttle {
    pub(super) fn new(rate: Option<u64>) -> Self {
        Self { rate: rate.filter(|rate| *rate > 0), due: Mutex::new(Instant::now()) }
    }

    /// Waits until `bytes` more may be read.
    pub(super) fn wait(&self, bytes: usize) {
        let Some(rate) = self.rate else { return };
        let cost = Duration::from_secs_f64(bytes as f64 / rate as f64);
        let now = Instant::now();
        let until = {
            let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            // Time that nobody used is not saved up.
            *due = (*due).max(now) + cost;
            *due
        };
        sleep(until.saturating_duration_since(now));
    }
}
