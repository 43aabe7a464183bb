//! The error of a use-case: what the edge renders and turns into an exit code.

use everpoint_core::FailureClass;
use everpoint_engine::EngineError;
use everpoint_repo::RepoError;

/// An error with all that a person needs: what failed, on what, why, what to do.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {object}: {message}")]
pub struct AppError {
    /// Stable code, e.g. `restore.directory_not_empty`. Listed in docs/ERRORS.md.
    pub code: String,
    /// For the exit code.
    pub class: FailureClass,
    /// What was tried, as a verb phrase.
    pub operation: String,
    /// On what; never holds a secret.
    pub object: String,
    /// Why not.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Whether the same call may succeed later without anybody's doing.
    pub retryable: bool,
    /// The cause below.
    #[source]
    pub cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl AppError {
    /// An error without hint and cause, not retryable.
    #[must_use]
    pub fn new(
        code: &str,
        class: FailureClass,
        operation: &str,
        object: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            code: code.to_owned(),
            class,
            operation: operation.to_owned(),
            object: object.into(),
            message: message.into(),
            hint: None,
            retryable: false,
            cause: None,
        }
    }

    /// A failed system call on a path.
    #[must_use]
    pub fn io(operation: &str, path: &std::path::Path, error: std::io::Error) -> Self {
        let hint = match error.kind() {
            std::io::ErrorKind::StorageFull => {
                Some("free some space on that filesystem, then run it again".to_owned())
            }
            std::io::ErrorKind::PermissionDenied => {
                Some("run it as a user who may write there, or change the owner of the directory".to_owned())
            }
            _ => None,
        };
        let mut made =
            Self::new("io", FailureClass::Failed, operation, path.display().to_string(), error.to_string());
        made.hint = hint;
        made.cause = Some(Box::new(error));
        made
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn cause(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }
}

impl From<EngineError> for AppError {
    fn from(error: EngineError) -> Self {
        Self {
            code: error.code.to_owned(),
            class: error.class,
            operation: error.operation.to_owned(),
            object: error.object,
            message: error.message,
            hint: error.hint,
            retryable: error.retryable,
            cause: error.cause,
        }
    }
}

impl From<RepoError> for AppError {
    fn from(error: RepoError) -> Self {
        Self {
            code: error.code.to_owned(),
            class: error.class,
            operation: error.operation.to_owned(),
            object: error.object,
            message: error.message,
            hint: error.hint,
            retryable: error.retryable,
            cause: error.source,
        }
    }
}
