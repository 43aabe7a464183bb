//! A replication connection and what can be asked on it.

use std::time::{Duration, Instant};

use everpoint_core::{LogOffset, Micros};
use everpoint_engine::ServerIdentity;
use fallible_iterator::FallibleIterator;

use super::stream::StreamEvent;
use crate::client::{Config, Connection, PgError, Purpose, connect};
use crate::lsn::{Lsn, is_segment_size};

/// How long the server may take to tell the time.
const TIME_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection that takes replication commands.
#[derive(Debug)]
pub struct Replication {
    pub(super) connection: Connection,
}

impl Replication {
    /// Connects.
    ///
    /// # Errors
    /// As [`connect`].
    pub fn open(config: &Config) -> Result<Self, PgError> {
        Ok(Self { connection: connect(config, Purpose::Replication)? })
    }

    /// The connection below, for commands that this type does not know.
    #[must_use]
    pub const fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Who the server is and where its log ends (flushed; on a standby: received and flushed).
    ///
    /// # Errors
    /// If the connection broke or the answer can't be understood.
    pub fn identify(&mut self) -> Result<ServerIdentity, PgError> {
        let rows = self.connection.query("IDENTIFY_SYSTEM")?;
        let field = |column: usize| {
            rows.get(0, column)
                .ok_or_else(|| PgError::Protocol("a short answer to IDENTIFY_SYSTEM".to_owned()))
        };
        let system = number(field(0)?)?;
        let timeline = number(field(1)?)?;
        let position = lsn(field(2)?)?;
        Ok(ServerIdentity {
            system,
            timeline,
            history: self.timeline_history(timeline)?,
            position,
            version: number(&self.connection.show("server_version_num")?)?,
            version_text: self.connection.show("server_version")?,
            segment_size: self.segment_size()?,
            in_recovery: self.in_recovery()?,
        })
    }

    /// Size of a log segment in bytes.
    ///
    /// # Errors
    /// If the connection broke or the size is impossible.
    pub fn segment_size(&mut self) -> Result<u64, PgError> {
        let text = self.connection.show("wal_segment_size")?;
        parse_size(&text)
            .filter(|size| is_segment_size(*size))
            .ok_or_else(|| PgError::Protocol(format!("wal_segment_size {text}")))
    }

    /// Whether the server is a standby.
    ///
    /// # Errors
    /// If the connection broke.
    pub fn in_recovery(&mut self) -> Result<bool, PgError> {
        let setting = if self.connection.major() >= 14 { "in_hot_standby" } else { "transaction_read_only" };
        Ok(self.connection.show(setting)? == "on")
    }

    /// The content of a timeline's history file; empty for timeline 1, which has none.
    ///
    /// # Errors
    /// If the server does not have it.
    pub fn timeline_history(&mut self, timeline: u32) -> Result<Vec<u8>, PgError> {
        if timeline <= 1 {
            return Ok(Vec::new());
        }
        let mut content = None;
        // The content is sent as it is, in whatever encoding: it must not go through text.
        self.connection.query_with(&format!("TIMELINE_HISTORY {timeline}"), |body| {
            let ranges: Vec<_> = body.ranges().collect()?;
            content = ranges
                .get(1)
                .cloned()
                .flatten()
                .and_then(|range| body.buffer().get(range))
                .map(<[u8]>::to_vec);
            Ok(())
        })?;
        content.ok_or_else(|| PgError::Protocol("an empty answer to TIMELINE_HISTORY".to_owned()))
    }

    /// The server's clock. A replication connection has no command for it, but every message of a log stream is stamped: so
    /// a stream is opened at the log's end and asked for a sign of life.
    ///
    /// # Errors
    /// If the connection broke, or the server refuses to stream.
    pub fn server_time(&mut self) -> Result<Micros, PgError> {
        let rows = self.connection.query("IDENTIFY_SYSTEM")?;
        let (timeline, position) = match (rows.get(0, 1), rows.get(0, 2)) {
            (Some(timeline), Some(position)) => (number(timeline)?, lsn(position)?),
            _ => return Err(PgError::Protocol("a short answer to IDENTIFY_SYSTEM".to_owned())),
        };
        let mut stream = self.stream(None, timeline, position)?;
        stream.send_status(position, position, LogOffset(0), true)?;
        let deadline = Instant::now() + TIME_TIMEOUT;
        while Instant::now() < deadline {
            match stream.next(Some(Duration::from_secs(1)))? {
                Some(StreamEvent::Data { sent_at, .. } | StreamEvent::Keepalive { sent_at, .. }) => {
                    stream.finish(TIME_TIMEOUT)?;
                    return Ok(sent_at);
                }
                Some(StreamEvent::TimelineEnd { .. }) => {
                    return Err(PgError::Protocol("the timeline ended while asking for the time".to_owned()));
                }
                None => {}
            }
        }
        Err(PgError::Timeout(TIME_TIMEOUT))
    }
}

/// Whether the server is a standby. Before 14, a read-only session is the only sign of one.
///
/// # Errors
/// If the connection broke.
pub fn in_recovery(connection: &mut Connection) -> Result<bool, PgError> {
    let setting = if connection.major() >= 14 { "in_hot_standby" } else { "transaction_read_only" };
    Ok(connection.show(setting)? == "on")
}

pub(super) fn number<T: std::str::FromStr>(text: &str) -> Result<T, PgError> {
    text.trim().parse().map_err(|_| PgError::Protocol(format!("{text:?} in place of a number")))
}

pub(super) fn lsn(text: &str) -> Result<LogOffset, PgError> {
    text.parse::<Lsn>().map(LogOffset::from).map_err(|error| PgError::Protocol(error.to_string()))
}

/// Reads a size as PostgreSQL shows settings: a number of bytes, or with `kB`, `MB`, `GB`, `TB`.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "kB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        "TB" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_postgresql_shows_them() {
        assert_eq!(parse_size("16MB"), Some(16 << 20));
        assert_eq!(parse_size("1GB"), Some(1 << 30));
        assert_eq!(parse_size("8192"), Some(8192));
        assert_eq!(parse_size("x"), None);
        assert_eq!(parse_size("7 parsecs"), None);
    }
}
