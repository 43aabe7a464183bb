//! What is known of a backup as a whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A damaged page found while backing up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedPage {
    /// File, relative to the data directory.
    pub path: String,
    /// Number of the page in the file.
    pub page: u32,
}

/// A tablespace outside the data directory; `path` is absent for one inside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablespaceRecord {
    /// Its oid.
    pub oid: u32,
    /// Where it lay.
    pub path: Option<String>,
}

/// What is known of a backup. Later versions may add fields; they need defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it; FORMAT.md describes each")]
pub struct BackupRecord {
    pub label: String,
    pub cluster: String,
    pub engine: String,
    pub kind: String,
    #[serde(default)]
    pub base: Option<String>,
    pub identity: u32,
    pub system_identifier: String,
    pub server_version: u32,
    pub server_version_text: String,
    pub timeline: u32,
    pub branch: String,
    pub started_at: i64,
    pub stopped_at: i64,
    pub start: u64,
    pub stop: u64,
    pub page_size: u32,
    pub segment_size: u64,
    pub method: String,
    pub from_standby: bool,
    pub size_bytes: u64,
    pub stored_bytes: u64,
    pub file_count: u64,
    pub pages_total: u64,
    pub pages_changed: u64,
    #[serde(default)]
    pub damaged: Vec<DamagedPage>,
    #[serde(default)]
    pub damaged_count: u64,
    #[serde(default)]
    pub tablespaces: Vec<TablespaceRecord>,
    #[serde(default)]
    pub facts: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    pub everpoint_version: String,
    pub duration_micros: u64,
    pub encrypted: bool,
    pub codec: String,
}
