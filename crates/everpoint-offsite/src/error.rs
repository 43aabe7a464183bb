//! Errors of a provider.

/// What went wrong, for callers that decide by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProviderErrorKind {
    /// It could not be reached.
    Unreachable,
    /// It says that no call is left.
    NoCallLeft,
    /// It refused for lack of rights or credentials.
    Denied,
    /// It has no room for the file.
    Full,
    /// It has no such file.
    NotFound,
    /// It can't do that.
    Unsupported,
    /// The configuration of the provider is wrong.
    Usage,
    /// No byte moved for too long.
    Stalled,
    /// It failed, or the connection broke off.
    Failed,
}

/// Stable codes, as docs/ERRORS.md lists them.
pub mod code {
    /// It could not be reached; no call was spent.
    pub const UNREACHABLE: &str = "offsite.unreachable";
    /// The provider itself says that no call is left.
    pub const NO_CALL_LEFT: &str = "offsite.no_call_left";
    /// It refused for lack of rights.
    pub const DENIED: &str = "offsite.denied";
    /// It has no room.
    pub const FULL: &str = "offsite.full";
    /// It has no such file.
    pub const NOT_FOUND: &str = "offsite.not_found";
    /// It can't do that.
    pub const UNSUPPORTED: &str = "offsite.unsupported";
    /// Its configuration is wrong.
    pub const USAGE: &str = "offsite.usage";
    /// No byte moved for too long.
    pub const STALLED: &str = "offsite.stalled";
    /// It failed or broke off.
    pub const FAILED: &str = "offsite.failed";
}

/// An error of one request: which operation, on what, why.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {object}")]
pub struct ProviderError {
    /// What was tried, as a verb: "upload", "download", "list", "ask".
    pub operation: &'static str,
    /// The file and the provider, without anything secret.
    pub object: String,
    /// For decisions.
    pub kind: ProviderErrorKind,
    /// Whether a byte of the request may have reached the provider: then the call counts.
    pub sent: bool,
    /// Time of the provider's clock in its answer, microseconds since 1970 UTC, if it gave one.
    pub provider_date: Option<i64>,
    /// The cause below, if there is one.
    #[source]
    pub cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl ProviderError {
    /// An error after which the call counts.
    #[must_use]
    pub fn new(operation: &'static str, object: impl Into<String>, kind: ProviderErrorKind) -> Self {
        Self { operation, object: object.into(), kind, sent: true, provider_date: None, cause: None }
    }

    /// Nothing of the request can have reached the provider.
    #[must_use]
    pub fn unsent(mut self) -> Self {
        self.sent = false;
        self
    }

    /// Adds the cause: an error below, or a sentence.
    #[must_use]
    pub fn cause(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Why it failed, without what was tried: for those who say that themselves.
    #[must_use]
    pub fn reason(&self) -> String {
        self.cause.as_ref().map_or_else(|| self.words().to_owned(), ToString::to_string)
    }

    /// Its kind in words.
    const fn words(&self) -> &'static str {
        match self.kind {
            ProviderErrorKind::Unreachable => "it can't be reached",
            ProviderErrorKind::NoCallLeft => "no call is left",
            ProviderErrorKind::Denied => "it refused",
            ProviderErrorKind::Full => "it has no room",
            ProviderErrorKind::NotFound => "it has no such file",
            ProviderErrorKind::Unsupported => "it can't do that",
            ProviderErrorKind::Usage => "it can't be used so",
            ProviderErrorKind::Stalled => "no byte moved for too long",
            ProviderErrorKind::Failed => "it failed",
        }
    }

    /// Whether the same may be tried again without spending another call.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        !self.sent && matches!(self.kind, ProviderErrorKind::Unreachable | ProviderErrorKind::Failed)
    }

    /// Its stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self.kind {
            ProviderErrorKind::Unreachable => code::UNREACHABLE,
            ProviderErrorKind::NoCallLeft => code::NO_CALL_LEFT,
            ProviderErrorKind::Denied => code::DENIED,
            ProviderErrorKind::Full => code::FULL,
            ProviderErrorKind::NotFound => code::NOT_FOUND,
            ProviderErrorKind::Unsupported => code::UNSUPPORTED,
            ProviderErrorKind::Usage => code::USAGE,
            ProviderErrorKind::Stalled => code::STALLED,
            ProviderErrorKind::Failed => code::FAILED,
        }
    }

    /// What a person can do about it, where that is known.
    #[must_use]
    pub const fn hint(&self) -> Option<&'static str> {
        match self.kind {
            ProviderErrorKind::Unreachable => Some("check its address, the network and that it is there"),
            ProviderErrorKind::NoCallLeft => {
                Some("somebody else made a call, or calls, period and zone differ from the provider's rules")
            }
            ProviderErrorKind::Denied => Some(
                "check the headers or credentials that it is given; of a directory: its owner and mode, and that the service \
                 may write there (ReadWritePaths of its unit)",
            ),
            ProviderErrorKind::Full => {
                Some("set limit to what it takes, so that packages shrink to fit, or free space there")
            }
            ProviderErrorKind::Stalled => {
                Some("look whether it is well; idle_timeout says how long it may stand still")
            }
            _ => None,
        }
    }
}
