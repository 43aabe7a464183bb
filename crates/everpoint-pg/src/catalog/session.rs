//! The SQL session of a backup that reads files.

use everpoint_core::{LogOffset, Micros};
use everpoint_engine::EngineError;

use super::{facts, live, sql_facts};
use crate::client::{Config, Connection, PgError, Purpose, Rows, connect, quote_literal};
use crate::files::{BackupSession, Live, SessionStart, SessionStop};
use crate::lsn::Lsn;

/// The server's clock in microseconds since 1970, and its flushed timeline.
const CLOCK: &str = "pg_catalog.date_part('epoch', pg_catalog.clock_timestamp())::numeric * 1000000";

/// A session that starts and stops a backup with pg_backup_start and pg_backup_stop (before 15: pg_start_backup and
/// pg_stop_backup).
#[derive(Debug)]
pub struct SqlBackup {
    sql: Connection,
    object: String,
}

impl SqlBackup {
    /// Connects.
    ///
    /// # Errors
    /// If no ordinary connection is possible.
    pub fn open(config: &Config) -> Result<Self, EngineError> {
        let object = config.to_string();
        let mut sql =
            connect(config, Purpose::Sql).map_err(|error| error.at("connect to", object.clone()))?;
        // A backup may be silent for longer than any of these allows.
        let settings = "SET statement_timeout = 0; SET idle_session_timeout = 0";
        let settings = if sql.major() >= 14 { settings } else { "SET statement_timeout = 0" };
        for setting in settings.split("; ") {
            sql.query(setting).map_err(|error| error.at("prepare a session on", object.clone()))?;
        }
        Ok(Self { sql, object })
    }

    /// Whether the role may start and stop backups.
    ///
    /// # Errors
    /// If the connection broke.
    pub fn may(&mut self) -> Result<bool, EngineError> {
        let names = if self.sql.major() >= 15 {
            ["pg_backup_start(text,boolean)", "pg_backup_stop(boolean)"]
        } else {
            ["pg_start_backup(text,boolean,boolean)", "pg_stop_backup(boolean,boolean)"]
        };
        for name in names {
            let query = format!("SELECT pg_catalog.has_function_privilege('pg_catalog.{name}', 'EXECUTE')");
            if self.query("ask for privileges on", &query)?.single() != Some("t") {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn query(&mut self, operation: &'static str, sql: &str) -> Result<Rows, EngineError> {
        self.sql.query(sql).map_err(|error| error.at(operation, self.object.clone()))
    }

    fn clock(&mut self) -> Result<Micros, EngineError> {
        let rows = self.query("ask for the time on", &format!("SELECT ({CLOCK})::bigint"))?;
        rows.single().and_then(|text| text.parse().ok()).map(Micros).ok_or_else(|| self.odd("no time"))
    }

    /// The timeline of the server: of what it writes, or on a standby of what it replays.
    fn timeline(&mut self) -> Result<u32, EngineError> {
        let replay = "SELECT pg_catalog.pg_is_in_recovery()";
        let in_recovery = self.query("ask for recovery on", replay)?.single() == Some("t");
        let query = if in_recovery {
            "SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery()"
        } else {
            "SELECT pg_catalog.substring(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8)"
        };
        let rows = self.query("ask for the timeline of", query)?;
        let text = rows.single().unwrap_or_default();
        let timeline = if in_recovery { text.parse().ok() } else { u32::from_str_radix(text, 16).ok() };
        timeline.ok_or_else(|| self.odd("no timeline"))
    }

    fn odd(&self, message: &str) -> EngineError {
        PgError::Protocol(message.to_owned()).at("back up", self.object.clone())
    }
}

fn lsn(text: Option<&str>) -> Option<LogOffset> {
    text?.parse::<Lsn>().ok().map(LogOffset::from)
}

/// The timeline of the start, as the label says: `START TIMELINE: n` (servers from 11).
fn labelled_timeline(label: &str) -> Option<u32> {
    label.lines().find_map(|line| line.strip_prefix("START TIMELINE: "))?.trim().parse().ok()
}

impl BackupSession for SqlBackup {
    fn start(&mut self, label: &str, fast: bool) -> Result<SessionStart, EngineError> {
        let label = quote_literal(label);
        let query = if self.sql.major() >= 15 {
            format!("SELECT pg_catalog.pg_backup_start({label}, {fast})")
        } else {
            format!("SELECT pg_catalog.pg_start_backup({label}, {fast}, false)")
        };
        let started_at = self.clock()?;
        let size =
            "SELECT pg_catalog.sum(pg_catalog.pg_tablespace_size(oid))::bigint FROM pg_catalog.pg_tablespace";
        // For progress only; a role may lack the privilege.
        let expected = self.query("ask for the size of", size).ok();
        let expected_bytes =
            expected.and_then(|rows| rows.single().and_then(|text| text.parse().ok())).unwrap_or_default();
        let rows = self.query("start a backup of", &query)?;
        let position = lsn(rows.single()).ok_or_else(|| self.odd("no start position"))?;
        Ok(SessionStart { position, timeline: self.timeline()?, started_at, expected_bytes })
    }

    fn live(&mut self) -> Option<Live> {
        live(&mut self.sql)
    }

    fn stop(&mut self) -> Result<SessionStop, EngineError> {
        let query = if self.sql.major() >= 15 {
            "SELECT lsn, labelfile, spcmapfile FROM pg_catalog.pg_backup_stop(false)"
        } else {
            "SELECT lsn, labelfile, spcmapfile FROM pg_catalog.pg_stop_backup(false, false)"
        };
        let rows =
            self.sql.query_exact(query).map_err(|error| error.at("stop the backup of", &self.object))?;
        let position = lsn(rows.single()).ok_or_else(|| self.odd("no stop position"))?;
        let label_file = rows.get(0, 1).unwrap_or_default().to_owned();
        let tablespace_map = rows.get(0, 2).unwrap_or_default().to_owned();
        // A standby promoted in between makes pg_backup_stop fail, so start and stop share their timeline.
        let timeline =
            labelled_timeline(&label_file).ok_or_else(|| self.odd("a label without its timeline"))?;
        let stopped_at = self.clock()?;
        let fail = |error: PgError| error.at("read the settings of", self.object.clone());
        let mut facts = facts(&mut self.sql).map_err(fail)?;
        facts.extend(sql_facts(&mut self.sql).map_err(fail)?);
        Ok(SessionStop { position, timeline, stopped_at, label_file, tablespace_map, facts })
    }
}
