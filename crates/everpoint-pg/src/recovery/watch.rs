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
            if let Some((port, sockets)) = self.let_in() {
                self.connection = self.connect(&port, &sockets);
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

    /// Port and first socket directory of a server that takes connections: the fourth, fifth and eighth line of
    /// `postmaster.pid`. One that is asked earlier writes that into its log, as if something had failed.
    fn let_in(&self) -> Option<(String, String)> {
        let text = fs::read_to_string(self.directory.join("postmaster.pid")).ok()?;
        let line = |number: usize| text.lines().nth(number).map(|line| line.trim().to_owned());
        let (port, sockets, state) = (line(3)?, line(4)?, line(7)?);
        (!sockets.is_empty() && matches!(state.as_str(), "ready" | "standby")).then_some((port, sockets))
    }

    fn connect(&self, port: &str, sockets: &str) -> Option<Connection> {
        let sockets = sockets.replace('\\', "\\\\").replace('\'', "\\'");
        self.users.iter().find_map(|user| {
            let text = format!(
                "host='{sockets}' port={port} user='{user}' dbname=postgres sslmode=disable connect_timeout=5 application_name=everpoint"
            );
            let config = Config::parse_in(&text, &Environment::with([])).ok()?;
            connect(&config, Purpose::Sql).ok()
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
