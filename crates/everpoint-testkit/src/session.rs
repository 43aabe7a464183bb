//! A small SQL connection.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{ErrorFields, Message};
use postgres_protocol::message::frontend;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// Directory of its Unix socket, and the port that its name holds.
    Socket(PathBuf, u16),
    /// A TCP port of the loopback interface.
    Loopback(u16),
}

/// Why a statement has no answer.
#[derive(Debug)]
pub enum SqlError {
    /// The server refused it: SQLSTATE and message.
    Refused {
        /// SQLSTATE, five characters.
        state: String,
        /// The server's message.
        message: String,
    },
    /// The connection broke, or could not be made: whether the statement took effect is unknown.
    Lost(String),
}

impl std::fmt::Display for SqlError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused { state, message } => write!(f, "the server refused it ({state}): {message}"),
            Self::Lost(why) => write!(f, "no connection: {why}"),
        }
    }
}

impl std::error::Error for SqlError {}

impl From<std::io::Error> for SqlError {
    fn from(error: std::io::Error) -> Self {
        Self::Lost(error.to_string())
    }
}

/// What a query brought back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Rows of all its statements; NULL is `None`.
    pub rows: Vec<Vec<Option<String>>>,
    /// Command tag of the last statement: `COMMIT`, `INSERT 0 1`, ...
    pub tag: String,
    /// Warnings and notices, SQLSTATE and message. A commit that a standby did not confirm comes with one (01000).
    pub notices: Vec<(String, String)>,
}

impl Answer {
    /// The first value of the first row.
    #[must_use]
    pub fn value(&self) -> Option<&str> {
        self.rows.first()?.first()?.as_deref()
    }
}

impl std::fmt::Display for Answer {
    /// As `psql -At` prints it: values joined by `|`, one line a row.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (number, row) in self.rows.iter().enumerate() {
            let line: Vec<&str> = row.iter().map(|value| value.as_deref().unwrap_or("")).collect();
            let before = if number == 0 { "" } else { "\n" };
            write!(f, "{before}{}", line.join("|"))?;
        }
        Ok(())
    }
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// A connection that speaks the simple query protocol, without passwords or TLS: for servers that trust the machine
/// they run on. Each call waits for the server, 10 minutes at most.
pub struct Session {
    stream: Stream,
    input: BytesMut,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Session")
    }
}

impl Session {
    /// Connects as `postgres` to a database.
    ///
    /// # Errors
    /// `Lost` if nothing listens there, `Refused` if the server does not take the connection.
    pub fn connect(address: &Address, database: &str) -> Result<Self, SqlError> {
        Self::connect_as(address, "postgres", database)
    }

