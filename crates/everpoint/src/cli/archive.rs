//! What servers call: `archive_command`, `restore_command`, and what fetches ahead for the latter.

use std::path::PathBuf;

use clap::Args;

/// Arguments of `archive-push`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ArchivePush {
    /// Name of the cluster
    pub(crate) cluster: String,
    /// The file, as PostgreSQL names it with %p
    pub(crate) path: PathBuf,
}

/// Arguments of `archive-get`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ArchiveGet {
    /// Name of the cluster
    pub(crate) cluster: String,
    /// Name of the file, as PostgreSQL gives it with %f
    pub(crate) name: String,
    /// Where to put it, as PostgreSQL gives it with %p
    pub(crate) destination: PathBuf,
    /// Branch of the log to read, as `restore` found it
    #[arg(long, hide = true, value_name = "ID")]
    pub(crate) branch: Option<String>,
    /// Make tablespaces that the log creates directories inside the data directory
    #[arg(long, hide = true)]
    pub(crate) in_place_tablespaces: bool,
    /// Position behind which the recovery will read nothing, as a plain number
    #[arg(long, hide = true, value_name = "POSITION")]
    pub(crate) until: Option<u64>,
}

/// Arguments of `archive-prefetch`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ArchivePrefetch {
    /// Name of the cluster
    pub(crate) cluster: String,
    /// Name of the segment that was asked for last
    pub(crate) after: String,
    /// Directory to keep them in
    pub(crate) spool: PathBuf,
    /// Branch of the log to read
    #[arg(long, value_name = "ID")]
    pub(crate) branch: Option<String>,
    /// Make tablespaces that the log creates directories inside the data directory
    #[arg(long)]
    pub(crate) in_place_tablespaces: bool,
    /// Bytes to keep ready
    #[arg(long)]
    pub(crate) bytes: u64,
    /// Position behind which nothing is wanted
    #[arg(long)]
    pub(crate) until: Option<u64>,
    /// Data directory of the recovering server
    #[arg(long)]
    pub(crate) recovery: Option<PathBuf>,
}
