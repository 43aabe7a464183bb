//! An open connection: messages in, messages out.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;

use super::config::{Config, Host};
use super::socket::{Address, Plain, Socket};
use super::{PgError, Purpose, ServerError};

/// Bytes asked of the socket at once.
const READ_BYTES: usize = 128 << 10;

/// Longest message that is accepted. WAL and backup data come in pieces of at most 128 KiB; a row of a catalog query may
/// be longer. A stream out of step shows as a length beyond this.
const MAX_MESSAGE: usize = 64 << 20;

/// So many of the server's warnings are kept for whoever asks for them.
const MAX_WARNINGS: usize = 1000;

/// Message type of CopyBothResponse, which `postgres-protocol` does not know.
const COPY_BOTH_TAG: u8 = b'W';

/// A message from the server. Notices and parameter changes are handled on the way and never appear.
pub enum Frame {
    /// Any message that has no case of its own.
    Message(Message),
    /// The server answers START_REPLICATION: both sides may send copy data now.
    CopyBoth,
    /// An error. The server goes on with ReadyForQuery unless it is fatal.
    Error(ServerError),
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::CopyBoth => "CopyBothResponse",
            Self::Error(_) => "ErrorResponse",
            Self::Message(message) => message_name(message),
        })
    }
}

fn message_name(message: &Message) -> &'static str {
    match message {
        Message::CopyData(_) => "CopyData",
        Message::CopyDone => "CopyDone",
        Message::CopyInResponse(_) => "CopyInResponse",
        Message::CopyOutResponse(_) => "CopyOutResponse",
        Message::CommandComplete(_) => "CommandComplete",
        Message::DataRow(_) => "DataRow",
        Message::RowDescription(_) => "RowDescription",
        Message::ReadyForQuery(_) => "ReadyForQuery",
        Message::AuthenticationOk => "AuthenticationOk",
        _ => "another message",
    }
}

/// An open connection. Dropping it closes the session.
pub struct Connection {
    socket: Socket,
    input: BytesMut,
    output: BytesMut,
    chunk: Vec<u8>,
    read_timeout: Option<Duration>,
    parameters: BTreeMap<String, String>,
    key: Option<(i32, i32)>,
    host: Host,
    address: Address,
    config: Config,
    purpose: Purpose,
    pooled: bool,
    /// An answer was given up: whatever comes now belongs to another question.
    out_of_step: bool,
    warnings: Vec<ServerError>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("host", &self.host).field("tls", &self.is_encrypted()).finish()
    }
}

impl Connection {
    pub(super) fn new(
        socket: Socket,
        host: &Host,
        address: &Address,
        config: &Config,
        purpose: Purpose,
    ) -> Self {
        Self {
            socket,
            input: BytesMut::new(),
            output: BytesMut::new(),
            chunk: vec![0; READ_BYTES],
            read_timeout: None,
            parameters: BTreeMap::new(),
            key: None,
            host: host.clone(),
            address: address.clone(),
            config: config.clone(),
            purpose,
            pooled: false,
            out_of_step: false,
            warnings: Vec::new(),
        }
    }

    /// What it is for.
    pub(super) const fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Whether a pooler stands between: then two questions may meet two sessions of the server, and whatever is set in one of
    /// them is left to somebody else. Known of connections for SQL.
    #[must_use]
    pub const fn is_pooled(&self) -> bool {
        self.pooled
    }

    pub(super) const fn set_pooled(&mut self, pooled: bool) {
        self.pooled = pooled;
    }

    /// Process number of the session, as the other side gave it when it began.
    pub(super) fn key_pid(&self) -> Option<i32> {
        self.key.map(|key| key.0)
    }

    /// Gives the running command up. The connection is of no use afterwards.
    pub(super) fn give_up(&mut self) {
        self.out_of_step = true;
        if let Some(Err(error)) = self.canceller().map(|canceller| canceller.cancel()) {
            tracing::debug!(%error, "command not cancelled");
        }
    }

