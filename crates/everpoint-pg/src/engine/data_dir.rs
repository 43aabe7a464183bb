//! Whether the files of the data directory can be read here.

use std::path::PathBuf;

use everpoint_engine::{CheckLine, CheckState, Engine as _, StopFlag};

use super::PgEngine;
use super::session::line;
use crate::catalog::SqlBackup;
use crate::client::{Config, Purpose, connect};

const UNREADABLE: &str = "run as a user who may read it, with a role that may execute the backup functions (GRANT EXECUTE ON FUNCTION \
     pg_catalog.pg_backup_start(text, boolean), pg_catalog.pg_backup_stop(boolean) TO the role; before 15 \
     pg_start_backup(text, boolean, boolean), pg_stop_backup(boolean, boolean)); or leave data_dir out";

impl PgEngine {
    /// The data directory; the error says why its files can't be read here.
    pub(super) fn local_files(&self, config: &Config) -> Result<PathBuf, String> {
        let mut sql = connect(config, Purpose::Sql).map_err(|error| error.to_string())?;
        let system = self.identify().map_err(|error| error.to_string())?.system;
        let may = SqlBackup::open(config, &StopFlag::default()).and_then(|mut session| session.may());
        if !may.map_err(|error| error.to_string())? {
            return Err("the role may not start and stop backups".to_owned());
        }
        self.readable_data_dir(&mut sql, system)?.ok_or_else(|| "no data_dir is configured".to_owned())
    }

    /// The data directory, if backups read it here, and what there is to say of it.
    pub(super) fn check_data_dir(&self, config: &Config) -> (Option<PathBuf>, Option<CheckLine>) {
        let Some(data_dir) = &self.data_dir else { return (None, None) };
        let shown = data_dir.display();
        match self.local_files(config) {
            Ok(data_dir) => {
                let message = format!("{shown} is read here, in parallel");
                (Some(data_dir), Some(line("data_dir", CheckState::Ok, message, None)))
            }
            Err(reason) => {
                let message = format!("{shown} can't be used, backups come over the network: {reason}");
                (None, Some(line("data_dir", CheckState::Warning, message, Some(UNREADABLE.to_owned()))))
            }
        }
    }
}
