//! OpenTelemetry traces: a span for each job and each request that does something, sent to a collector over OTLP/HTTP.

#[cfg(feature = "otel")]
mod otlp;
#[cfg(not(feature = "otel"))]
mod without;

#[cfg(feature = "otel")]
pub(crate) use otlp::{Span, Traces};
#[cfg(not(feature = "otel"))]
pub(crate) use without::{Span, Traces};

use everpoint_app::{Event, Events};

/// Passes events on, and notes the steps and warnings in a span.
pub(crate) struct Traced<'a> {
    inner: &'a dyn Events,
    span: &'a Span,
}

impl<'a> Traced<'a> {
    pub(crate) fn new(inner: &'a dyn Events, span: &'a Span) -> Self {
        Self { inner, span }
    }
}

impl Events for Traced<'_> {
    fn emit(&self, event: Event) {
        match &event {
            Event::Step(text) | Event::Info(text) => self.span.event(text),
            Event::Warning(_) | Event::Gap { .. } => {
                self.span.event(&format!("warning: {}", event.warning().unwrap_or_default()));
            }
            Event::Progress { .. }
            | Event::Captured { .. }
            | Event::Failing { .. }
            | Event::Replaying { .. } => {}
        }
        self.inner.emit(event);
    }
}