    /// Connects as a user to a database.
    ///
    /// # Errors
    /// As [`Session::connect`].
    pub fn connect_as(address: &Address, user: &str, database: &str) -> Result<Self, SqlError> {
        let patience = Some(Duration::from_secs(600));
        let stream = match address {
            Address::Socket(directory, port) => {
                let stream = UnixStream::connect(directory.join(format!(".s.PGSQL.{port}")))?;
                stream.set_read_timeout(patience)?;
                Stream::Unix(stream)
            }
            Address::Loopback(port) => {
                let stream = TcpStream::connect(("127.0.0.1", *port))?;
                stream.set_read_timeout(patience)?;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
        };
        let mut session = Self { stream, input: BytesMut::with_capacity(8192) };
        let mut out = BytesMut::new();
        let parameters =
            [("user", user), ("database", database), ("client_encoding", "UTF8"), ("TimeZone", "UTC")];
        frontend::startup_message(parameters, &mut out)?;
        session.send(&out)?;
        session.until_ready()?;
        Ok(session)
    }

    /// Runs one or more statements and collects what they bring back. Several statements in one call are one
    /// transaction, unless they say otherwise.
    ///
    /// # Errors
    /// `Refused` with the server's first error; `Lost` if the connection broke.
    pub fn query(&mut self, sql: &str) -> Result<Answer, SqlError> {
        let mut out = BytesMut::new();
        frontend::query(sql, &mut out)?;
        self.send(&out)?;
        self.until_ready()
    }

    /// The first value that a query brings back, parsed.
    ///
    /// # Errors
    /// As [`Session::query`]; `Refused` too if there is no value or it does not parse.
    pub fn value<T: std::str::FromStr>(&mut self, sql: &str) -> Result<T, SqlError> {
        let answer = self.query(sql)?;
        answer.value().and_then(|value| value.parse().ok()).ok_or_else(|| SqlError::Refused {
            state: "-----".to_owned(),
            message: format!("expected one value of another kind, got {answer:?}"),
        })
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), SqlError> {
        match &mut self.stream {
            Stream::Unix(stream) => stream.write_all(bytes)?,
            Stream::Tcp(stream) => stream.write_all(bytes)?,
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<Message, SqlError> {
        let mut chunk = [0_u8; 8192];
        loop {
            if let Some(message) = Message::parse(&mut self.input)? {
                return Ok(message);
            }
            let count = match &mut self.stream {
                Stream::Unix(stream) => stream.read(&mut chunk)?,
                Stream::Tcp(stream) => stream.read(&mut chunk)?,
            };
            if count == 0 {
                return Err(SqlError::Lost("the server closed the connection".to_owned()));
            }
            self.input.extend_from_slice(chunk.get(..count).unwrap_or_default());
        }
    }

    fn until_ready(&mut self) -> Result<Answer, SqlError> {
        let mut answer = Answer::default();
        let mut refused = None;
        loop {
            match self.receive()? {
                Message::ReadyForQuery(_) => return refused.map_or(Ok(answer), Err),
                Message::CommandComplete(body) => body.tag()?.clone_into(&mut answer.tag),
                Message::DataRow(body) => {
                    let buffer = body.buffer();
                    let row = body.ranges().map(|range| {
                        Ok(range.map(|range| {
                            String::from_utf8_lossy(buffer.get(range).unwrap_or_default()).into_owned()
                        }))
                    });
                    answer.rows.push(row.collect()?);
                }
                Message::NoticeResponse(body) => answer.notices.push(state_and_message(body.fields())?),
                Message::ErrorResponse(body) => {
                    let (state, message) = state_and_message(body.fields())?;
                    let fatal =
                        state.starts_with("57P") || state.starts_with("53") || state.starts_with("28");
                    let error = SqlError::Refused { state, message };
                    // The server hangs up after a fatal error: what comes next is the end of the connection.
                    if fatal && !self.still_there() {
                        return Err(SqlError::Lost(error.to_string()));
                    }
                    refused.get_or_insert(error);
                }
                Message::AuthenticationCleartextPassword
                | Message::AuthenticationMd5Password(_)
                | Message::AuthenticationSasl(_) => {
                    let message = "the server asks for a password".to_owned();
                    return Err(SqlError::Refused { state: "28000".to_owned(), message });
                }
                _ => {}
            }
        }
    }

    /// Whether more comes from the server after an error.
    fn still_there(&mut self) -> bool {
        if !self.input.is_empty() {
            return true;
        }
        let mut chunk = [0_u8; 8192];
        let count = match &mut self.stream {
            Stream::Unix(stream) => stream.read(&mut chunk),
            Stream::Tcp(stream) => stream.read(&mut chunk),
        };
        match count {
            Ok(count) if count > 0 => {
                self.input.extend_from_slice(chunk.get(..count).unwrap_or_default());
                true
            }
            _ => false,
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut out = BytesMut::new();
        frontend::terminate(&mut out);
        // The server notices a closed connection as well.
        let _ = self.send(&out);
    }
}

fn state_and_message(mut fields: ErrorFields<'_>) -> Result<(String, String), SqlError> {
    let (mut state, mut message) = (String::new(), String::new());
    while let Some(field) = fields.next()? {
        let text = String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            b'C' => state = text,
            b'M' => message = text,
            _ => {}
        }
    }
    Ok((state, message))
}
