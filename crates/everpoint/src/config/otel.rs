//! `[otel]`: where traces go.

use super::Variables;
use super::mistake::Mistake;
use super::section::{At, Section};

/// `[otel]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OtelConfig {
    /// Address of a collector that speaks OTLP over HTTP; `None`: `$OTEL_EXPORTER_OTLP_ENDPOINT`, else no traces.
    pub(crate) endpoint: Option<String>,
    /// Name under which the traces appear.
    pub(crate) service_name: String,
}

impl Default for OtelConfig {
    fn default() -> Self {
        Self { endpoint: None, service_name: "everpoint".to_owned() }
    }
}

impl OtelConfig {
    pub(super) fn read(section: &mut Section<'_>, variables: Variables<'_>) -> Self {
        let default = Self::default();
        let endpoint = section.expanded("endpoint", variables);
        if let Some(At { at, .. }) = endpoint.as_ref().filter(|endpoint| endpoint.value.contains('@')) {
            let mistake = Mistake::new(at.clone(), "`endpoint` can't hold a user or a password");
            section.mistake(mistake.hint("give what the collector asks for in $OTEL_EXPORTER_OTLP_HEADERS"));
        }
        Self {
            endpoint: endpoint.map(|text| text.value),
            service_name: section.text("service_name").map_or(default.service_name, |text| text.value),
        }
    }
}
