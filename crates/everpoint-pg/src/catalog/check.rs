//! Looks at a server before it is protected.

use std::collections::BTreeMap;

use everpoint_core::Micros;
use everpoint_core::health::StandbyFacts;
use everpoint_engine::{CheckLine, CheckState, ServerIdentity};

use super::{leftovers, lines, spaces, standby};
use crate::client::{Config, Connection, NO_DATABASE, POOLER_HINT, PgError, Purpose, connect, quote_literal};
use crate::replication::Replication;

/// Settings that the lines are about.
const SETTINGS: [&str; 14] = [
    "wal_level",
    "max_wal_senders",
    "max_replication_slots",
    "max_slot_wal_keep_size",
    "archive_mode",
    "archive_command",
    "archive_library",
    "archive_timeout",
    "data_checksums",
    "full_page_writes",
    "fsync",
    "synchronous_standby_names",
    "synchronous_commit",
    "idle_replication_slot_timeout",
];

/// Queries whose single value is kept under a name of ours; what a role may not see is null, never an error in the server's log.
const VALUES: [(&str, &str); 8] = [
    ("wal_senders_used", "SELECT count(*) FROM pg_catalog.pg_stat_replication"),
    ("slots_used", "SELECT count(*) FROM pg_catalog.pg_replication_slots"),
    ("archived", "SELECT archived_count FROM pg_catalog.pg_stat_archiver"),
    ("archive_failed", "SELECT failed_count FROM pg_catalog.pg_stat_archiver"),
    (
        "archive_failing",
        "SELECT last_failed_wal FROM pg_catalog.pg_stat_archiver \
         WHERE last_failed_time > coalesce(last_archived_time, '-infinity')",
    ),
    (
        "managed_role",
        "SELECT rolname FROM pg_catalog.pg_roles \
         WHERE rolname IN ('rds_superuser', 'cloudsqlsuperuser', 'azure_pg_admin', 'alloydbsuperuser') LIMIT 1",
    ),
    (
        "replication_role",
        "SELECT rolreplication OR rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user",
    ),
    ("superuser", "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user"),
];

/// What was found out, before it is judged.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) user: String,
    pub(super) host: String,
    pub(super) application_name: String,
    pub(super) unix: bool,
    pub(super) encryption: Option<String>,
    pub(super) identity: Option<ServerIdentity>,
    /// Settings by name and values by the names of [`VALUES`]; those that can't be read are missing.
    pub(super) values: BTreeMap<String, String>,
    /// An ordinary connection is possible.
    pub(super) sql: bool,
    /// A pooler answers for SQL.
    pub(super) pooled: bool,
    /// EXECUTE on the backup functions.
    pub(super) may_start_backup: bool,
    pub(super) slot: Option<SlotFindings>,
}

/// What was found out about the slot.
#[derive(Debug, Default)]
pub(super) struct SlotFindings {
    pub(super) name: String,
    pub(super) exists: bool,
    /// Somebody receives by it; `None`: nobody tells.
    pub(super) active: Option<bool>,
    /// `reserved`, `extended`, `unreserved`, `lost`.
    pub(super) wal_status: Option<String>,
    /// Bytes of log that it holds back.
    pub(super) held_bytes: Option<u64>,
}

/// The lines of `check` for a server. Never fails: what is wrong is a line.
/// `standby_lag`: how far a standby may be behind.
#[must_use]
pub fn check(config: &Config, slot: Option<&str>, standby_lag: Micros) -> Vec<CheckLine> {
    let mut findings = Findings {
        user: config.user.clone(),
        host: config.hosts.first().map(|host| host.name.clone()).unwrap_or_default(),
        application_name: config.application_name.clone(),
        ..Findings::default()
    };
    let replication = Replication::open(config);
    let sql = connect(config, Purpose::Sql);
    let mut lines = Vec::new();
    let mut replication = match replication {
        Ok(replication) => Some(replication),
        Err(error) => {
            lines.push(no_connection(config, &error));
            None
        }
    };
    let mut sql = match sql {
        Ok(sql) => Some(sql),
        Err(error) => {
            tracing::debug!(%error, "no ordinary connection");
            lines.extend(no_database(config, &error));
            None
        }
    };
    findings.sql = sql.is_some();
    findings.pooled = sql.as_ref().is_some_and(Connection::is_pooled);
    if let Some(replication) = replication.as_mut() {
        look_by_replication(replication, slot, &mut findings);
    }
    let mut more = Vec::new();
    if let Some(sql) = sql.as_mut() {
        look_by_sql(sql, slot, &mut findings);
        more.extend(look_at_standby(sql, &findings).map(|facts| standby::line(&facts, standby_lag)));
        let primary = findings.identity.as_ref().is_some_and(|identity| !identity.in_recovery);
        more.extend(primary.then(|| leftovers::line(sql)).flatten());
    }
    if replication.is_none() && sql.is_none() {
        lines.extend(lines::managed(&findings));
        return lines;
    }
    lines.extend(lines::all(&findings));
    lines.extend(more);
    lines
}

fn look_at_standby(sql: &mut Connection, findings: &Findings) -> Option<StandbyFacts> {
    findings.identity.as_ref().filter(|identity| identity.in_recovery)?;
    standby::look(sql).unwrap_or_else(|error| {
        tracing::debug!(%error, "how far the standby is was not said");
        None
    })
}

