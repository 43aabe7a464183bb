//! What is asked of a restore.

use std::path::PathBuf;

use everpoint_core::{BranchChoice, Target};
use everpoint_engine::StopFlag;

use crate::package::ImportReport;

/// Start the restored server.
#[derive(Debug, Clone)]
pub struct StartRequest {
    /// Port; `None`: a free one.
    pub port: Option<u16>,
    /// Directory of the server's programs; `None`: found by version.
    pub programs: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// Data directory to fill.
    pub directory: PathBuf,
    /// What to restore to.
    pub target: Target,
    /// Stop just before the target instead of just after it.
    pub exclusive: bool,
    /// Branch to follow; `None`: that of production.
    pub timeline: Option<BranchChoice>,
    /// Bring an existing directory to the wanted state, writing only what differs.
    pub delta: bool,
    /// Where tablespaces go: old path (or oid) and new path.
    pub map: Vec<(String, String)>,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Start the server when the files are in place.
    pub start: Option<StartRequest>,
    /// The restore replaces production: its own configuration is kept.
    pub replace_production: bool,
    /// The operator's word that no server runs on the directory, where that is not known.
    pub server_is_stopped: bool,
    /// Nothing outside of the directory is written, whatever links lie in it.
    pub confined: bool,
    /// Id of the repository that marks name; `None`: that of the context's.
    pub repository: Option<String>,
    /// Threads.
    pub workers: usize,
    /// Beginning of the command that fetches log files: program and options that say which repository, quoted for a shell.
    pub fetch_program: String,
    /// Put the log beside the image instead of having the server fetch it.
    pub stage_log: bool,
    /// The packages that were put into the repository for this restore.
    pub packages: Option<ImportReport>,
    /// Asks to stop.
    pub stop: StopFlag,
}
