//! Clears up calls whose process died: the provider knows whether the file arrived.

use everpoint_core::budget::SEND_WITHIN;
use everpoint_core::{CallStatus, ClockReading};
use everpoint_format::offsite::{ClockRecord, OffsiteOutcome};
use everpoint_repo::OffsiteCall;

use super::CallContext;
use crate::{AppError, Event, Events};

/// Writes down what arrived although nobody was there to see it, if the provider can be asked for free. What it does not
/// have counts as spent all the same, and may still be on its way.
pub(super) fn settle(ctx: &CallContext<'_>, events: &dyn Events) -> Result<(), AppError> {
    let open = |call: &OffsiteCall| call.is_upload() && call.sending.is_some() && call.outcome.is_none();
    let calls: Vec<OffsiteCall> = ctx.ledger.calls()?.into_iter().filter(open).collect();
    if calls.is_empty() || !ctx.provider.asks() {
        return Ok(());
    }
    let Ok(Some(entries)) = ctx.provider.list() else { return Ok(()) };
    for call in calls {
        let Some(sending) = call.sending else { continue };
        if !entries.iter().any(|entry| entry.name == sending.name && entry.size == Some(sending.size)) {
            continue;
        }
        // When it ended is not known. It counts for no later day than without an outcome.
        let ended = ClockReading::from(&sending.clock).later(SEND_WITHIN.0);
        let outcome = OffsiteOutcome {
            status: OffsiteOutcome::word(CallStatus::Arrived).to_owned(),
            clock: ClockRecord::from(&ended),
            provider_date: None,
            message: "its process did not see how it ended; the provider has it".to_owned(),
            name: sending.name.clone(),
            size: sending.size,
            sha256: sending.sha256,
            contents: sending.contents,
        };
        if ctx.ledger.outcome(call.number, &outcome)? {
            events.emit(Event::Info(format!("call {} had arrived: {}", call.number, sending.name)));
        }
    }
    Ok(())
}
