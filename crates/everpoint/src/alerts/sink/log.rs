//! The process's own log.

use super::{Failure, Sink};
use crate::alerts::message::Message;

pub(super) struct Log;

impl Sink for Log {
    fn send(&self, message: &Message) -> Result<(), Failure> {
        let (line, text) = (message.line(), &message.message);
        if message.is_bad() {
            tracing::error!(alert = message.kind, state = message.state, "{line}: {text}");
        } else {
            tracing::info!(alert = message.kind, state = message.state, "{line}: {text}");
        }
        Ok(())
    }
}
