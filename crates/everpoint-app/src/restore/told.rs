//! What a restore warned of while it ran is in its report, too: who asks for that alone sees no events. Said once is enough.

use std::sync::{Mutex, PoisonError};

use super::RestoreOutcome;
use crate::{AppError, Event, Events};

/// Passes events on, and keeps the warnings.
pub(super) struct Told<'a> {
    inner: &'a dyn Events,
    /// The report that comes instead of a restore shows the warnings.
    held: bool,
    told: Mutex<Vec<String>>,
}

impl<'a> Told<'a> {
    pub(super) fn new(inner: &'a dyn Events, held: bool) -> Self {
        Self { inner, held, told: Mutex::default() }
    }

    /// The outcome with all that was told, once. Where there is none, what was held back is told now.
    pub(super) fn noted(self, outcome: Result<RestoreOutcome, AppError>) -> Result<RestoreOutcome, AppError> {
        let told = self.told.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut outcome = outcome.inspect_err(|_| {
            told.iter().filter(|_| self.held).for_each(|text| self.inner.emit(Event::Warning(text.clone())));
        })?;
        let warnings = match &mut outcome {
            RestoreOutcome::Done(report) => &mut report.warnings,
            RestoreOutcome::Plan(plan) => &mut plan.warnings,
        };
        for text in told {
            if !warnings.contains(&text) {
                warnings.push(text);
            }
        }
        Ok(outcome)
    }
}

impl Events for Told<'_> {
    fn emit(&self, event: Event) {
        if let Some(text) = event.warning() {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.contains(&text) {
                return;
            }
            told.push(text);
            if self.held {
                return;
            }
        }
        self.inner.emit(event);
    }
}
