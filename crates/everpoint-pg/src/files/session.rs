//! The part of a file backup that needs SQL.

use everpoint_core::{LogOffset, Micros};
use everpoint_engine::EngineError;

use super::Live;

/// What the server said when the backup began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionStart {
    /// Start position.
    pub position: LogOffset,
    /// Timeline of it.
    pub timeline: u32,
    /// The server's clock.
    pub started_at: Micros,
    /// About how many bytes the files have together; 0 if unknown.
    pub expected_bytes: u64,
}

/// What the server said when the backup ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionStop {
    /// Stop position.
    pub position: LogOffset,
    /// Timeline of it: of a standby another one than that of the start, if the server that it follows was promoted.
    pub timeline: u32,
    /// The server's clock.
    pub stopped_at: Micros,
    /// Content of `backup_label`.
    pub label_file: String,
    /// Content of `tablespace_map`, bytes that are no UTF-8 escaped; empty when there is nothing in it.
    pub tablespace_map: String,
    /// See [`everpoint_engine::BackupEnd::facts`].
    pub facts: Vec<(String, String)>,
}

/// One database session that starts and stops a non-exclusive backup. It must live in between: if it ends, the server
/// gives the backup up.
pub trait BackupSession {
    /// Starts the backup. `fast`: with an immediate checkpoint.
    ///
    /// # Errors
    /// If the server refuses.
    fn start(&mut self, label: &str, fast: bool) -> Result<SessionStart, EngineError>;

    /// Databases and tablespaces that the server knows; `None` if it can't be asked.
    fn live(&mut self) -> Option<Live> {
        None
    }

    /// Asks whether the session still lives: called again and again while files are read, and soon back.
    ///
    /// # Errors
    /// If it is gone, or the server was promoted: the backup can't be stopped any more, and what was copied is of no use.
    fn alive(&mut self) -> Result<(), EngineError> {
        Ok(())
    }

    /// What the server warned of since this was asked last.
    fn warnings(&mut self) -> Vec<String> {
        Vec::new()
    }

    /// Stops the backup, without waiting for an archive.
    ///
    /// # Errors
    /// If the server refuses, or the standby that it ran on was promoted meanwhile.
    fn stop(&mut self) -> Result<SessionStop, EngineError>;
}
