//! What jobs did, in an embedded database in the state directory. It can be deleted: the repository knows what counts.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use everpoint_app::AppError;
use everpoint_core::{FailureClass, Micros};
use everpoint_engine::beside;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, Row, params};
use serde_json::Value;

use super::job::Kind;

/// Jobs are kept so long: microseconds.
const KEPT: i64 = 30 * 86_400_000_000;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS job (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        kind TEXT NOT NULL,
        cluster TEXT NOT NULL,
        tried INTEGER NOT NULL,
        state TEXT NOT NULL,
        started INTEGER NOT NULL,
        ended INTEGER,
        report TEXT,
        error TEXT
    );
    CREATE INDEX IF NOT EXISTS job_by_kind ON job (kind, cluster, started);
    CREATE TABLE IF NOT EXISTS note (cluster TEXT NOT NULL, word TEXT NOT NULL, text TEXT NOT NULL, at INTEGER NOT NULL,
        PRIMARY KEY (cluster, word));
    CREATE TABLE IF NOT EXISTS known (kind TEXT NOT NULL, cluster TEXT NOT NULL, at INTEGER NOT NULL,
        PRIMARY KEY (kind, cluster));
";

/// One run of a job.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JobRow {
    pub(crate) id: i64,
    pub(crate) kind: String,
    pub(crate) cluster: String,
    /// 0: as scheduled or asked for; else which try after a failure.
    pub(crate) tried: u32,
    /// `running`, `ok`, `failed`, `skipped`, `interrupted`.
    pub(crate) state: String,
    pub(crate) started: Micros,
    pub(crate) ended: Option<Micros>,
    pub(crate) report: Option<Value>,
    pub(crate) error: Option<Value>,
}

impl JobRow {
    /// The code of its error.
    pub(crate) fn code(&self) -> Option<&str> {
        self.error.as_ref()?.pointer("/error/code")?.as_str()
    }
}

/// The database. Shared by all threads.
pub(crate) struct History {
    connection: Mutex<Connection>,
    place: String,
}

impl History {
    /// Opens or makes it. One that is no database any more is put aside: nothing in it is needed.
    ///
    /// # Errors
    /// If it can't be made.
    pub(crate) fn open(path: &Path) -> Result<Self, AppError> {
        let place = path.display().to_string();
        // Made by us, so that it has the directory's owner; what lies beside it later gets the owner of the file.
        beside::open_or_create(path, 0o640).map_err(|error| AppError::io("make", path, error))?;
        let usual = connect(path).or_else(|error| {
            if !may_lack_locks(&error) {
                return Err(error);
            }
            let connection = connect_alone(path)?;
            tracing::warn!("the file system of {place} lacks locks ({error}): only one process may use it");
            Ok(connection)
        });
        let connection = usual.or_else(|error| {
            tracing::warn!("{place} can't be used and begins anew: {error}");
            let mut aside = path.as_os_str().to_owned();
            aside.push(".broken");
            // If that is impossible, so is what follows, which tells why.
            let _ = std::fs::rename(path, aside);
            let _ = beside::open_or_create(path, 0o640);
            connect(path)
        });
        let connection = connection.map_err(|error| failed("open", &place, &error))?;
        let history = Self { connection: Mutex::new(connection), place };
        // Whoever wrote "running" is gone: only one daemon uses this directory.
        history
            .execute("UPDATE job SET state = 'interrupted', ended = started WHERE state = 'running'", &[])?;
        Ok(history)
    }

    /// A run begins; returns its number.
    ///
    /// # Errors
    /// If it can't be written.
    pub(crate) fn begin(
        &self,
        kind: Kind,
        cluster: &str,
        tried: u32,
        state: &str,
        now: Micros,
    ) -> Result<i64, AppError> {
        let sql = "INSERT INTO job (kind, cluster, tried, state, started) VALUES (?1, ?2, ?3, ?4, ?5)";
        let connection = self.lock();
        connection
            .execute(sql, params![kind.word(), cluster, tried, state, now.0])
            .map_err(|error| failed("write", &self.place, &error))?;
        Ok(connection.last_insert_rowid())
    }

    /// A run has ended. Old ones go.
    ///
    /// # Errors
    /// If it can't be written.
    pub(crate) fn end(
        &self,
        id: i64,
        state: &str,
        report: Option<&Value>,
        error: Option<&Value>,
        now: Micros,
    ) -> Result<(), AppError> {
        let text = |value: Option<&Value>| value.map(Value::to_string);
        let sql = "UPDATE job SET state = ?2, ended = ?3, report = ?4, error = ?5 WHERE id = ?1";
        self.execute(sql, params![id, state, now.0, text(report), text(error)])?;
        self.execute("DELETE FROM job WHERE started < ?1", params![now.0.saturating_sub(KEPT)])
    }

