//! A capture that would have to take the slot of another repository.

use std::time::{Duration, Instant};

use everpoint_core::{FailureClass, held_by};
use everpoint_engine::EngineError;

use super::Job;
use crate::{AppError, held};

/// The server may take so long to notice that a connection of ours has ended.
const OUR_OWN: Duration = Duration::from_secs(2);
/// The engine's error of a slot that is in use.
const IN_USE: &str = "pg.slot_in_use";

impl Job<'_> {
    /// Why it is not waited for the slot: somebody receives by it, and nothing of the server was ever stored here. `None`: there
    /// is no reason, or it may yet be a connection of ours.
    pub(super) fn held(&mut self, error: &EngineError, once: bool) -> Option<AppError> {
        let slot = self.options.slot.clone()?;
        if error.code != IN_USE || !self.never_stored || self.writer.written().bytes > 0 {
            return None;
        }
        let since = *self.refused.get_or_insert_with(Instant::now);
        if !once && since.elapsed() < OUR_OWN {
            return None;
        }
        let slots = self.context.engine.log_keeping().map(|keeping| keeping.slots).unwrap_or_default();
        let by = held_by(&slots, &slot).unwrap_or_else(|| format!("somebody else ({})", error.message));
        let (message, hint) = held::told(&self.context.name, &slot, &by);
        let error = AppError::new(held::CODE, FailureClass::Usage, "capture", &self.context.name, message);
        Some(error.hint(hint))
    }
}
