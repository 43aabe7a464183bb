//! A backup session of the server whose files are read here.

use std::path::PathBuf;

use everpoint_core::{LogOffset, Micros};
use everpoint_engine::{CheckLine, CheckState, EngineError};

use crate::catalog::SqlBackup;
use crate::control::{CONTROL_FILE, Control};
use crate::files::{BackupSession, Live, SessionStart, SessionStop};

/// A standby may be so far behind a busy primary.
pub(super) const STANDBY_LAG: Micros = Micros(60_000_000);

/// A session that makes sure that `data_dir` is the directory of the server with which it talks.
pub(super) struct LocalBackup {
    pub(super) session: SqlBackup,
    pub(super) data_dir: PathBuf,
}

impl LocalBackup {
    /// The checkpoint with which the backup began must stand in the directory's control file: only then are these the
    /// files of that server, and not those of a standby or a clone of it.
    fn same_cluster(&self, start: LogOffset) -> Result<(), EngineError> {
        let object = self.data_dir.display().to_string();
        let wrong = |message: &str| EngineError::new("pg.data_dir", "back up", object.clone(), message);
        let bytes = std::fs::read(self.data_dir.join(CONTROL_FILE))
            .map_err(|error| wrong("its control file can't be read").cause(error))?;
        let control = Control::parse(&bytes)
            .map_err(|error| wrong("its control file can't be understood").cause(error))?;
        if control.redo < start {
            return Err(wrong("it is not the data directory of the server to which the address leads")
                .hint("correct data_dir in the configuration, or leave it out to copy over the network"));
        }
        Ok(())
    }
}

impl BackupSession for LocalBackup {
    fn start(&mut self, label: &str, fast: bool) -> Result<SessionStart, EngineError> {
        let start = self.session.start(label, fast)?;
        self.same_cluster(start.position)?;
        Ok(start)
    }

    fn live(&mut self) -> Option<Live> {
        self.session.live()
    }

    fn alive(&mut self) -> Result<(), EngineError> {
        self.session.alive()
    }

    fn warnings(&mut self) -> Vec<String> {
        self.session.warnings()
    }

    fn stop(&mut self) -> Result<SessionStop, EngineError> {
        self.session.stop()
    }
}

/// A line of `check`.
pub(super) fn line(name: &str, state: CheckState, message: String, hint: Option<String>) -> CheckLine {
    CheckLine { name: name.to_owned(), state, message, hint }
}
