//! The log as a stream (START_REPLICATION).

use std::io;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use everpoint_core::{LogOffset, Micros};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend::{self, CopyData};

use super::Replication;
use super::identity::{lsn, number};
use crate::client::{Connection, Frame, PgError, quote_identifier};
use crate::lsn::Lsn;

/// From 1970-01-01 to 2000-01-01, from where PostgreSQL counts.
const EPOCH_SHIFT: i64 = 946_684_800_000_000;

/// What comes out of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamEvent {
    /// A piece of the log.
    Data {
        /// Position of its first byte.
        start: LogOffset,
        /// Where the server's flushed log ended just before it sent this.
        server_end: LogOffset,
        /// When it was sent, by the server's clock.
        sent_at: Micros,
        /// The bytes.
        bytes: Bytes,
    },
    /// A sign of life.
    Keepalive {
        /// Up to where the server has sent.
        end: LogOffset,
        /// When, by the server's clock.
        sent_at: Micros,
        /// The server will close the connection unless it gets a status soon.
        reply_requested: bool,
    },
    /// The timeline is complete; the connection can be used for other commands again.
    TimelineEnd {
        /// The timeline that follows.
        next_timeline: u32,
        /// Where it forks off.
        next_start: LogOffset,
    },
}

/// A running stream.
#[derive(Debug)]
pub struct WalStream<'a> {
    connection: &'a mut Connection,
    /// The timeline had ended before anything was streamed.
    ended: Option<StreamEvent>,
    /// The server is in copy mode.
    copying: bool,
}

impl Replication {
    /// Starts streaming at `position` of `timeline`.
    ///
    /// # Errors
    /// [`PgError::Server`] if the server refuses: 58P01 the log is gone, 55006 the slot is in use, 42704 no such slot. The
    /// connection can be used on then.
    pub fn stream(
        &mut self,
        slot: Option<&str>,
        timeline: u32,
        position: LogOffset,
    ) -> Result<WalStream<'_>, PgError> {
        let slot = slot.map_or_else(String::new, |name| format!("SLOT {} ", quote_identifier(name)));
        let lsn = Lsn::from(position);
        let connection = &mut self.connection;
        connection.send_query(&format!("START_REPLICATION {slot}PHYSICAL {lsn} TIMELINE {timeline}"))?;
        match connection.receive_next()? {
            Frame::CopyBoth => Ok(WalStream { connection, ended: None, copying: true }),
            // Nothing left on this timeline: the server answers at once with the one that follows.
            Frame::Message(Message::RowDescription(_)) => {
                let ended = read_end(connection)?;
                Ok(WalStream { connection, ended: Some(ended), copying: false })
            }
            Frame::Error(error) => {
                if !error.is_fatal() {
                    connection.read_until_ready()?;
                }
                Err(PgError::Server(error))
            }
            other => Err(PgError::Protocol(format!("{other:?} in reply to START_REPLICATION"))),
        }
    }
}

