//! Errors of an engine.

use everpoint_core::FailureClass;

/// An error with all that a person needs: what failed, on what, why, what to do.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {object}: {message}")]
pub struct EngineError {
    /// Stable code, e.g. `pg.connect`, `pg.slot_lost`, `wal.broken`. Listed in docs/ERRORS.md.
    pub code: &'static str,
    /// For the exit code.
    pub class: FailureClass,
    /// What was tried, as a verb phrase: "connect to", "start streaming from".
    pub operation: &'static str,
    /// On what; never holds a secret.
    pub object: String,
    /// Why not, in one sentence without a full stop.
    pub message: String,
    /// What to do about it, if we know; may hold SQL or a command to paste.
    pub hint: Option<String>,
    /// Whether the same call may succeed later without anybody's doing.
    pub retryable: bool,
    /// The cause below, if there is one.
    #[source]
    pub cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl EngineError {
    /// An error without hint and cause, not retryable, class `Failed`.
    #[must_use]
    pub fn new(
        code: &'static str,
        operation: &'static str,
        object: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            code,
            class: FailureClass::Failed,
            operation,
            object: object.into(),
            message: message.into(),
            hint: None,
            retryable: false,
            cause: None,
        }
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Sets the class.
    #[must_use]
    pub const fn class(mut self, class: FailureClass) -> Self {
        self.class = class;
        self
    }

    /// Marks it as one that may pass by itself.
    #[must_use]
    pub const fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn cause(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }
}
