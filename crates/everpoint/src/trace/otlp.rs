//! Spans sent in batches by a thread of their own: a collector that does not answer costs nobody anything.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use everpoint_app::AppError;
use everpoint_core::FailureClass;
use opentelemetry::KeyValue;
use opentelemetry::trace::{Span as _, SpanKind, Status, Tracer as _, TracerProvider as _};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

use crate::config::otel::OtelConfig;

/// Where the standard says that traces go, below the address of a collector.
const PATH: &str = "/v1/traces";
/// How long the last batch may take at the end.
const END: Duration = Duration::from_secs(3);
/// Variables that name a collector.
const VARIABLES: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// Makes spans; none if there is no collector.
#[derive(Clone)]
pub(crate) struct Traces {
    open: Option<(SdkTracerProvider, SdkTracer)>,
}

/// Something that takes time. Ended when dropped.
pub(crate) struct Span(Option<Mutex<opentelemetry_sdk::trace::Span>>);

impl Traces {
    /// Connects to the collector of the configuration, or of the standard's environment variables.
    ///
    /// # Errors
    /// Class `Usage`: its address can't be used.
    pub(crate) fn start(config: &OtelConfig) -> Result<Self, AppError> {
        let by_variable =
            VARIABLES.iter().any(|name| std::env::var(name).is_ok_and(|value| !value.is_empty()));
        if config.endpoint.is_none() && !by_variable {
            return Ok(Self { open: None });
        }
        let mut exporter = SpanExporter::builder().with_http();
        if let Some(endpoint) = &config.endpoint {
            exporter = exporter.with_endpoint(full(endpoint));
        }
        // The address is not repeated, and neither is what says it again: it may hold a password.
        let exporter = exporter.build().map_err(|_| {
            let place = match config.endpoint {
                Some(_) => "the endpoint of [otel]".to_owned(),
                None => VARIABLES.join(" or "),
            };
            let message = "it is no address of a collector";
            AppError::new("config.otel", FailureClass::Usage, "send traces to", place, message)
                .hint("write it like http://localhost:4318")
        })?;
        let resource = Resource::builder()
            .with_service_name(config.service_name.clone())
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
        let tracer = provider.tracer("everpoint");
        Ok(Self { open: Some((provider, tracer)) })
    }

    /// Begins a span.
    pub(crate) fn span(&self, name: &'static str, attributes: &[(&'static str, &str)]) -> Span {
        let span = self.open.as_ref().map(|(_, tracer)| {
            let attributes = attributes.iter().map(|(key, value)| KeyValue::new(*key, (*value).to_owned()));
            let builder = tracer.span_builder(name).with_kind(SpanKind::Internal);
            Mutex::new(builder.with_attributes(attributes).start(tracer))
        });
        Span(span)
    }

    /// Sends what is left.
    pub(crate) fn end(&self) {
        if let Some((provider, _)) = &self.open
            && let Err(error) = provider.shutdown_with_timeout(END)
        {
            tracing::debug!("the last traces were not sent: {error}");
        }
    }
}

fn full(endpoint: &str) -> String {
    if endpoint.ends_with(PATH) {
        endpoint.to_owned()
    } else {
        endpoint.trim_end_matches('/').to_owned() + PATH
    }
}

impl Span {
    /// Something happened within.
    pub(crate) fn event(&self, text: &str) {
        if let Some(span) = &self.0 {
            span.lock().unwrap_or_else(PoisonError::into_inner).add_event(text.to_owned(), Vec::new());
        }
    }

    /// Ends it, well or with a reason.
    pub(crate) fn end(self, result: Result<(), &str>) {
        if let Some(span) = self.0 {
            let mut span = span.into_inner().unwrap_or_else(PoisonError::into_inner);
            span.set_status(match result {
                Ok(()) => Status::Ok,
                Err(message) => Status::error(message.to_owned()),
            });
            span.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_collector_is_completed() {
        assert_eq!(full("http://c:4318"), "http://c:4318/v1/traces");
        assert_eq!(full("http://c:4318/"), "http://c:4318/v1/traces");
        assert_eq!(full("http://c:4318/v1/traces"), "http://c:4318/v1/traces");
    }
}
