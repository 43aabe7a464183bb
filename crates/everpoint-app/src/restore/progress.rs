//! Counts bytes and tells the caller ten times a second.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::{Event, Events};

/// See the module.
pub struct Meter<'a> {
    events: &'a dyn Events,
    total: u64,
    done: AtomicU64,
    written: AtomicU64,
    told: Mutex<Instant>,
}

impl<'a> Meter<'a> {
    /// A meter that ends at `total` bytes.
    #[must_use]
    pub fn new(events: &'a dyn Events, total: u64) -> Self {
        let (done, written) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { events, total, done, written, told: Mutex::new(Instant::now()) }
    }

    /// Bytes that had to be written.
    pub fn add(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
        self.skip(bytes);
    }

    /// Bytes that needed no writing: empty pages, or what was there already.
    pub fn skip(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if let Ok(mut told) = self.told.try_lock()
            && told.elapsed().as_millis() >= 100
        {
            *told = Instant::now();
            self.events.emit(Event::Progress { done, total: Some(self.total) });
        }
    }

    /// How many bytes were written.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }
}
