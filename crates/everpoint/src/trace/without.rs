//! Built without traces: nothing is kept.

use everpoint_app::AppError;

use crate::config::otel::OtelConfig;

#[derive(Clone)]
pub(crate) struct Traces;

pub(crate) struct Span;

impl Traces {
    pub(crate) fn start(config: &OtelConfig) -> Result<Self, AppError> {
        if config.endpoint.is_some() {
            tracing::warn!("this everpoint was built without OpenTelemetry: [otel] is not used");
        }
        Ok(Self)
    }

    pub(crate) fn span(&self, _name: &'static str, _attributes: &[(&'static str, &str)]) -> Span {
        Span
    }

    pub(crate) fn end(&self) {}
}

impl Span {
    pub(crate) fn event(&self, _text: &str) {}

    pub(crate) fn end(self, _result: Result<(), &str>) {}
}
