//! Restore: a directory of files becomes a server that has replayed the log to a known record.

use std::path::PathBuf;

use everpoint_core::{LogOffset, Micros};

use crate::StopFlag;

/// Where replay stops. Always at a known record, so that the server itself fails if it can't get there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopAt {
    /// Start of the record.
    pub record: LogOffset,
    /// Whether the record itself is replayed.
    pub inclusive: bool,
}

/// A file of configuration in a data directory, as it lies there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigurationFile {
    /// Relative to the directory, by real directories: only its last part may be a link.
    pub path: PathBuf,
    /// What it is.
    pub stays: Stays,
}

/// What it is that stays as it is in a restore in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stays {
    /// A file that says this, without the settings of a recovery.
    File(Vec<u8>),
    /// A directory that is read as a whole: what was in it at the backup and is not now has been taken out of force.
    Whole,
    /// A link to a directory of such files, or what an unfinished recovery needs to take its settings out again.
    Thing,
}

/// What a restored directory needs to recover.
#[derive(Debug, Clone)]
pub struct RecoverySettings {
    /// The restored data directory.
    pub directory: PathBuf,
    /// Where to stop; `None`: as soon as the backup is consistent.
    pub stop: Option<StopAt>,
    /// Timeline to follow.
    pub timeline: u32,
    /// The shell command that fetches a log file, with `%f` and `%p`.
    pub fetch_command: String,
    /// Facts that were recorded with the backup, and limits found in the log since (name, value), so that replay does not
    /// stop for too small a setting.
    pub facts: Vec<(String, String)>,
    /// Places of tablespaces that the log creates while it is replayed (oid, directory): links are made before the start.
    pub links: Vec<(u32, PathBuf)>,
    /// Tablespaces (oids) that replay makes directories of, but that do not exist where it stops: these directories go when the
    /// recovery has ended.
    pub unfinished: Vec<u32>,
    /// Libraries that a copy must load to replay the log; see [`crate::Engine::replay_libraries`].
    pub libraries: Vec<String>,
    /// Files of configuration of the directory, relative to it, that are production's own of now and not the backup's.
    pub kept: Vec<PathBuf>,
    /// Keep the production's own configuration (a restore meant to replace it); else generated configuration only.
    pub keep_configuration: bool,
    /// What a copy says that it is one of, in words that begin with its cluster; `None`: it is none.
    pub copy_of: Option<String>,
    /// Promote by itself once the target is reached (the user starts the server), instead of pausing there.
    pub promote: bool,
}

/// How to start a recovered server.
#[derive(Debug, Clone)]
pub struct StartOptions {
    /// The data directory.
    pub directory: PathBuf,
    /// TCP port; `None`: a free one.
    pub port: Option<u16>,
    /// Directory with the server's programs; `None`: found by version.
    pub programs: Option<PathBuf>,
    /// Where replay must have arrived before promotion.
    pub stop: Option<StopAt>,
    /// Settings for its command line, name and value: those of a configuration outside of the directory.
    pub settings: Vec<(String, String)>,
    /// Asks to stop.
    pub stop_flag: StopFlag,
}

/// Progress of a recovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecoveryEvent {
    /// The server process runs.
    Started {
        /// Its port.
        port: u16,
    },
    /// Replay has come this far.
    Replaying {
        /// Position.
        position: LogOffset,
        /// Time of the last commit replayed.
        time: Option<Micros>,
    },
    /// Something that the operator should know, in words.
    Warning(String),
    /// The target was reached and verified; the server is being promoted.
    Promoting,
}

/// Where a recovery ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveryReached {
    /// End of the last record replayed before promotion.
    pub position: LogOffset,
    /// Time of the last commit replayed; `None` if there was none.
    pub last_commit: Option<Micros>,
    /// Port on which it accepts connections.
    pub port: u16,
}
