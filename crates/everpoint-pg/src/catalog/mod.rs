//! What the server's settings and catalogs say: who it is, whether it can be protected, what to record with a backup.

mod archive;
mod check;
mod facts;
mod keeping;
mod leftovers;
mod lines;
mod session;
mod spaces;
mod standby;

pub use check::check;
pub(crate) use facts::live;
pub use facts::{facts, sql_facts};
pub(crate) use keeping::log_keeping;
pub use session::SqlBackup;

use everpoint_core::LogOffset;
use everpoint_engine::{EngineError, ServerIdentity};

use crate::client::{Config, NO_DATABASE, PgError, Purpose, connect, quote_literal};
use crate::lsn::Lsn;
use crate::recovery;
use crate::replication::Replication;

/// Asks a server who it is.
///
/// # Errors
/// If it can't be reached or refuses a replication connection.
pub fn identify(config: &Config) -> Result<ServerIdentity, EngineError> {
    let mut replication =
        Replication::open(config).map_err(|error| error.at("connect to", config.to_string()))?;
    replication.identify().map_err(|error| error.at("identify", config.to_string()))
}

/// Refuses an address whose database does not exist: a replication connection does not mind, and it is a mistake. A server
/// that lets nobody ask says nothing.
///
/// # Errors
/// If it does not exist.
pub(crate) fn has_database(config: &Config) -> Result<(), EngineError> {
    match connect(config, Purpose::Sql) {
        Err(error) if error.sqlstate() == Some(NO_DATABASE) => {
            Err(error.at("connect to", config.to_string()))
        }
        _ => Ok(()),
    }
}

/// Bytes of all databases, as far as the role may know them.
pub(crate) fn size(config: &Config) -> Option<u64> {
    let mut sql = connect(config, Purpose::Sql).ok()?;
    let query = "SELECT sum(pg_catalog.pg_database_size(oid))::bigint FROM pg_catalog.pg_database \
                 WHERE pg_catalog.has_database_privilege(oid, 'CONNECT')";
    sql.query(query).ok()?.single()?.parse().ok()
}

/// Whether the data directory holds a file of this name; `None` if the role may not ask. The privilege is looked up first: a
/// refused call would be an error in the server's log.
pub(crate) fn has_file(config: &Config, name: &str) -> Option<bool> {
    const MAY: &str =
        "SELECT pg_catalog.has_function_privilege('pg_catalog.pg_stat_file(text,boolean)', 'EXECUTE')";
    let mut sql = connect(config, Purpose::Sql).ok()?;
    if sql.query(MAY).ok()?.single() != Some("t") {
        return None;
    }
    let query = format!("SELECT (pg_catalog.pg_stat_file({}, true)).size IS NOT NULL", quote_literal(name));
    Some(sql.query(&query).ok()?.single() == Some("t"))
}

/// Whether the server shows that it is a restored copy, and of which cluster. Every role may ask; where nothing was set, that
/// is no error in the server's log.
pub(crate) fn copy_of(config: &Config) -> Option<String> {
    let query = format!("SELECT pg_catalog.current_setting({}, true)", quote_literal(recovery::COPY_SETTING));
    let rows = connect(config, Purpose::Sql).ok()?.query(&query).ok()?;
    // Empty where it was set, and is not any more.
    let shown = rows.single().filter(|shown| !shown.is_empty())?;
    Some(shown.split_once(" of ").map_or(shown, |(cluster, _)| cluster).to_owned())
}

/// Writes a named restore point; returns the end of its record.
///
/// # Errors
/// If no ordinary connection is possible, the role may not (EXECUTE on pg_create_restore_point), or the server is a standby.
pub fn restore_point(config: &Config, name: &str) -> Result<LogOffset, EngineError> {
    let object = format!("restore point {name} on {config}");
    let mut sql =
        connect(config, Purpose::Sql).map_err(|error| error.at("connect to", config.to_string()))?;
    let query = format!("SELECT pg_catalog.pg_create_restore_point({})", quote_literal(name));
    let rows = sql.query(&query).map_err(|error| {
        let denied = error.sqlstate() == Some("42501");
        let error = error.at("write", object.clone());
        if denied {
            error.hint(format!(
                "GRANT EXECUTE ON FUNCTION pg_catalog.pg_create_restore_point(text) TO {}",
                crate::client::quote_identifier(&config.user)
            ))
        } else {
            error
        }
    })?;
    let position = rows.single().and_then(|text| text.parse::<Lsn>().ok());
    position
        .map(LogOffset::from)
        .ok_or_else(|| PgError::Protocol("a restore point without a position".to_owned()).at("write", object))
}