    /// The newest run of a kind.
    ///
    /// # Errors
    /// If it can't be read.
    pub(crate) fn last(&self, kind: Kind, cluster: &str) -> Result<Option<JobRow>, AppError> {
        let filter = Filter { kind: Some(kind.word()), cluster: Some(cluster), state: None, limit: 1 };
        Ok(self.list(&filter)?.into_iter().next())
    }

    /// The run of this number.
    ///
    /// # Errors
    /// If it can't be read.
    pub(crate) fn job(&self, id: i64) -> Result<Option<JobRow>, AppError> {
        let sql = format!("{SELECT} WHERE id = ?1");
        let found = self.lock().query_row(&sql, [id], row).optional();
        found.map_err(|error| failed("read", &self.place, &error))
    }

    /// Runs, the newest first.
    ///
    /// # Errors
    /// If it can't be read.
    pub(crate) fn list(&self, filter: &Filter<'_>) -> Result<Vec<JobRow>, AppError> {
        let sql = format!(
            "{SELECT} WHERE (?1 IS NULL OR kind = ?1) AND (?2 IS NULL OR cluster = ?2) AND (?3 IS NULL OR state = ?3)
             ORDER BY id DESC LIMIT ?4"
        );
        let connection = self.lock();
        let read = || -> rusqlite::Result<Vec<JobRow>> {
            let mut statement = connection.prepare(&sql)?;
            let rows =
                statement.query_map(params![filter.kind, filter.cluster, filter.state, filter.limit], row)?;
            rows.collect()
        };
        read().map_err(|error| failed("read", &self.place, &error))
    }

    /// When a job came to be known: nothing is caught up from before. If that is news, it is known since `at`.
    ///
    /// # Errors
    /// If it can't be read or written.
    pub(crate) fn known_since(&self, kind: Kind, cluster: &str, at: Micros) -> Result<Micros, AppError> {
        let key = params![kind.word(), cluster, at.0];
        self.execute("INSERT OR IGNORE INTO known (kind, cluster, at) VALUES (?1, ?2, ?3)", key)?;
        let sql = "SELECT at FROM known WHERE kind = ?1 AND cluster = ?2";
        let at = self.lock().query_row(sql, [kind.word(), cluster], |row| row.get(0));
        at.map(Micros).map_err(|error| failed("read", &self.place, &error))
    }

    /// Whether a job is known.
    ///
    /// # Errors
    /// If it can't be read.
    pub(crate) fn knows(&self, kind: Kind, cluster: &str) -> Result<bool, AppError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM known WHERE kind = ?1 AND cluster = ?2)";
        let known = self.lock().query_row(sql, [kind.word(), cluster], |row| row.get(0));
        known.map_err(|error| failed("read", &self.place, &error))
    }

    /// Remembers something of a cluster beyond a restart; `None`: it is so no more.
    ///
    /// # Errors
    /// If it can't be written.
    pub(crate) fn note(
        &self,
        cluster: &str,
        word: &str,
        text: Option<&str>,
        now: Micros,
    ) -> Result<(), AppError> {
        match text {
            Some(text) => self.execute(
                "INSERT OR REPLACE INTO note (cluster, word, text, at) VALUES (?1, ?2, ?3, ?4)",
                params![cluster, word, text, now.0],
            ),
            None => self.execute("DELETE FROM note WHERE cluster = ?1 AND word = ?2", params![cluster, word]),
        }
    }

    /// What is remembered.
    ///
    /// # Errors
    /// If it can't be read.
    pub(crate) fn noted(&self, cluster: &str, word: &str) -> Result<Option<String>, AppError> {
        let sql = "SELECT text FROM note WHERE cluster = ?1 AND word = ?2";
        let found = self.lock().query_row(sql, [cluster, word], |row| row.get(0)).optional();
        found.map_err(|error| failed("read", &self.place, &error))
    }

    /// The same of a database that a daemon may use now; `None` as well if it can't be read.
    pub(crate) fn noted_in(path: &Path, cluster: &str, word: &str) -> Option<String> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
        let sql = "SELECT text FROM note WHERE cluster = ?1 AND word = ?2";
        connection.query_row(sql, [cluster, word], |row| row.get(0)).ok()
    }

    fn execute(&self, sql: &str, values: &[&dyn rusqlite::ToSql]) -> Result<(), AppError> {
        let done = self.lock().execute(sql, values);
        done.map(|_| ()).map_err(|error| failed("write", &self.place, &error))
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which runs.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Filter<'a> {
    pub(crate) kind: Option<&'a str>,
    pub(crate) cluster: Option<&'a str>,
    pub(crate) state: Option<&'a str>,
    /// At most so many.
    pub(crate) limit: i64,
}

