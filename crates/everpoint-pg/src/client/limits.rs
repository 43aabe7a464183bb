//! Time limits that a server, a database or a role sets for its sessions: ours may be silent, or wait, for longer. And
//! whether it keeps its warnings to itself: what a server passes over when it sends its files it tells in no other way.

use super::{Connection, PgError};

/// Each with the first major version that has it.
const LIMITS: [(&str, u32); 5] = [
    ("statement_timeout", 0),
    ("lock_timeout", 0),
    ("idle_in_transaction_session_timeout", 0),
    ("idle_session_timeout", 14),
    ("transaction_timeout", 17),
];

fn of(major: u32) -> impl Iterator<Item = &'static str> {
    LIMITS.into_iter().filter(move |(_, since)| major >= *since).map(|(name, _)| name)
}

/// Lifts them for a session of SQL that is our own. In one of a pooler nothing is set: the next who gets it would have it.
pub(super) fn lift(connection: &mut Connection) -> Result<(), PgError> {
    // The console of a pooler knows no SQL.
    if connection.parameter("server_version").is_some_and(|version| version.contains("bouncer")) {
        connection.set_pooled(true);
        return Ok(());
    }
    let rows = connection.query("SELECT pg_catalog.pg_backend_pid()")?;
    let backend = rows.single().and_then(|pid| pid.parse::<i32>().ok());
    connection.set_pooled(backend != connection.key_pid());
    if connection.is_pooled() {
        return Ok(());
    }
    connection.query(&lifting(connection.major())).map(drop)
}

fn lifting(major: u32) -> String {
    of(major).map(|name| format!("SET {name} = 0")).collect::<Vec<_>>().join("; ")
}

/// The setting that says which messages a session is sent.
const MESSAGES: &str = "client_min_messages";

/// What has to be set for a session of replication, because it is set otherwise. It can't do so itself: that is part of its
/// beginning.
pub(super) fn to_set(connection: &mut Connection) -> Result<Vec<(&'static str, &'static str)>, PgError> {
    let mut set = Vec::new();
    for name in of(connection.major()) {
        if connection.show(name)? != "0" {
            set.push((name, "0"));
        }
    }
    if !connection.tells_warnings()? {
        set.push((MESSAGES, "warning"));
    }
    Ok(set)
}

impl Connection {
    /// Whether the server sends its warnings to this session.
    ///
    /// # Errors
    /// If the connection broke.
    pub fn tells_warnings(&mut self) -> Result<bool, PgError> {
        // The levels above are refused, or were names of it before 12.
        Ok(!matches!(self.show(MESSAGES)?.as_str(), "error" | "fatal" | "panic"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_has_its_limits() {
        assert!(!lifting(13).contains("idle_session_timeout"));
        assert!(lifting(14).ends_with("SET idle_session_timeout = 0"));
        assert!(
            lifting(18).contains("SET transaction_timeout = 0") && lifting(18).contains("SET lock_timeout")
        );
    }
}
