//! What is left to the operator after a restore.

use serde::Serialize;

/// Why no server would start on a directory that is to be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unstartable {
    /// In words.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
    /// Whether that can be done before the restore; else it needs what the restore brings.
    pub now: bool,
}

/// Commands to type, and what to know. Each command is a whole line for a shell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct NextSteps {
    /// Commands that must come before the start: files that the server reads are not at their places.
    pub before: Vec<String>,
    /// Starts the server; empty for one that runs.
    pub start: String,
    /// Connects to a server that runs.
    pub connect: Option<String>,
    /// Stops a server that runs.
    pub stop: Option<String>,
    /// What else to know, a sentence each.
    pub notes: Vec<String>,
}