impl WalStream<'_> {
    /// The next event; `None` if the time passed without one.
    ///
    /// # Errors
    /// [`PgError::Server`] if the server breaks off (58P01: it no longer has the log), [`PgError::Io`] if the connection broke
    /// or the server shuts down.
    pub fn next(&mut self, timeout: Option<Duration>) -> Result<Option<StreamEvent>, PgError> {
        if let Some(ended) = self.ended.take() {
            return Ok(Some(ended));
        }
        let Some(frame) = self.connection.receive(timeout)? else {
            return Ok(None);
        };
        match frame {
            Frame::Message(Message::CopyData(body)) => read_event(body.into_bytes()).map(Some),
            Frame::Message(Message::CopyDone) => {
                self.copying = false;
                self.connection.queue(|out| {
                    frontend::copy_done(out);
                    Ok(())
                })?;
                self.connection.flush()?;
                read_end(self.connection).map(Some)
            }
            Frame::Message(Message::CommandComplete(_)) => {
                self.copying = false;
                Err(PgError::Io(io::Error::new(
                    io::ErrorKind::ConnectionAborted,
                    "the server is shutting down",
                )))
            }
            Frame::Error(error) => {
                self.copying = false;
                if !error.is_fatal() {
                    self.connection.read_until_ready()?;
                }
                Err(PgError::Server(error))
            }
            other => Err(PgError::Protocol(format!("{other:?} in a stream of the log"))),
        }
    }

    /// Reports positions: written, flushed, applied (0: not said). Only what is durable may be said to be flushed; the
    /// server removes log and lets commits return because of it.
    ///
    /// # Errors
    /// If the connection broke.
    pub fn send_status(
        &mut self,
        written: LogOffset,
        flushed: LogOffset,
        applied: LogOffset,
        reply_requested: bool,
    ) -> Result<(), PgError> {
        let mut status = BytesMut::with_capacity(34);
        status.put_u8(b'r');
        for position in [written, flushed, applied] {
            status.put_u64(position.0);
        }
        status.put_i64(now().0.saturating_sub(EPOCH_SHIFT));
        status.put_u8(u8::from(reply_requested));
        self.connection.queue(|out| {
            CopyData::new(status.freeze())?.write(out);
            Ok(())
        })?;
        self.connection.flush()
    }

    /// Ends the stream in good order: the connection can be used for other commands afterwards. Data that is still on its
    /// way is dropped.
    ///
    /// # Errors
    /// If the connection broke, or the server does not end within `timeout`.
    pub fn finish(mut self, timeout: Duration) -> Result<(), PgError> {
        if !self.copying {
            return Ok(());
        }
        self.connection.queue(|out| {
            frontend::copy_done(out);
            Ok(())
        })?;
        self.connection.flush()?;
        self.copying = false;
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(PgError::Timeout(timeout));
            }
            match self.connection.receive(Some(left))? {
                Some(Frame::Message(Message::ReadyForQuery(_))) => return Ok(()),
                Some(Frame::Error(error)) if error.is_fatal() => return Err(PgError::Server(error)),
                _ => {}
            }
        }
    }
}

fn now() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Reads what follows the end of a timeline: one row with the timeline that follows and its start.
fn read_end(connection: &mut Connection) -> Result<StreamEvent, PgError> {
    let mut found = None;
    loop {
        match connection.receive_next()? {
            Frame::Message(Message::DataRow(body)) => {
                let row = crate::client::row(&body)?;
                if let [Some(timeline), Some(start), ..] = row.as_slice() {
                    found = Some((number(timeline)?, lsn(start)?));
                }
            }
            Frame::Message(Message::ReadyForQuery(_)) => break,
            Frame::Error(error) => return Err(PgError::Server(error)),
            _ => {}
        }
    }
    found
        .map(|(next_timeline, next_start)| StreamEvent::TimelineEnd { next_timeline, next_start })
        .ok_or_else(|| PgError::Protocol("a stream that ended without saying what follows".to_owned()))
}

fn read_event(mut body: Bytes) -> Result<StreamEvent, PgError> {
    let short = |_| PgError::Protocol("a replication message that is cut short".to_owned());
    let time = |micros: i64| Micros(micros.saturating_add(EPOCH_SHIFT));
    match body.try_get_u8().map_err(short)? {
        b'w' => {
            let start = LogOffset(body.try_get_u64().map_err(short)?);
            let server_end = LogOffset(body.try_get_u64().map_err(short)?);
            let sent_at = time(body.try_get_i64().map_err(short)?);
            Ok(StreamEvent::Data { start, server_end, sent_at, bytes: body })
        }
        b'k' => {
            let end = LogOffset(body.try_get_u64().map_err(short)?);
            let sent_at = time(body.try_get_i64().map_err(short)?);
            let reply_requested = body.try_get_u8().map_err(short)? != 0;
            Ok(StreamEvent::Keepalive { end, sent_at, reply_requested })
        }
        other => Err(PgError::Protocol(format!("replication message {other:#04x}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replication_messages_are_read_and_short_ones_refused() {
        let mut message = BytesMut::new();
        message.put_u8(b'w');
        message.put_u64(0x100_0000);
        message.put_u64(0x100_0040);
        message.put_i64(7);
        message.extend_from_slice(b"log");
        let whole = message.freeze();
        let expected = StreamEvent::Data {
            start: LogOffset(0x100_0000),
            server_end: LogOffset(0x100_0040),
            sent_at: Micros(EPOCH_SHIFT + 7),
            bytes: Bytes::from_static(b"log"),
        };
        assert_eq!(read_event(whole.clone()).unwrap(), expected);
        for length in 0..25 {
            assert!(read_event(whole.slice(..length)).is_err(), "{length}");
        }
        assert!(read_event(Bytes::from_static(b"x")).is_err());
    }
}
