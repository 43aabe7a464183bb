//! What a restore warned of while it ran is in its report, too: who asks for that alone sees no events.

use std::sync::{Mutex, PoisonError};

use super::RestoreOutcome;
use crate::{Event, Events};

/// Passes events on, and keeps the warnings.
pub(super) struct Told<'a> {
    inner: &'a dyn Events,
    told: Mutex<Vec<String>>,
}

impl<'a> Told<'a> {
    pub(super) fn new(inner: &'a dyn Events) -> Self {
        Self { inner, told: Mutex::default() }
    }

    /// The outcome with all that was told, once.
    pub(super) fn noted(self, mut outcome: RestoreOutcome) -> RestoreOutcome {
        let warnings = match &mut outcome {
            RestoreOutcome::Done(report) => &mut report.warnings,
            RestoreOutcome::Plan(plan) => &mut plan.warnings,
        };
        for text in self.told.into_inner().unwrap_or_else(PoisonError::into_inner) {
            if !warnings.contains(&text) {
                warnings.push(text);
            }
        }
        outcome
    }
}

impl Events for Told<'_> {
    fn emit(&self, event: Event) {
        if let Some(text) = event.warning() {
            self.told.lock().unwrap_or_else(PoisonError::into_inner).push(text);
        }
        self.inner.emit(event);
    }
}
