//! The SQL session of a backup that reads files.

use std::time::{Duration, Instant};

use everpoint_core::{LogOffset, Micros};
use everpoint_engine::{EngineError, StopFlag};

use super::{facts, live, sql_facts};
use crate::client::{
    Config, Connection, Frame, POOLER_HINT, PgError, Purpose, Rows, Until, connect, quote_literal,
};
use crate::files::{BackupSession, Live, SessionStart, SessionStop};
use crate::lsn::Lsn;

/// The server's clock in microseconds since 1970.
const CLOCK: &str = "pg_catalog.date_part('epoch', pg_catalog.clock_timestamp())::numeric * 1000000";

/// About how many bytes will come. What a role may not know would be an error in the server's log: it is not asked for.
const SIZE: &str = "SELECT CASE WHEN pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') \
     THEN (SELECT sum(pg_catalog.pg_tablespace_size(oid)) FROM pg_catalog.pg_tablespace) \
     ELSE (SELECT sum(pg_catalog.pg_database_size(oid)) FROM pg_catalog.pg_database \
     WHERE pg_catalog.has_database_privilege(oid, 'CONNECT')) END::bigint";

/// The session is asked this often whether it lives.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// A server that does not answer for so long is gone.
const ANSWER: Duration = Duration::from_secs(60);
/// So long the server may take to stop the backup. It does not wait for its archive then.
const STOP: Duration = Duration::from_secs(300);
/// And so long if we were asked to stop ourselves.
const STOP_HURRIED: Duration = Duration::from_secs(5);

/// A session that starts and stops a backup with pg_backup_start and pg_backup_stop (before 15: pg_start_backup and
/// pg_stop_backup).
#[derive(Debug)]
pub struct SqlBackup {
    sql: Connection,
    object: String,
    stop: StopFlag,
    asked_at: Instant,
    /// Whether it began on a standby.
    in_recovery: bool,
    /// Timeline of what a standby had replayed when it began.
    timeline: u32,
}

impl SqlBackup {
    /// Connects. `stop` asks to stop waiting for the server.
    ///
    /// # Errors
    /// If no ordinary connection is possible; `pg.pooler` if it is none of our own: start and stop could meet two sessions.
    pub fn open(config: &Config, stop: &StopFlag) -> Result<Self, EngineError> {
        let object = config.to_string();
        let sql = connect(config, Purpose::Sql).map_err(|error| error.at("connect to", object.clone()))?;
        if sql.is_pooled() {
            let message =
                "a pooler answers at this address, so that start and stop could meet different sessions";
            return Err(EngineError::new("pg.pooler", "start a backup of", object, message).hint(POOLER_HINT));
        }
        let stop = stop.clone();
        Ok(Self { sql, object, stop, asked_at: Instant::now(), in_recovery: false, timeline: 0 })
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
        self.query_for(operation, sql, Some(ANSWER))
    }

    /// Waits no longer than `limit`, nor after we were asked to stop.
    fn query_for(
        &mut self,
        operation: &'static str,
        sql: &str,
        limit: Option<Duration>,
    ) -> Result<Rows, EngineError> {
        let stop = self.stop.clone();
        let until = Until { limit, stop: &|| stop.is_set() };
        self.sql.query_until(sql, until).map_err(|error| error.at(operation, self.object.clone()))
    }

    fn clock(&mut self) -> Result<Micros, EngineError> {
        let rows = self.query("ask for the time on", &format!("SELECT ({CLOCK})::bigint"))?;
        rows.single().and_then(|text| text.parse().ok()).map(Micros).ok_or_else(|| self.odd("no time"))
    }

    fn recovers(&mut self) -> Result<bool, EngineError> {
        let rows = self.query("ask for recovery on", "SELECT pg_catalog.pg_is_in_recovery()")?;
        Ok(rows.single() == Some("t"))
    }

    /// The timeline at a position that a backup has just begun at: on a standby that of its last restart point, which may be
    /// an older one than it replays by now.
    fn start_timeline(&mut self, start: LogOffset) -> Result<u32, EngineError> {
        if !self.in_recovery {
            let query = "SELECT pg_catalog.substring(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8)";
            let rows = self.query("ask for the timeline of", query)?;
            let timeline = rows.single().and_then(|text| u32::from_str_radix(text, 16).ok());
            return timeline.ok_or_else(|| self.odd("no timeline"));
        }
        self.timeline = self.replayed_timeline()?;
        let query = "SELECT redo_lsn, timeline_id FROM pg_catalog.pg_control_checkpoint()";
        let rows = self.query("ask for the timeline of", query)?;
        let checkpoint = rows.get(0, 1).and_then(|text| text.parse().ok());
        Ok(checkpoint.filter(|_| lsn(rows.single()) == Some(start)).unwrap_or(self.timeline))
    }

