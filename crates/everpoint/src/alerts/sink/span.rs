//! OpenTelemetry: a span without length for each message, so that alerts stand beside the traces of the jobs.

use super::{Failure, Sink};
use crate::alerts::message::Message;
use crate::trace::Traces;

pub(super) struct Spans(pub(super) Traces);

impl Sink for Spans {
    fn send(&self, message: &Message) -> Result<(), Failure> {
        let attributes = [
            ("everpoint.alert.kind", message.kind.as_str()),
            ("everpoint.alert.state", &message.state),
            ("everpoint.alert.subject", &message.subject),
            ("everpoint.alert.severity", &message.severity),
            ("everpoint.alert.message", &message.message),
        ];
        let span = self.0.span("alert", &attributes);
        span.end(if message.is_bad() { Err(&message.message) } else { Ok(()) });
        Ok(())
    }
}
