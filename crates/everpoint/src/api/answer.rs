//! What goes back: a report, or an error of the same shape as that of the command line.

use axum::body::Body;
use axum::http::{HeaderValue, Response, header};
use everpoint_app::AppError;
use everpoint_core::FailureClass;
use serde::Serialize;
use serde_json::{Value, json};

use crate::render::error;

/// What an endpoint says.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Content,
}

/// Its content.
#[derive(Debug)]
pub(crate) enum Content {
    Json(Value),
    /// Media type and text.
    Text(&'static str, String),
}

impl Answer {
    /// 200 with a report.
    pub(crate) fn ok(report: &impl Serialize) -> Result<Self, Refusal> {
        Self::with(200, report)
    }

    /// A report with this status.
    pub(crate) fn with(status: u16, report: &impl Serialize) -> Result<Self, Refusal> {
        let body = serde_json::to_value(report).map_err(|error| {
            let made =
                AppError::new("internal", FailureClass::Failed, "write", "the answer", error.to_string());
            Refusal::new(500, made)
        })?;
        Ok(Self { status, body: Content::Json(body) })
    }

    pub(crate) fn text(kind: &'static str, text: String) -> Self {
        Self { status: 200, body: Content::Text(kind, text) }
    }

    pub(crate) fn response(self) -> Response<Body> {
        let (kind, text) = match self.body {
            Content::Json(value) => ("application/json", value.to_string()),
            Content::Text(kind, text) => (kind, text),
        };
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = status(self.status);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }
}

fn status(code: u16) -> axum::http::StatusCode {
    axum::http::StatusCode::from_u16(code).unwrap_or(axum::http::StatusCode::INTERNAL_SERVER_ERROR)
}

/// A field of a request that can't be used.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub(crate) struct WrongField {
    pub(crate) field: String,
    pub(crate) message: String,
}

/// Why a request is not answered as wanted.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) error: Box<AppError>,
    pub(crate) fields: Vec<WrongField>,
}

impl Refusal {
    pub(crate) fn new(status: u16, error: AppError) -> Self {
        Self { status, error: Box::new(error), fields: Vec::new() }
    }

    /// Fields that can't be used.
    pub(crate) fn fields(status: u16, fields: Vec<WrongField>) -> Self {
        let told: Vec<String> =
            fields.iter().map(|wrong| format!("{}: {}", wrong.field, wrong.message)).collect();
        let error =
            AppError::new("api.invalid", FailureClass::Usage, "understand", "the request", told.join("; "))
                .hint("what it may hold stands in /openapi.json");
        Self { status, error: Box::new(error), fields }
    }

    pub(crate) fn response(self) -> Response<Body> {
        let mut body = error::json(&self.error);
        if !self.fields.is_empty()
            && let Some(error) = body.get_mut("error").and_then(Value::as_object_mut)
        {
            error.insert("fields".to_owned(), json!(self.fields));
        }
        let mut response = Answer { status: self.status, body: Content::Json(body) }.response();
        let headers = response.headers_mut();
        if self.status == 401 {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.status == 503 {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response
    }
}

impl From<AppError> for Refusal {
    fn from(error: AppError) -> Self {
        let status = match (error.code.as_str(), error.class) {
            ("config.no_cluster" | "config.no_offsite" | "api.no_job" | "backup.unknown", _) => 404,
            ("hold.past" | "api.no_restore_dir" | "restore.directory" | "restore.no_room", _) => 409,
            (_, FailureClass::Usage) => 422,
            (_, FailureClass::Shortfall | FailureClass::Locked) => 409,
            (_, FailureClass::BudgetSpent) => 429,
            (_, FailureClass::Failed) if error.retryable => 503,
            (_, FailureClass::Failed | FailureClass::Damaged) => 500,
        };
        Self::new(status, error)
    }
}
