//! The stream of archives: before 15 one copy for each, since then one copy of typed messages for all.

use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use everpoint_engine::{EngineError, StopFlag};
use postgres_protocol::message::backend::Message;

use crate::client::{Connection, Frame, PgError, Rows, ServerError, exact_row};

/// How often the wish to stop is looked at while the server is silent.
const POLL: Duration = Duration::from_millis(250);

/// A server that sends nothing for so long while it sends files is gone, or its disk is. Before the first file it may wait for
/// a checkpoint that is spread: as long as it likes.
const SILENCE: Duration = Duration::from_secs(600);

/// So long it may take to end the backup when all files have come. It does not wait for its archive then.
const ENDING: Duration = Duration::from_secs(300);

/// SQLSTATE with which a server ends a backup in which it found damaged pages, after having sent everything.
const DATA_CORRUPTED: &str = "XX001";

/// A piece of the stream.
pub(super) enum Piece {
    /// An archive begins: number of the tablespace in the server's list.
    Archive(usize),
    /// Bytes of it.
    Data(Bytes),
    /// All archives are complete.
    End,
}

/// Reads the answer to BASE_BACKUP.
pub(super) struct Answer<'a> {
    connection: &'a mut Connection,
    stop: &'a StopFlag,
    object: &'a str,
    typed: bool,
    next_archive: usize,
    archives: usize,
    all_came: bool,
}

impl<'a> Answer<'a> {
    pub(super) fn new(connection: &'a mut Connection, stop: &'a StopFlag, object: &'a str) -> Self {
        let typed = connection.major() >= 15;
        Self { connection, stop, object, typed, next_archive: 0, archives: 0, all_came: false }
    }

    /// Says that all files have come: what is left is the end.
    pub(super) const fn has_come(&mut self) {
        self.all_came = true;
    }

    /// Says how many archives will come.
    pub(super) const fn expect(&mut self, archives: usize) {
        self.archives = archives;
    }

    /// One result set; its values give their bytes back.
    pub(super) fn rows(&mut self) -> Result<Rows, EngineError> {
        let mut rows = Rows::default();
        loop {
            match self.receive()? {
                Frame::Message(Message::DataRow(body)) => {
                    rows.0.push(exact_row(&body).map_err(|error| self.fail(error))?);
                }
                Frame::Message(Message::CommandComplete(_)) => return Ok(rows),
                Frame::Error(error) => return Err(self.fail(PgError::Server(error))),
                _ => {}
            }
        }
    }

    /// The next piece.
    pub(super) fn piece(&mut self) -> Result<Piece, EngineError> {
        loop {
            match self.receive()? {
                Frame::Message(Message::CopyOutResponse(_)) if self.typed => {}
                Frame::Message(Message::CopyOutResponse(_)) => return Ok(self.begin_archive()),
                Frame::Message(Message::CopyData(body)) => {
                    if let Some(piece) = self.content(body.into_bytes()).map_err(|error| self.fail(error))? {
                        return Ok(piece);
                    }
                }
                Frame::Message(Message::CopyDone) if self.typed || self.next_archive == self.archives => {
                    return Ok(Piece::End);
                }
                Frame::Message(Message::CopyDone) => {}
                Frame::Error(error) => return Err(self.fail(PgError::Server(error))),
                other => return Err(self.fail(PgError::Protocol(format!("{other:?} among archives")))),
            }
        }
    }

    /// Reads to the end. Returns whether the server found damaged pages.
    pub(super) fn finish(&mut self) -> Result<Option<ServerError>, EngineError> {
        let mut damaged = None;
        loop {
            match self.receive()? {
                Frame::Message(Message::ReadyForQuery(_)) => return Ok(damaged),
                Frame::Error(error) if error.code == DATA_CORRUPTED && !error.is_fatal() => {
                    damaged = Some(error)
                }
                Frame::Error(error) => return Err(self.fail(PgError::Server(error))),
                _ => {}
            }
        }
    }

    fn begin_archive(&mut self) -> Piece {
        let number = self.next_archive;
        self.next_archive += 1;
        Piece::Archive(number)
    }

    fn content(&mut self, mut body: Bytes) -> Result<Option<Piece>, PgError> {
        if !self.typed {
            return Ok(Some(Piece::Data(body)));
        }
        let kind = body.try_get_u8().map_err(|_| PgError::Protocol("an empty message".to_owned()))?;
        match kind {
            b'd' => Ok(Some(Piece::Data(body))),
            b'n' => Ok(Some(self.begin_archive())),
            // Progress, and a manifest that we did not ask for.
            b'p' | b'm' => Ok(None),
            other => Err(PgError::Protocol(format!("message {other:#04x} among archives"))),
        }
    }

    fn receive(&mut self) -> Result<Frame, EngineError> {
        let begun = Instant::now();
        loop {
            if self.stop.is_set() {
                // A server that waits for its checkpoint would not notice a closed connection for minutes.
                self.cancel();
                return Err(
                    EngineError::new("pg.stopped", "back up", self.object, "asked to stop").retryable()
                );
            }
            if let Some(frame) = self.connection.receive(Some(POLL)).map_err(|error| self.fail(error))? {
                return Ok(frame);
            }
            if let Some(limit) = self.limit().filter(|limit| begun.elapsed() >= *limit) {
                self.cancel();
                return Err(self.hangs(limit));
            }
        }
    }

    const fn limit(&self) -> Option<Duration> {
        match (self.all_came, self.next_archive) {
            (true, _) => Some(ENDING),
            (false, 0) => None,
            (false, _) => Some(SILENCE),
        }
    }

    fn hangs(&self, limit: Duration) -> EngineError {
        let (message, hint) = if self.all_came {
            (
                "it has sent all files, and does not end the backup",
                "it was not asked to wait for its archive: look",
            )
        } else {
            ("it sends nothing any more", "look")
        };
        let message = format!("{message}, for {} s", limit.as_secs());
        EngineError::new("pg.timeout", "back up", self.object, message)
            .retryable()
            .hint(format!("{hint} at its disks, and at its log"))
    }

    fn cancel(&self) {
        if let Some(Err(error)) = self.connection.canceller().map(|canceller| canceller.cancel()) {
            tracing::debug!(%error, "backup command not cancelled");
        }
    }

    fn fail(&self, error: PgError) -> EngineError {
        error.at("back up", self.object)
    }
}