    /// The server's warnings since this was asked last, the first thousand.
    pub(crate) fn take_warnings(&mut self) -> Vec<ServerError> {
        std::mem::take(&mut self.warnings)
    }

    /// The host that answered.
    #[must_use]
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// The parameters with which it was opened.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Whether it is under TLS.
    #[must_use]
    pub const fn is_encrypted(&self) -> bool {
        matches!(self.socket, Socket::Tls(_))
    }

    /// Protocol version and cipher suite, if it is under TLS.
    #[must_use]
    pub fn encryption(&self) -> Option<String> {
        let tls = self.socket.tls()?;
        let version = tls.protocol_version()?;
        let suite = tls.negotiated_cipher_suite()?.suite();
        Some(format!("{version:?}, {suite:?}"))
    }

    /// The server's own certificate, DER, if it is under TLS.
    pub(super) fn certificate(&self) -> Option<&[u8]> {
        self.socket.tls()?.peer_certificates()?.first().map(AsRef::as_ref)
    }

    /// A parameter that the server reports by itself (`server_version`, `in_hot_standby`, ...).
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// The major version (13, 14, ...), 0 if the server does not say.
    #[must_use]
    pub fn major(&self) -> u32 {
        let version = self.parameter("server_version").unwrap_or_default();
        let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or(0)
    }

    pub(super) fn set_key(&mut self, key: (i32, i32)) {
        self.key = Some(key);
    }

    /// What cancels the running command from another thread.
    #[must_use]
    pub fn canceller(&self) -> Option<Canceller> {
        Some(Canceller {
            key: self.key?,
            host: self.host.clone(),
            address: self.address.clone(),
            config: self.config.clone(),
        })
    }

    /// Adds messages to what will be sent. The closure writes whole messages.
    ///
    /// # Errors
    /// If the closure fails (a text holds a zero byte).
    pub fn queue(&mut self, write: impl FnOnce(&mut BytesMut) -> io::Result<()>) -> Result<(), PgError> {
        write(&mut self.output).map_err(|error| PgError::Protocol(error.to_string()))
    }

    /// Sends what is queued.
    ///
    /// # Errors
    /// If the connection broke, or took nothing for a minute.
    pub fn flush(&mut self) -> Result<(), PgError> {
        if self.out_of_step {
            self.output.clear();
            return Err(PgError::Io(io::ErrorKind::ConnectionAborted.into()));
        }
        self.socket.write_all(&self.output)?;
        self.output.clear();
        self.socket.flush()?;
        Ok(())
    }

    /// The next message; `None` if `timeout` passed without one. `timeout` `None` waits for as long as the connection
    /// lives (TCP keepalives notice when it does not).
    ///
    /// # Errors
    /// If the connection broke or the stream is out of step.
    pub fn receive(&mut self, timeout: Option<Duration>) -> Result<Option<Frame>, PgError> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        loop {
            while let Some(frame) = self.buffered()? {
                if let Some(frame) = self.sort_out(frame)? {
                    return Ok(Some(frame));
                }
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            // Zero means "for ever" to the socket: ask for what is there already with the shortest time instead.
            let wait = left.map(|left| left.max(Duration::from_millis(1)));
            if !self.fill(wait)? && left.is_none_or(|left| left <= Duration::from_millis(1)) {
                return Ok(None);
            }
        }
    }

    /// The next message; waits as long as the connection lives.
    ///
    /// # Errors
    /// As [`Connection::receive`].
    pub fn receive_next(&mut self) -> Result<Frame, PgError> {
        loop {
            if let Some(frame) = self.receive(None)? {
                return Ok(frame);
            }
        }
    }

