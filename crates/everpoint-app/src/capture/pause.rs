//! Pauses between attempts.

use std::time::{Duration, Instant};

use everpoint_engine::{EngineError, StopFlag};
use everpoint_repo::code;

use crate::{Event, Events};

/// Pauses between attempts grow from the first to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Waits longer from attempt to attempt.
pub(super) struct Pause<'a> {
    stop: &'a StopFlag,
    next: Duration,
    told: Option<String>,
}

impl<'a> Pause<'a> {
    pub(super) const fn new(stop: &'a StopFlag) -> Self {
        Self { stop, next: PAUSES.0, told: None }
    }

    pub(super) fn reset(&mut self) {
        (self.next, self.told) = (PAUSES.0, None);
    }

    /// Tells an error, each once, and waits. False if it was asked to stop meanwhile.
    pub(super) fn after(&mut self, error: &EngineError, events: &dyn Events) -> bool {
        let words = error.to_string();
        if self.told.as_ref() != Some(&words) {
            events.emit(Event::Warning(format!("{words}; trying again until it works")));
            self.told = Some(words.clone());
        }
        events.emit(Event::Failing { why: words, full: error.code == code::FULL });
        let until = Instant::now() + self.next;
        self.next = self.next.saturating_mul(2).min(PAUSES.1);
        while Instant::now() < until {
            if self.stop.is_set() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }
}
