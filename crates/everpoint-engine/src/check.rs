//! Lines of `check`.

/// How a line of a check turned out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckState {
    /// As it should be.
    Ok,
    /// Works, but something is missing or will hurt later.
    Warning,
    /// Will not work until mended.
    Error,
}

/// One line of a check.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct CheckLine {
    /// What was looked at, a short stable name: `connection`, `privileges`, `wal_level`, `slot`, ...
    pub name: String,
    /// How it turned out.
    pub state: CheckState,
    /// What was found.
    pub message: String,
    /// What to do: SQL or a command to paste.
    pub hint: Option<String>,
}
