//! Asks a recovering server how far it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use everpoint_core::{LogOffset, Micros};

use super::collations;
use crate::client::{Config, Connection, Environment, Purpose, connect};
use crate::lsn::Lsn;

/// Between attempts to connect. Each that is refused is a line in the server's log: they become less frequent.
const RETRY: Duration = Duration::from_millis(250);
const RETRY_AT_LEAST: Duration = Duration::from_secs(4);

/// What the server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) in_recovery: bool,
    pub(super) paused: bool,
    /// End of the last record replayed.
    pub(super) replayed: LogOffset,
    /// Time of the last commit or abort replayed.
    pub(super) last_commit: Option<Micros>,
}

/// Connects over the server's own socket as soon as it lets anybody in.
///
/// Nothing depends on it but finer progress: a server whose superuser has another name, or that lets us in only with
/// a password, is followed by its log alone.
#[derive(Debug)]
pub(super) struct Watch {
    directory: PathBuf,
    users: Vec<String>,
    major: u32,
    connection: Option<Connection>,
    next_attempt: Instant,
    pause: Duration,
}

/// Where a running server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// The first socket directory; a host, if it has no socket.
    pub(super) place: String,
    pub(super) port: u16,
    pub(super) is_socket: bool,
}

/// The fourth to sixth line of `postmaster.pid` are the port, the first socket directory and the first host.
pub(super) fn address(directory: &Path) -> Option<Address> {
    let text = fs::read_to_string(directory.join("postmaster.pid")).ok()?;
    let line = |at| text.lines().nth(at).map(str::trim).filter(|line: &&str| !line.is_empty());
    let port = line(3)?.parse().ok()?;
    if let Some(socket) = line(4) {
        return Some(Address { place: socket.to_owned(), port, is_socket: true });
    }
    let host = line(5).filter(|host| *host != "*").unwrap_or("localhost");
    Some(Address { place: host.to_owned(), port, is_socket: false })
}

/// The role as which a running server lets us in over its socket.
pub(super) fn login(directory: &Path, user: &str) -> Option<String> {
    Watch::new(directory, 0, user).login().map(|(role, _)| role)
}

impl Watch {
    /// `user` is the system's name for the server's user, if it has one.
    pub(super) fn new(directory: &Path, major: u32, user: &str) -> Self {
        let mut users = vec!["postgres".to_owned()];
        users.extend([user.to_owned()].into_iter().filter(|user| !user.is_empty() && user != "postgres"));
        Self {
            directory: directory.to_owned(),
            users,
            major,
            connection: None,
            next_attempt: Instant::now(),
            pause: RETRY,
        }
    }

    /// How far it is; `None` if it does not let us ask.
    pub(super) fn look(&mut self) -> Option<Look> {
        if self.connection.is_none() && Instant::now() >= self.next_attempt {
            if self.lets_in() {
                self.connection = self.connect();
                self.pause = (self.pause * 2).min(RETRY_AT_LEAST);
            }
            self.next_attempt = Instant::now() + self.pause;
        }
        let look = self.ask();
        if look.is_none() {
            self.connection = None;
        }
        look
    }

    /// What the running server says that has changed with the machine: in words.
    pub(super) fn differences(&mut self) -> Vec<String> {
        let major = self.major;
        let Some(sql) = self.connection.as_mut() else { return Vec::new() };
        collations::asked(sql, major)
    }

    /// Whether the server takes connections: the eighth line of `postmaster.pid`. One that is asked earlier writes that into its
    /// log, as if something had failed.
    fn lets_in(&self) -> bool {
        let text = fs::read_to_string(self.directory.join("postmaster.pid")).unwrap_or_default();
        text.lines().nth(7).is_some_and(|state| matches!(state.trim(), "ready" | "standby"))
    }

    fn connect(&self) -> Option<Connection> {
        self.login().map(|(_, connection)| connection)
    }

    /// The first user whom it lets in, and the connection.
    fn login(&self) -> Option<(String, Connection)> {
        let Address { place, port, is_socket: true } = address(&self.directory)? else { return None };
        let sockets = place.replace('\\', "\\\\").replace('\'', "\\'");
        self.users.iter().find_map(|user| {
            let text = format!(
                "host='{sockets}' port={port} user='{user}' dbname=postgres sslmode=disable connect_timeout=5 application_name=everpoint"
            );
            let config = Config::parse_in(&text, &Environment::with([])).ok()?;
            Some((user.clone(), connect(&config, Purpose::Sql).ok()?))
        })
    }

    fn ask(&mut self) -> Option<Look> {
        let paused = if self.major >= 14 {
            "pg_catalog.pg_get_wal_replay_pause_state() = 'paused'"
        } else {
            "pg_catalog.pg_is_wal_replay_paused()"
        };
        // The pause can only be asked for while in recovery: CASE keeps it from being called later.
        let sql = format!(
            "SELECT r, CASE WHEN r THEN {paused} ELSE false END, pg_catalog.pg_last_wal_replay_lsn(), \
             (extract(epoch FROM pg_catalog.pg_last_xact_replay_timestamp()) * 1000000)::bigint \
             FROM (SELECT pg_catalog.pg_is_in_recovery() AS r) s"
        );
        let rows = self.connection.as_mut()?.query(&sql).ok()?;
        Some(Look {
            in_recovery: rows.get(0, 0)? == "t",
            paused: rows.get(0, 1)? == "t",
            replayed: rows.get(0, 2).and_then(|lsn| lsn.parse::<Lsn>().ok()).unwrap_or_default().into(),
            last_commit: rows.get(0, 3).and_then(|micros| micros.parse().ok()).map(Micros),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_server_says_where_it_is_reached() {
        let directory = tempfile::tempdir().unwrap();
        let says = |text: &str| {
            fs::write(directory.path().join("postmaster.pid"), text).unwrap();
            address(directory.path()).map(|it| (it.place, it.port, it.is_socket))
        };
        let with_socket = "7\n/data\n1\n5433\n/run/pg\nlocalhost\n";
        assert_eq!(says(with_socket), Some(("/run/pg".to_owned(), 5433, true)));
        assert_eq!(says("7\n/data\n1\n5433\n\n*\n"), Some(("localhost".to_owned(), 5433, false)));
        assert_eq!(says("7\n/data\n"), None);
    }
}
