//! What the endpoints ask of the process that they run in.

use std::collections::BTreeMap;

use everpoint_app::AppError;
use everpoint_app::backup::BackupMode;
use serde::Serialize;
use serde_json::Value;

use crate::commands::restore_below::RestoreBelow;
use crate::session::Session;

/// Work that takes long and runs as a job.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ask {
    /// A backup of one cluster.
    Backup { cluster: String, mode: BackupMode, labels: BTreeMap<String, String> },
    /// The hours of log that are complete are joined.
    Bundle { cluster: String },
    /// What the policy does not keep goes.
    Expire { cluster: String },
    /// The package is sent to a provider: a call is spent.
    Package { provider: String },
    /// A cluster as it was, in a directory.
    Restore { cluster: String, wanted: RestoreBelow },
}

/// Which jobs are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct JobFilter {
    pub(crate) cluster: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) state: Option<String>,
    /// At most so many, the newest first.
    pub(crate) limit: u32,
}

/// A job, as it is shown.
#[derive(Debug, Clone, Serialize, PartialEq)]
pub(crate) struct Job {
    pub(crate) id: i64,
    /// `backup`, ...
    pub(crate) kind: String,
    pub(crate) cluster: Option<String>,
    /// To which a package is sent.
    pub(crate) provider: Option<String>,
    /// 0: as scheduled or asked for; else which try after a failure.
    pub(crate) tried: u32,
    /// `running`, `ok`, `failed`, `skipped`, `interrupted`.
    pub(crate) state: String,
    /// RFC 3339, as all times.
    pub(crate) started_at: String,
    pub(crate) ended_at: Option<String>,
    /// What it said at its end: the report of the command of the same name.
    pub(crate) report: Option<Value>,
    /// Why it failed, as the command line says it.
    pub(crate) error: Option<Value>,
}

/// A condition that holds now.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub(crate) struct FiringAlert {
    pub(crate) kind: &'static str,
    /// Name of the cluster, repository or provider.
    pub(crate) subject: String,
    pub(crate) severity: &'static str,
    /// RFC 3339.
    pub(crate) since: String,
    pub(crate) message: String,
}

/// The process.
pub(crate) trait Daemon: Send + Sync {
    /// A session with the configuration of the process.
    fn session(&self) -> Session;

    /// Which configuration it is since the start: what was opened with another one is of no use.
    fn generation(&self) -> u64 {
        0
    }

    /// Starts jobs; returns at once.
    ///
    /// # Errors
    /// Class `Locked`: one of that kind runs already.
    fn ask(&self, ask: Ask) -> Result<Job, AppError>;

    /// The job of this number.
    ///
    /// # Errors
    /// If the history can't be read.
    fn job(&self, id: i64) -> Result<Option<Job>, AppError>;

    /// Jobs, the newest first.
    ///
    /// # Errors
    /// If the history can't be read.
    fn jobs(&self, filter: &JobFilter) -> Result<Vec<Job>, AppError>;

    /// Why storing the log of a cluster fails now.
    fn capture_error(&self, cluster: &str) -> Option<String>;

    /// The slot of a cluster was given up and no backup was taken since, in words.
    fn slot_given_up(&self, cluster: &str) -> Option<String>;

    /// No backup leads to the present: one is taken as soon as it can be.
    fn needs_backup(&self, cluster: &str, why: &str) {
        let _ = (cluster, why);
    }

    /// What is wrong now.
    fn alerts(&self) -> Vec<FiringAlert>;

    /// Why it is not ready to protect anything; empty: it is.
    fn not_ready(&self) -> Vec<String>;
}
