//! Whether it lives, whether it is ready, what it measures, what it can be asked.

use everpoint_app::AppError;
use everpoint_core::FailureClass;
use serde_json::json;

use crate::api::Api;
use crate::api::answer::{Answer, Content, Refusal};
use crate::api::call::Call;

/// The text format that every Prometheus reads.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(crate) fn alive(_api: &Api, call: Call) -> Result<Answer, Refusal> {
    call.finish()?;
    Answer::ok(&json!({"ok": true}))
}

/// Without reasons: nobody knows who asks.
pub(crate) fn ready(api: &Api, call: Call) -> Result<Answer, Refusal> {
    call.finish()?;
    if api.daemon.not_ready().is_empty() {
        return Answer::ok(&json!({"ok": true}));
    }
    let message = "not everything that is configured is being protected";
    let error = AppError::new("api.not_ready", FailureClass::Failed, "be", "ready", message);
    Err(Refusal::new(503, error.hint("see /backup/status")))
}

pub(crate) fn document(api: &Api, call: Call) -> Result<Answer, Refusal> {
    call.finish()?;
    Ok(Answer { status: 200, body: Content::Text("application/json", api.document.clone()) })
}

pub(crate) fn metrics(api: &Api, call: Call) -> Result<Answer, Refusal> {
    call.finish()?;
    Ok(Answer::text(METRICS, api.metrics.text()))
}
