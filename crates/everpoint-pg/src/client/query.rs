//! Simple queries.

use std::time::{Duration, Instant};

use everpoint_core::name::escape;
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{DataRowBody, Message};
use postgres_protocol::message::frontend;

use super::{Connection, Frame, PgError};

/// So long a question may take that has no reason to take long. A server that does not answer then hangs.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);

/// How often the wish to stop is looked at.
const POLL: Duration = Duration::from_millis(250);

/// Until when an answer is waited for.
#[derive(Clone, Copy)]
pub(crate) struct Until<'a> {
    /// So long; `None`: as long as the connection lives.
    pub(crate) limit: Option<Duration>,
    /// True: no longer at all.
    pub(crate) stop: &'a dyn Fn() -> bool,
}

/// Rows of text. Columns are found by number, as the commands define them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows(pub Vec<Vec<Option<String>>>);

impl Rows {
    /// A field; `None` if it is null or not there.
    #[must_use]
    pub fn get(&self, row: usize, column: usize) -> Option<&str> {
        self.0.get(row)?.get(column)?.as_deref()
    }

    /// The first field of the first row.
    #[must_use]
    pub fn single(&self) -> Option<&str> {
        self.get(0, 0)
    }
}

impl Connection {
    /// Sends a query (or replication command) without waiting for the answer.
    ///
    /// # Errors
    /// If the connection broke.
    pub fn send_query(&mut self, sql: &str) -> Result<(), PgError> {
        self.queue(|out| frontend::query(sql, out))?;
        self.flush()
    }

    /// Runs one query and returns its rows.
    ///
    /// # Errors
    /// [`PgError::Server`] if the server refuses it; the connection can be used on then, unless the error is fatal.
    pub fn query(&mut self, sql: &str) -> Result<Rows, PgError> {
        let mut rows = Rows::default();
        self.query_with(sql, |body| {
            rows.0.push(row(body)?);
            Ok(())
        })?;
        Ok(rows)
    }

    /// As [`Connection::query_until`]; each value gives its bytes back with [`everpoint_core::name::unescape`].
    ///
    /// # Errors
    /// As [`Connection::query_until`].
    pub(crate) fn query_exact_until(&mut self, sql: &str, until: Until<'_>) -> Result<Rows, PgError> {
        let mut rows = Rows::default();
        self.run(sql, until, |body| {
            rows.0.push(exact_row(body)?);
            Ok(())
        })?;
        Ok(rows)
    }

    /// Runs one query that may take long, or must not.
    ///
    /// # Errors
    /// As [`Connection::query`]; [`PgError::Timeout`] or [`PgError::Stopped`] if the answer was no longer waited for: the query
    /// is cancelled then, and the connection of no use.
    pub(crate) fn query_until(&mut self, sql: &str, until: Until<'_>) -> Result<Rows, PgError> {
        let mut rows = Rows::default();
        self.run(sql, until, |body| {
            rows.0.push(row(body)?);
            Ok(())
        })?;
        Ok(rows)
    }

    /// Runs one query and gives each row to `take`, raw.
    ///
    /// # Errors
    /// As [`Connection::query`]; an error of `take` is returned when the answer has been read to its end.
    pub(crate) fn query_with(
        &mut self,
        sql: &str,
        take: impl FnMut(&DataRowBody) -> Result<(), PgError>,
    ) -> Result<(), PgError> {
        self.run(sql, Until { limit: Some(PATIENCE), stop: &|| false }, take)
    }

    /// The next message, if it comes in time.
    fn receive_until(&mut self, begun: Instant, until: Until<'_>) -> Result<Frame, PgError> {
        loop {
            let left = until.limit.map_or(POLL, |limit| limit.saturating_sub(begun.elapsed()).min(POLL));
            if let Some(frame) = self.receive(Some(left))? {
                return Ok(frame);
            }
            let late = until.limit.filter(|limit| begun.elapsed() >= *limit);
            if late.is_some() || (until.stop)() {
                self.give_up();
                return Err(late.map_or(PgError::Stopped, PgError::Timeout));
            }
        }
    }

    fn run(
        &mut self,
        sql: &str,
        until: Until<'_>,
        mut take: impl FnMut(&DataRowBody) -> Result<(), PgError>,
    ) -> Result<(), PgError> {
        self.send_query(sql)?;
        let begun = Instant::now();
        let mut failed = None;
        loop {
            match self.receive_until(begun, until)? {
                Frame::Message(Message::DataRow(body)) => {
                    if let Err(error) = take(&body) {
                        failed.get_or_insert(error);
                    }
                }
                Frame::Message(
                    Message::RowDescription(_) | Message::CommandComplete(_) | Message::EmptyQueryResponse,
                ) => {}
                Frame::Message(Message::ReadyForQuery(_)) => return failed.map_or(Ok(()), Err),
                Frame::Error(error) if error.is_fatal() => return Err(PgError::Server(error)),
                Frame::Error(error) => failed = Some(PgError::Server(error)),
                other => return Err(PgError::Protocol(format!("{other:?} in reply to a query"))),
            }
        }
    }

    /// Reads on until the server is ready for the next command. Returns the error that came on the way, if one did.
    ///
    /// # Errors
    /// If the connection broke.
    pub(crate) fn read_until_ready(&mut self) -> Result<Option<super::ServerError>, PgError> {
        let mut seen = None;
        loop {
            match self.receive_next()? {
                Frame::Message(Message::ReadyForQuery(_)) => return Ok(seen),
                Frame::Error(error) if error.is_fatal() => return Err(PgError::Server(error)),
                Frame::Error(error) => seen = Some(error),
                _ => {}
            }
        }
    }

    /// The value of a setting, in its own unit (`16MB`). Works on replication connections, too.
    ///
    /// # Errors
    /// If the server has no such setting or does not show it to us.
    pub fn show(&mut self, setting: &str) -> Result<String, PgError> {
        let rows = self.query(&format!("SHOW {setting}"))?;
        rows.single().map(str::to_owned).ok_or_else(|| PgError::Protocol(format!("no value of {setting}")))
    }
}

/// The fields of a row as text.
pub(crate) fn row(body: &DataRowBody) -> Result<Vec<Option<String>>, PgError> {
    fields(body, shown)
}

fn fields(body: &DataRowBody, text: fn(&[u8]) -> String) -> Result<Vec<Option<String>>, PgError> {
    let broken = |what: &str| PgError::Protocol(format!("a row that is {what}"));
    let ranges: Vec<_> = body.ranges().collect().map_err(|_| broken("cut short"))?;
    ranges
        .into_iter()
        .map(|range| {
            let Some(range) = range else { return Ok(None) };
            let bytes = body.buffer().get(range).ok_or_else(|| broken("cut short"))?;
            Ok(Some(text(bytes)))
        })
        .collect()
}

/// A value as text. It is in the encoding of the database, or of that in which a name of all databases was given: what is no
/// UTF-8 is escaped.
fn shown(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(|_| escape(bytes), str::to_owned)
}

/// The fields of a row, escaped so that each gives its bytes back: for paths.
pub(crate) fn exact_row(body: &DataRowBody) -> Result<Vec<Option<String>>, PgError> {
    fields(body, escape)
}

/// A name for SQL or a replication command, quoted.
#[must_use]
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text for SQL or a replication command, quoted. Correct for `standard_conforming_strings = on`, and for replication
/// commands, which know no backslash escapes.
#[must_use]
pub fn quote_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