    /// A message that is in the buffer whole.
    fn buffered(&mut self) -> Result<Option<Frame>, PgError> {
        let Some((&tag, rest)) = self.input.split_first() else {
            return Ok(None);
        };
        let Some(length) = rest.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if !(4..=MAX_MESSAGE).contains(&length) {
            return Err(PgError::Protocol(format!("a message of {length} bytes")));
        }
        if self.input.len() <= length {
            return Ok(None);
        }
        if tag == COPY_BOTH_TAG {
            self.input.advance(length + 1);
            return Ok(Some(Frame::CopyBoth));
        }
        let message =
            Message::parse(&mut self.input).map_err(|error| PgError::Protocol(error.to_string()))?;
        Ok(message.map(|message| match message {
            Message::ErrorResponse(body) => Frame::Error(ServerError::read(body.fields())),
            message => Frame::Message(message),
        }))
    }

    /// Takes out what may come at any time and concerns no command.
    fn sort_out(&mut self, frame: Frame) -> Result<Option<Frame>, PgError> {
        let text = |error: io::Error| PgError::Protocol(error.to_string());
        match frame {
            Frame::Message(Message::NoticeResponse(body)) => {
                let notice = ServerError::read(body.fields());
                if notice.severity == "WARNING" {
                    tracing::warn!(host = %self.host, code = notice.code, "server: {}", notice.message);
                    if self.warnings.len() < MAX_WARNINGS {
                        self.warnings.push(notice);
                    }
                } else {
                    tracing::debug!(host = %self.host, severity = notice.severity, "server: {}", notice.message);
                }
                Ok(None)
            }
            Frame::Message(Message::ParameterStatus(body)) => {
                let name = body.name().map_err(text)?.to_owned();
                // A search path may name a schema that is no UTF-8: none of the parameters that count here do.
                if let Ok(value) = body.value() {
                    self.parameters.insert(name, value.to_owned());
                }
                Ok(None)
            }
            Frame::Message(Message::NotificationResponse(_)) => Ok(None),
            frame => Ok(Some(frame)),
        }
    }

    /// Reads from the socket once; `false` if the time passed.
    fn fill(&mut self, timeout: Option<Duration>) -> Result<bool, PgError> {
        if self.read_timeout != timeout {
            self.socket.set_read_timeout(timeout)?;
            self.read_timeout = timeout;
        }
        match self.socket.read(&mut self.chunk) {
            Ok(0) => Err(PgError::Io(io::ErrorKind::UnexpectedEof.into())),
            Ok(count) => {
                self.input.extend_from_slice(self.chunk.get(..count).unwrap_or_default());
                Ok(true)
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                ) =>
            {
                // A system that reports a dead peer as a time-out says so with an unlimited wait, too.
                if error.kind() == io::ErrorKind::TimedOut && timeout.is_none() {
                    return Err(PgError::Io(error));
                }
                Ok(false)
            }
            Err(error) => Err(PgError::Io(error)),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // A courtesy: a server that gets it ends the session at once. If it can't be sent, the closed socket says the same.
        self.output.clear();
        frontend::terminate(&mut self.output);
        if let Err(error) = self.socket.write_all(&self.output).and_then(|()| self.socket.flush()) {
            tracing::trace!(%error, "no farewell to the server");
        }
    }
}

/// Cancels the command that a connection runs.
#[derive(Debug, Clone)]
pub struct Canceller {
    key: (i32, i32),
    host: Host,
    address: Address,
    config: Config,
}

impl Canceller {
    /// Asks the server to cancel. It may finish the command all the same.
    ///
    /// # Errors
    /// If the server can't be reached.
    pub fn cancel(&self) -> Result<(), PgError> {
        let plain = Plain::connect(&self.address, &self.config)?;
        let mut socket = super::open::encrypt(plain, &self.host, &self.config)?;
        let mut output = BytesMut::new();
        frontend::cancel_request(self.key.0, self.key.1, &mut output);
        socket.write_all(&output)?;
        socket.flush()?;
        // The server closes the connection once it has passed the request on.
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut rest = [0; 1];
        if let Err(error) = socket.read(&mut rest) {
            tracing::trace!(%error, "no end of the cancelling connection seen");
        }
        Ok(())
    }
}
