//! Errors of a sink.

use everpoint_engine::EngineError;
use everpoint_repo::RepoError;

use crate::AppError;

/// An error of the repository, for an engine that feeds a sink.
pub(crate) fn sink_error(error: RepoError) -> EngineError {
    let mut made =
        EngineError::new(error.code, error.operation, error.object, error.message).class(error.class);
    made.hint = error.hint;
    made.retryable = error.retryable;
    made.cause = error.source;
    made
}

/// An error of a use-case, for an engine that feeds a sink.
pub(crate) fn from_app(error: AppError) -> EngineError {
    let mut made =
        EngineError::new("capture.repository", "look into", error.object.clone(), error.message.clone());
    made.class = error.class;
    made.hint.clone_from(&error.hint);
    made.retryable = error.retryable;
    made.cause(error)
}
