//! Errors of a store.

/// What went wrong, for callers that decide by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreErrorKind {
    /// There is no object of that name.
    NotFound,
    /// An object of that name exists already; nothing was written.
    AlreadyExists,
    /// The store refused for lack of rights or credentials.
    Denied,
    /// No space is left.
    Full,
    /// The name can't be an object name.
    BadName,
    /// The store could not be reached or failed in passing: the same call may succeed later.
    Unavailable,
    /// Anything else.
    Other,
}

/// An error of one call: which operation, on what, why.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {object}")]
pub struct StoreError {
    /// What was tried, as a verb: "create", "read", "list", "delete".
    pub operation: &'static str,
    /// Object name, with the store's own address where that helps (never a secret).
    pub object: String,
    /// For decisions.
    pub kind: StoreErrorKind,
    /// The cause below, if there is one.
    #[source]
    pub cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StoreError {
    /// Whether the same call may succeed later without anybody's doing.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        matches!(self.kind, StoreErrorKind::Unavailable)
    }
}
