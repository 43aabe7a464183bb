//! Facts that are recorded with a backup.

use crate::client::{Connection, PgError};
use crate::files::Live;
use crate::replication::{in_recovery, parse_size};

/// Settings that a replaying server must match or exceed, or that say what kind of log it is, and how much memory replay had.
const SETTINGS: [&str; 10] = [
    "wal_level",
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
    "full_page_writes",
    "track_commit_timestamp",
    "shared_buffers",
    "server_version_num",
];

/// Settings that only some roles may read: without them a backup is as good, but less can be told when it is restored.
const PRIVILEGED: &str = "shared_preload_libraries";

/// Facts that need an ordinary connection; each query gives names and values.
const QUERIES: [&str; 3] = [
    "SELECT 'extension ' || e.extname, e.extversion FROM pg_catalog.pg_extension e",
    "SELECT 'collation ' || n.nspname || '.' || c.collname, c.collversion FROM pg_catalog.pg_collation c \
     JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace WHERE c.collversion IS NOT NULL AND c.oid >= 16384",
    "SELECT 'locale ' || d.datname, d.datcollate || ' ' || d.datctype FROM pg_catalog.pg_database d",
];

/// Versions of the libraries that sort, as a collation of each tells it; servers without one have none, or refuse.
const LIBRARIES: [&str; 2] = [
    "SELECT 'collation library libc', v FROM (SELECT pg_catalog.pg_collation_actual_version(oid) AS v \
     FROM pg_catalog.pg_collation WHERE collprovider = 'c') s WHERE v IS NOT NULL LIMIT 1",
    "SELECT 'collation library icu', v FROM (SELECT pg_catalog.pg_collation_actual_version(oid) AS v \
     FROM pg_catalog.pg_collation WHERE collprovider = 'i' LIMIT 1) s WHERE v IS NOT NULL",
];

/// Numbers of all databases and tablespaces. A database of which a DROP was interrupted has a limit of -2 connections: nothing
/// can be done with it but to drop it again.
const LIVE: &str = "SELECT 'database', oid FROM pg_catalog.pg_database WHERE datconnlimit <> -2 \
     UNION ALL SELECT 'tablespace', oid FROM pg_catalog.pg_tablespace";

/// Since 15 each database chooses which library sorts.
const PROVIDERS: &str =
    "SELECT 'locale provider ' || datname, datlocprovider::text FROM pg_catalog.pg_database";

/// Since 15 a database remembers the version of its own collation.
const DATABASE_COLLATIONS: &str = "SELECT 'collation of database ' || datname, datcollversion \
     FROM pg_catalog.pg_database WHERE datcollversion IS NOT NULL";

/// Name and value of each fact that settings tell. Any kind of connection will do.
///
/// # Errors
/// If the connection broke.
pub fn facts(connection: &mut Connection) -> Result<Vec<(String, String)>, PgError> {
    let mut facts = Vec::new();
    for name in SETTINGS {
        facts.push((name.to_owned(), connection.show(name)?));
    }
    facts.extend(connection.setting(PRIVILEGED)?.map(|value| (PRIVILEGED.to_owned(), value)));
    for (name, setting) in [("wal_segment_size", "wal_segment_size"), ("page_size", "block_size")] {
        let text = connection.show(setting)?;
        let bytes = parse_size(&text).ok_or_else(|| PgError::Protocol(format!("{setting} {text}")))?;
        facts.push((name.to_owned(), bytes.to_string()));
    }
    let checksums = if connection.show("data_checksums")? == "on" { "1" } else { "0" };
    facts.push(("checksum_version".to_owned(), checksums.to_owned()));
    facts.push(("from_standby".to_owned(), in_recovery(connection)?.to_string()));
    Ok(facts)
}

/// Name and value of each fact that catalogs tell: extensions, collations (of the connected database), locales.
///
/// # Errors
/// If the connection broke or is none for SQL.
pub fn sql_facts(sql: &mut Connection) -> Result<Vec<(String, String)>, PgError> {
    let mut facts: Vec<(String, String)> = sql.settings(&[PRIVILEGED])?.into_iter().collect();
    let newer = if sql.major() >= 15 { &[DATABASE_COLLATIONS, PROVIDERS][..] } else { &[] };
    for query in QUERIES.iter().chain(newer) {
        facts.extend(sql.query(query)?.0.into_iter().filter_map(pair));
    }
    for query in LIBRARIES {
        facts.extend(sql.query(query).map(|rows| rows.0).unwrap_or_default().into_iter().filter_map(pair));
    }
    Ok(facts)
}

/// Databases and tablespaces that the server knows; `None` if it does not say.
pub(crate) fn live(sql: &mut Connection) -> Option<Live> {
    let rows = sql.query(LIVE).ok()?;
    let mut live = Live::default();
    for (kind, oid) in rows.0.into_iter().filter_map(pair) {
        let to = if kind == "database" { &mut live.databases } else { &mut live.tablespaces };
        to.insert(oid.parse().ok()?);
    }
    Some(live)
}

/// A row as name and value.
fn pair(row: Vec<Option<String>>) -> Option<(String, String)> {
    let mut fields = row.into_iter();
    fields.next().flatten().zip(fields.next().flatten())
}
