//! Errors of a store.

/// What went wrong, for callers that decide by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreErrorKind {
    /// There is no object of that name.
    NotFound,
    /// An object of that name exists already; nothing was written.
    AlreadyExists,
    /// The store refused for lack of rights or credentials, or because it can only be read.
    Denied,
    /// No space is left.
    Full,
    /// The name can't be an object name.
    BadName,
    /// The address of the store is wrong, or of a kind that is not built in.
    Usage,
    /// The store could not be reached or failed in passing: the same call may succeed later.
    Unavailable,
    /// The store lacks something without which it is not safe to write there; the cause says what.
    Unsupported,
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
    /// An error without a cause.
    #[must_use]
    pub fn new(operation: &'static str, object: impl Into<String>, kind: StoreErrorKind) -> Self {
        Self { operation, object: object.into(), kind, cause: None }
    }

    /// Adds the cause: an error below, or a sentence.
    #[must_use]
    pub fn cause(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Whether the same call may succeed later without anybody's doing.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        matches!(self.kind, StoreErrorKind::Unavailable)
    }

    /// What a person can do about it, where that is known.
    #[must_use]
    pub const fn hint(&self) -> Option<&'static str> {
        match self.kind {
            StoreErrorKind::Full => {
                Some("free space in the repository's store, or make it larger, then try again")
            }
            StoreErrorKind::Denied => Some(
                "check that the user that runs this may write there, and that it is not mounted read-only",
            ),
            StoreErrorKind::Unavailable => {
                Some("check that the store can be reached; the call may be repeated")
            }
            StoreErrorKind::Usage => Some("check the repository's url"),
            StoreErrorKind::Unsupported => {
                Some("put the repository on another file system, such as ext4, xfs, btrfs, zfs or NFS")
            }
            _ => None,
        }
    }
}