fn no_connection(config: &Config, error: &PgError) -> CheckLine {
    let hint = match error.sqlstate() {
        Some("42501") => {
            Some(format!("ALTER ROLE {} REPLICATION", crate::client::quote_identifier(&config.user)))
        }
        Some("28000") => Some(format!(
            "if pg_hba.conf has no such line, add `hostssl replication {} <our address>/32 scram-sha-256` and SELECT \
             pg_reload_conf(); if the role does not exist: CREATE ROLE {} LOGIN REPLICATION PASSWORD '...'",
            config.user, config.user
        )),
        _ => None,
    };
    let pooler = matches!(error, PgError::Server(error) if error.is_of_pooler());
    let hint = hint.or_else(|| pooler.then(|| POOLER_HINT.to_owned()));
    let message = format!("no replication connection to {config}: {error}{}", cause_of(error));
    let hint = hint.or_else(|| match error {
        PgError::Parameter { hint, .. }
        | PgError::Tls { hint, .. }
        | PgError::Authentication { hint, .. } => hint.clone(),
        _ => None,
    });
    CheckLine { name: "connection".to_owned(), state: CheckState::Error, message, hint }
}

/// A replication connection does not mind a database that does not exist: it is a mistake all the same.
fn no_database(config: &Config, error: &PgError) -> Option<CheckLine> {
    (error.sqlstate() == Some(NO_DATABASE)).then(|| CheckLine {
        name: "database".to_owned(),
        state: CheckState::Error,
        message: format!("no ordinary connection to {config}: {error}"),
        hint: error.advice(),
    })
}

fn cause_of(error: &PgError) -> String {
    std::error::Error::source(error).map_or_else(String::new, |cause| format!(" ({cause})"))
}

fn look_by_replication(replication: &mut Replication, slot: Option<&str>, findings: &mut Findings) {
    match replication.identify() {
        Ok(identity) => findings.identity = Some(identity),
        Err(error) => tracing::debug!(%error, "not identified"),
    }
    look_at_connection(replication.connection(), findings);
    if let Some(name) = slot {
        let mut found = SlotFindings { name: name.to_owned(), ..SlotFindings::default() };
        if replication.connection().major() >= 15
            && let Ok(Some(position)) = replication.read_slot(name)
        {
            found.exists = true;
            let end = findings.identity.as_ref().map(|identity| identity.position);
            found.held_bytes = end.zip(position.restart).map(|(end, restart)| end.since(restart));
        }
        findings.slot = Some(found);
    }
}

fn look_at_connection(connection: &mut Connection, findings: &mut Findings) {
    findings.host = connection.host().name.clone();
    findings.unix = connection.host().is_unix();
    findings.encryption = connection.encryption();
    match connection.settings(&SETTINGS) {
        Ok(found) => findings.values.extend(found),
        Err(error) => tracing::debug!(%error, "settings not read"),
    }
}

fn look_by_sql(sql: &mut Connection, slot: Option<&str>, findings: &mut Findings) {
    if findings.identity.is_none() {
        look_at_connection(sql, findings);
    }
    for (name, query) in VALUES {
        if let Ok(rows) = sql.query(query)
            && let Some(value) = rows.single()
        {
            findings.values.insert(name.to_owned(), value.to_owned());
        }
    }
    let functions = if sql.major() >= 15 {
        "has_function_privilege('pg_catalog.pg_backup_start(text,boolean)', 'EXECUTE') AND \
         has_function_privilege('pg_catalog.pg_backup_stop(boolean)', 'EXECUTE')"
    } else {
        "has_function_privilege('pg_catalog.pg_start_backup(text,boolean,boolean)', 'EXECUTE') AND \
         has_function_privilege('pg_catalog.pg_stop_backup(boolean,boolean)', 'EXECUTE')"
    };
    findings.may_start_backup =
        sql.query(&format!("SELECT {functions}")).is_ok_and(|rows| rows.single() == Some("t"));
    if let Some(inside) = spaces::inside(sql) {
        findings.values.insert("tablespaces_inside".to_owned(), inside);
    }
    if let Some(name) = slot {
        look_at_slot(sql, name, findings);
    }
}

fn look_at_slot(sql: &mut Connection, name: &str, findings: &mut Findings) {
    // The end of the log may be asked for on a primary only; CASE keeps it from being called elsewhere.
    let query = format!(
        "SELECT active, wal_status, pg_catalog.pg_wal_lsn_diff(CASE WHEN pg_catalog.pg_is_in_recovery() \
         THEN pg_catalog.pg_last_wal_receive_lsn() ELSE pg_catalog.pg_current_wal_lsn() END, restart_lsn)::bigint \
         FROM pg_catalog.pg_replication_slots WHERE slot_name = {}",
        quote_literal(name)
    );
    match sql.query(&query) {
        Ok(rows) => {
            findings.slot = Some(SlotFindings {
                name: name.to_owned(),
                exists: !rows.0.is_empty(),
                active: rows.get(0, 0).map(|active| active == "t"),
                wal_status: rows.get(0, 1).map(str::to_owned),
                held_bytes: rows.get(0, 2).and_then(|text| text.parse().ok()),
            });
        }
        Err(error) => tracing::debug!(%error, "slot not seen by SQL"),
    }
}
