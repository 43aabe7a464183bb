//! Errors of a repository.

use everpoint_core::FailureClass;
use everpoint_store::{StoreError, StoreErrorKind};

/// An error with all that a person needs: what failed, on what, why, what to do.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {object}: {message}")]
pub struct RepoError {
    /// Stable code, e.g. `repo.wrong_key`; see [`code`].
    pub code: &'static str,
    /// For the exit code.
    pub class: FailureClass,
    /// What was tried, as a verb phrase.
    pub operation: &'static str,
    /// On what; never holds a secret.
    pub object: String,
    /// Why not, in one sentence without a full stop.
    pub message: String,
    /// What to do about it, if we know.
    pub hint: Option<String>,
    /// Whether the same call may succeed later without anybody's doing.
    pub retryable: bool,
    /// The cause below, if there is one.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The codes of [`RepoError`].
pub mod code {
    /// There is no repository at this place.
    pub const NOT_FOUND: &str = "repo.not_found";
    /// Creation of the repository was interrupted: its keys were never written.
    pub const INCOMPLETE: &str = "repo.incomplete";
    /// Written by a later version.
    pub const NEWER_FORMAT: &str = "repo.newer_format";
    /// It is encrypted, and no key was given.
    pub const KEY_MISSING: &str = "repo.key_missing";
    /// The key opens none of its key slots.
    pub const WRONG_KEY: &str = "repo.wrong_key";
    /// A key was given, and it is not encrypted.
    pub const NOT_ENCRYPTED: &str = "repo.not_encrypted";
    /// An object fails its checks, or one that must be there is missing.
    pub const DAMAGED: &str = "repo.damaged";
    /// Another content is stored under the same name.
    pub const DIFFERS: &str = "repo.differs";
    /// The name belongs to another cluster.
    pub const WRONG_CLUSTER: &str = "repo.wrong_cluster";
    /// Somebody else holds the lease.
    pub const LOCKED: &str = "repo.locked";
    /// A name or value that was given can't be used.
    pub const INVALID: &str = "repo.invalid";
    /// The object is not there.
    pub const MISSING: &str = "repo.missing";
    /// A tail was replaced by its segment meanwhile: list again.
    pub const REPLACED: &str = "repo.replaced";
    /// The backup's label is taken.
    pub const EXISTS: &str = "repo.exists";
    /// No space is left.
    pub const FULL: &str = "store.full";
    /// The store refused.
    pub const DENIED: &str = "store.denied";
    /// The store could not be reached.
    pub const UNAVAILABLE: &str = "store.unavailable";
    /// The store failed otherwise.
    pub const STORE: &str = "store.failed";
}

impl RepoError {
    /// An error without hint and source, not retryable, class `Failed`.
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
            source: None,
        }
    }

    /// Sets the class.
    #[must_use]
    pub const fn class(mut self, class: FailureClass) -> Self {
        self.class = class;
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
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
    pub fn caused_by(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(cause.into());
        self
    }

    /// Damaged data.
    pub(crate) fn damaged(
        operation: &'static str,
        object: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self::new(code::DAMAGED, operation, object, message).class(FailureClass::Damaged)
    }

    /// A value of the caller that can't be used.
    pub(crate) fn invalid(
        operation: &'static str,
        object: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self::new(code::INVALID, operation, object, message).class(FailureClass::Usage)
    }

    /// Whether the object was simply not there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.code == code::MISSING
    }

    /// Whether stored bytes fail their checks (and not: are missing, or can't be reached).
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.code == code::DAMAGED
    }
}

impl From<StoreError> for RepoError {
    fn from(error: StoreError) -> Self {
        let (code, message) = match error.kind {
            StoreErrorKind::NotFound => (code::MISSING, "it is not there"),
            StoreErrorKind::AlreadyExists => (code::EXISTS, "it exists already"),
            StoreErrorKind::Denied => (code::DENIED, "the store refused"),
            StoreErrorKind::Full => (code::FULL, "no space is left in the store"),
            StoreErrorKind::BadName => (code::INVALID, "the name can't be that of an object"),
            StoreErrorKind::Usage => (code::INVALID, "the address can't be used"),
            StoreErrorKind::Unavailable => (code::UNAVAILABLE, "the store could not be reached"),
            StoreErrorKind::Unsupported => (code::STORE, "the store can't be written to safely"),
            StoreErrorKind::Other => (code::STORE, "the store failed"),
        };
        let message = match &error.cause {
            Some(cause) => format!("{message} ({cause})"),
            None => message.to_owned(),
        };
        let mut made = Self::new(code, error.operation, error.object.clone(), message);
        made.hint = error.hint().map(str::to_owned);
        made.retryable = error.retryable();
        if matches!(error.kind, StoreErrorKind::BadName | StoreErrorKind::Usage) {
            made.class = FailureClass::Usage;
        }
        // The message holds the cause's text already; below it only what that has below itself is new.
        made
    }
}