    /// The timeline of the last log that a standby has replayed.
    fn replayed_timeline(&mut self) -> Result<u32, EngineError> {
        let query = "SELECT greatest(r.min_recovery_end_timeline, c.timeline_id) \
                     FROM pg_catalog.pg_control_recovery() r, pg_catalog.pg_control_checkpoint() c";
        let rows = self.query("ask for the timeline of", query)?;
        rows.single().and_then(|text| text.parse().ok()).ok_or_else(|| self.odd("no timeline"))
    }

    fn odd(&self, message: &str) -> EngineError {
        PgError::Protocol(message.to_owned()).at("back up", self.object.clone())
    }

    /// What the server sends by itself to a session that is silent is its end.
    fn heard(&mut self) -> Result<(), PgError> {
        match self.sql.receive(Some(Duration::from_millis(1)))? {
            None => Ok(()),
            Some(Frame::Error(error)) => Err(PgError::Server(error)),
            Some(other) => Err(PgError::Protocol(format!("{other:?} while files are copied"))),
        }
    }

    fn gone(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> EngineError {
        let error = error.into();
        let message = format!("its session on the server is gone ({error}), and with it the backup");
        EngineError::new("pg.backup_stopped", "go on with the backup of", self.object.clone(), message)
            .retryable()
            .hint("take it again; the server's log says who or what ended the session")
            .cause(error)
    }

    fn promoted(&self) -> EngineError {
        let message = "the standby was promoted while it was copied, and the server has given the backup up";
        EngineError::new("backup.timeline", "go on with the backup of", self.object.clone(), message)
            .retryable()
            .hint("take the backup again")
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
        self.in_recovery = self.recovers()?;
        let started_at = self.clock()?;
        // Each of its files is looked at: a large cluster takes its time.
        let rows = self.query_for("ask for the size of", SIZE, None)?;
        let expected_bytes = rows.single().and_then(|text| text.parse().ok()).unwrap_or_default();
        // A checkpoint that is spread may take as long as the server likes.
        let rows = self.query_for("start a backup of", &query, None)?;
        let position = lsn(rows.single()).ok_or_else(|| self.odd("no start position"))?;
        let timeline = self.start_timeline(position)?;
        self.asked_at = Instant::now();
        Ok(SessionStart { position, timeline, started_at, expected_bytes })
    }

    fn alive(&mut self) -> Result<(), EngineError> {
        self.heard().map_err(|error| self.gone(error))?;
        if self.asked_at.elapsed() < ASK_EVERY || self.stop.is_set() {
            return Ok(());
        }
        let stop = self.stop.clone();
        let until = Until { limit: Some(ANSWER), stop: &|| stop.is_set() };
        let rows = match self.sql.query_until("SELECT pg_catalog.pg_is_in_recovery()", until) {
            Err(PgError::Stopped) => return Ok(()),
            result => result.map_err(|error| self.gone(error))?,
        };
        self.asked_at = Instant::now();
        if self.in_recovery && rows.single() != Some("t") { Err(self.promoted()) } else { Ok(()) }
    }

    fn warnings(&mut self) -> Vec<String> {
        self.sql.take_warnings().into_iter().map(|warning| warning.message).collect()
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
        let hurried = self.stop.is_set();
        let (limit, stop) = (if hurried { STOP_HURRIED } else { STOP }, self.stop.clone());
        let until = Until { limit: Some(limit), stop: &|| !hurried && stop.is_set() };
        let rows = self.sql.query_exact_until(query, until).map_err(|error| self.not_stopped(error))?;
        let position = lsn(rows.single()).ok_or_else(|| self.odd("no stop position"))?;
        let label_file = rows.get(0, 1).unwrap_or_default().to_owned();
        let tablespace_map = rows.get(0, 2).unwrap_or_default().to_owned();
        let labelled =
            labelled_timeline(&label_file).ok_or_else(|| self.odd("a label without its timeline"))?;
        // A standby promoted in between makes the stop fail; one whose upstream was promoted goes on, on another timeline.
        let timeline = if self.in_recovery { self.replayed_timeline()?.max(labelled) } else { labelled };
        let stopped_at = self.clock()?;
        let fail = |error: PgError| error.at("read the settings of", self.object.clone());
        let mut facts = facts(&mut self.sql).map_err(fail)?;
        facts.extend(sql_facts(&mut self.sql).map_err(fail)?);
        Ok(SessionStop { position, timeline, stopped_at, label_file, tablespace_map, facts })
    }
}

impl SqlBackup {
    fn not_stopped(&self, error: PgError) -> EngineError {
        match &error {
            PgError::Timeout(limit) => {
                let message = format!("the server did not stop it within {} s", limit.as_secs());
                EngineError::new("pg.timeout", "stop the backup of", self.object.clone(), message)
                    .retryable()
                    .hint("it was not asked to wait for its archive: look at its disks, and at its log")
            }
            PgError::Server(said) if said.code == "55000" && self.in_recovery => self.promoted().cause(error),
            _ => error.at("stop the backup of", self.object.clone()),
        }
    }
}
