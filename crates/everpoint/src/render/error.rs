//! An error as text or as JSON.

use std::error::Error as _;

use everpoint_app::AppError;
use serde_json::json;

/// `error: cannot X Y: why`, then the causes below and what to do.
pub(crate) fn text(error: &AppError) -> String {
    let mut out = format!("error: {error}");
    for cause in causes(error) {
        out.push_str("\ncause: ");
        out.push_str(&cause);
    }
    if let Some(hint) = &error.hint {
        out.push_str("\nhint: ");
        out.push_str(hint);
    }
    out
}

/// `{"error": {…}}`.
pub(crate) fn json(error: &AppError) -> serde_json::Value {
    let causes = causes(error);
    json!({"error": {
        "code": error.code,
        "operation": error.operation,
        "object": error.object,
        "message": error.message,
        "cause": (!causes.is_empty()).then(|| causes.join(": ")),
        "hint": error.hint,
        "retryable": error.retryable,
    }})
}

/// The causes, the nearest first, without those that only say again what was said.
fn causes(error: &AppError) -> Vec<String> {
    let mut said = error.to_string();
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !said.contains(&text) {
            said.push_str(&text);
            causes.push(text);
        }
        next = cause.source();
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;
    use everpoint_core::FailureClass;

    fn sample() -> AppError {
        AppError::new("pg.connect", FailureClass::Failed, "connect to", "db1:5432", "it refused")
            .cause(std::io::Error::other("connection refused"))
            .hint("is it running?")
    }

    #[test]
    fn text_says_what_why_and_what_to_do() {
        let wanted =
            "error: cannot connect to db1:5432: it refused\ncause: connection refused\nhint: is it running?";
        assert_eq!(text(&sample()), wanted);
    }

    #[test]
    fn json_has_the_documented_fields() {
        let shown = json(&sample());
        let fields: Vec<&str> = shown["error"].as_object().unwrap().keys().map(String::as_str).collect();
        let mut wanted = ["code", "operation", "object", "message", "cause", "hint", "retryable"];
        wanted.sort_unstable();
        assert_eq!(fields, wanted);
        assert_eq!(shown["error"]["cause"], "connection refused");
        assert_eq!(shown["error"]["retryable"], false);
    }

    #[test]
    fn a_cause_that_repeats_is_left_out() {
        let error = AppError::io("read", std::path::Path::new("/x"), std::io::Error::other("boom"));
        assert_eq!(text(&error), "error: cannot read /x: boom");
        assert_eq!(json(&error)["error"]["cause"], serde_json::Value::Null);
    }
}
