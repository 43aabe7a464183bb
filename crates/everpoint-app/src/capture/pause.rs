//! Pauses between attempts.

use std::time::{Duration, Instant};

use everpoint_core::{Repeats, Say, pattern};
use everpoint_engine::{EngineError, StopFlag};
use everpoint_repo::code;

use crate::{Event, Events, text};

/// Pauses between attempts grow from the first to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Waits longer from attempt to attempt.
pub(super) struct Pause<'a> {
    stop: &'a StopFlag,
    next: Duration,
    /// What comes and goes is told no more often than what stays.
    told: Repeats<String>,
}

impl<'a> Pause<'a> {
    pub(super) fn new(stop: &'a StopFlag) -> Self {
        Self { stop, next: PAUSES.0, told: Repeats::default() }
    }

    pub(super) const fn reset(&mut self) {
        self.next = PAUSES.0;
    }

    /// Tells an error, each once and then at intervals, and waits. False if it was asked to stop meanwhile.
    pub(super) fn after(&mut self, error: &EngineError, events: &dyn Events) -> bool {
        let words = error.to_string();
        match self.told.seen(pattern(&words), text::now()) {
            Say::First => events.emit(Event::Warning(format!("{words}; trying again until it works"))),
            Say::Again { times, since } => {
                let since = text::time(since);
                events.emit(Event::Warning(format!("{words}; {times} times since {since}, trying again")));
            }
            Say::Nothing => {}
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Heard;

    #[test]
    fn a_connection_that_breaks_again_and_again_is_told_once() {
        let (stop, heard) = (StopFlag::default(), Heard::default());
        let mut pause = Pause::new(&stop);
        for number in 0..6 {
            let error =
                EngineError::new("x", "read", "the stream", format!("it broke at 0/{number}")).retryable();
            pause.after(&error, &heard);
            pause.reset();
        }
        assert_eq!(heard.warnings().len(), 1, "{:?}", heard.warnings());
    }
}