const SELECT: &str = "SELECT id, kind, cluster, tried, state, started, ended, report, error FROM job";

fn row(row: &Row<'_>) -> rusqlite::Result<JobRow> {
    let json = |text: Option<String>| text.and_then(|text| serde_json::from_str(&text).ok());
    Ok(JobRow {
        id: row.get(0)?,
        kind: row.get(1)?,
        cluster: row.get(2)?,
        tried: row.get(3)?,
        state: row.get(4)?,
        started: Micros(row.get(5)?),
        ended: row.get::<_, Option<i64>>(6)?.map(Micros),
        report: json(row.get(7)?),
        error: json(row.get(8)?),
    })
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.execute_batch(TABLES)?;
    Ok(connection)
}

/// As [`connect`], without locks and shared memory, which some file systems lack: one daemon alone uses it anyway.
fn connect_alone(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags_and_vfs(path, OpenFlags::default(), c"unix-none")?;
    connection.pragma_update(None, "journal_mode", "DELETE")?;
    connection.execute_batch(TABLES)?;
    Ok(connection)
}

fn may_lack_locks(error: &rusqlite::Error) -> bool {
    let lacking = [ErrorCode::SystemIoFailure, ErrorCode::FileLockingProtocolFailed, ErrorCode::CannotOpen];
    error.sqlite_error_code().is_some_and(|code| lacking.contains(&code))
}

fn failed(operation: &str, place: &str, error: &rusqlite::Error) -> AppError {
    AppError::new("serve.history", FailureClass::Failed, operation, place, error.to_string())
        .hint("it holds the history of jobs only: delete it if it is broken")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_remembered_and_what_was_cut_off_is_told() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("state.db");
        let history = History::open(&path).unwrap();
        let first = history.begin(Kind::Backup, "a", 0, "running", Micros(5)).unwrap();
        history.end(first, "failed", None, Some(&serde_json::json!({"code": "x"})), Micros(6)).unwrap();
        let second = history.begin(Kind::Backup, "a", 1, "running", Micros(7)).unwrap();
        drop(history);
        let history = History::open(&path).unwrap();
        let last = history.last(Kind::Backup, "a").unwrap().unwrap();
        assert_eq!((last.id, last.tried, last.state.as_str()), (second, 1, "interrupted"));
        let filter = Filter { state: Some("failed"), limit: 10, ..Filter::default() };
        let failed = history.list(&filter).unwrap();
        assert_eq!(failed.len(), 1);
        assert_eq!(failed[0].error, Some(serde_json::json!({"code": "x"})));
        assert_eq!(history.last(Kind::Bundle, "a").unwrap(), None);
        assert_eq!(history.known_since(Kind::Backup, "a", Micros(9)).unwrap(), Micros(9));
        assert_eq!(history.known_since(Kind::Backup, "a", Micros(10)).unwrap(), Micros(9));
        history.note("a", "slot", Some("gone"), Micros(1)).unwrap();
        assert_eq!(history.noted("a", "slot").unwrap().as_deref(), Some("gone"));
        assert_eq!(History::noted_in(&path, "a", "slot").as_deref(), Some("gone"));
        assert_eq!(History::noted_in(&home.path().join("none"), "a", "slot"), None);
        history.note("a", "slot", None, Micros(1)).unwrap();
        assert_eq!(history.noted("a", "slot").unwrap(), None);
    }

    #[test]
    fn a_broken_file_is_put_aside() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("state.db");
        std::fs::write(&path, vec![7; 5000]).unwrap();
        let history = History::open(&path).unwrap();
        assert!(history.last(Kind::Check, "a").unwrap().is_none());
        assert!(home.path().join("state.db.broken").exists());
    }

    #[test]
    fn a_file_system_without_locks_is_used_without() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("state.db");
        beside::open_or_create(&path, 0o640).unwrap();
        let connection = connect_alone(&path).unwrap();
        connection.execute("INSERT INTO note VALUES ('db', 'w', 't', 1)", []).unwrap();
        drop(connection);
        let count: i64 =
            connect(&path).unwrap().query_row("SELECT count(*) FROM note", [], |row| row.get(0)).unwrap();
        assert_eq!(count, 1);
        let lacking = |code| rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
        assert!(may_lack_locks(&lacking(rusqlite::ffi::SQLITE_IOERR_LOCK)));
        assert!(!may_lack_locks(&lacking(rusqlite::ffi::SQLITE_NOTADB)));
    }
}
