//! Errors of a connection, and how they become [`EngineError`]s.

use std::io;
use std::time::Duration;

use everpoint_core::FailureClass;
use everpoint_engine::EngineError;
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::ErrorFields;

/// What to do where a pooler stands between.
pub(crate) const POOLER_HINT: &str = "the address leads to a pooler (PgBouncer, Odyssey, …): name host and port of the server itself; \
     backups and capture speak the replication protocol, and need a session of their own";

/// SQLSTATE: the database does not exist.
pub(crate) const NO_DATABASE: &str = "3D000";

/// What the server said in an ErrorResponse or a NoticeResponse. Its `Display` leaves out the message itself, so that it
/// can stand as the cause below an error that shows the message.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
#[error("{severity} {code}{}", self.addition())]
pub struct ServerError {
    /// `ERROR`, `FATAL`, `PANIC`, `WARNING`, `NOTICE`, ... never translated.
    pub severity: String,
    /// SQLSTATE, five characters.
    pub code: String,
    /// The primary message, in the server's language.
    pub message: String,
    /// Detail, if there is one.
    pub detail: Option<String>,
    /// Hint, if there is one.
    pub hint: Option<String>,
    /// File of the server's source and function in it that said so, if it tells; never translated.
    pub origin: Option<(String, String)>,
}

impl ServerError {
    /// Reads the fields of a message. Fields that are broken are left empty: an error must not hide behind another.
    pub(crate) fn read(mut fields: ErrorFields<'_>) -> Self {
        let mut error = Self::default();
        let (mut localized, mut file, mut routine) = (String::new(), None, None);
        while let Ok(Some(field)) = fields.next() {
            let value = everpoint_core::name::escape(field.value_bytes());
            match field.type_() {
                b'S' => localized = value,
                b'V' => error.severity = value,
                b'C' => error.code = value,
                b'M' => error.message = value,
                b'D' => error.detail = Some(value),
                b'H' => error.hint = Some(value),
                b'F' => file = Some(value),
                b'R' => routine = Some(value),
                _ => {}
            }
        }
        if error.severity.is_empty() {
            error.severity = localized;
        }
        error.origin = file.zip(routine);
        error
    }

    /// Whether the server ends the session after it.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(self.severity.as_str(), "FATAL" | "PANIC")
    }

    /// File of the source and function in it, empty if the server does not tell.
    fn site(&self) -> (&str, &str) {
        let origin = self.origin.as_ref();
        origin.map_or(("", ""), |(file, routine)| (file.rsplit('/').next().unwrap_or_default(), routine))
    }

    /// Whether it is the account of the server that lacks a right on a file, not the role. Both have the same code.
    pub(crate) fn is_of_account(&self) -> bool {
        let opens = match self.site() {
            ("genfile.c", routine) => routine != "convert_and_check_filename",
            (file, _) => ["fd.c", "basebackup.c", "copydir.c", "file_utils.c", "xlog.c"].contains(&file),
        };
        self.code == "42501" && !self.is_fatal() && opens
    }

    /// Whether a pooler said it: one that does not pass on what replication needs.
    #[must_use]
    pub fn is_of_pooler(&self) -> bool {
        self.message.contains("unsupported startup parameter")
    }

    fn addition(&self) -> String {
        self.detail.as_ref().map_or_else(String::new, |detail| format!(": {detail}"))
    }
}

/// Why a connection failed. Never holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum PgError {
    /// A connection parameter is wrong, or a file that it names.
    #[error("{message}")]
    Parameter {
        /// What is wrong.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// No socket, or the socket broke.
    #[error("the connection failed")]
    Io(#[source] io::Error),
    /// TLS was refused, or the server's certificate was.
    #[error("{message}")]
    Tls {
        /// What is wrong.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// Authentication could not be carried out.
    #[error("{message}")]
    Authentication {
        /// What is wrong.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// The server answered with an error.
    #[error("{}", .0.message)]
    Server(#[source] ServerError),
    /// The server did not answer in time.
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// It was asked to stop waiting.
    #[error("it was asked to stop")]
    Stopped,
    /// The server sent what it should not.
    #[error("unexpected answer: {0}")]
    Protocol(String),
}

impl From<io::Error> for PgError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl PgError {
    /// A wrong connection parameter.
    pub(crate) fn parameter(message: impl Into<String>) -> Self {
        Self::Parameter { message: message.into(), hint: None }
    }

    /// The SQLSTATE, if the server said one.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Server(error) => Some(&error.code),
            _ => None,
        }
    }

    /// Whether the same may succeed later without anybody's doing.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Io(_) | Self::Timeout(_) | Self::Stopped => true,
            // 08 connection, 53 resources (too many connections), 57P server shutting down or starting, 55006 slot still
            // held by a connection that is gone, 40 serialization.
            Self::Server(error) => {
                let pooler = error.is_of_pooler();
                !pooler
                    && ["08", "53", "57P", "55006", "40"].iter().any(|prefix| error.code.starts_with(prefix))
            }
            Self::Parameter { .. } | Self::Tls { .. } | Self::Authentication { .. } | Self::Protocol(_) => {
                false
            }
        }
    }

    /// The stable code of the error; see docs/ERRORS.md.
    #[must_use]
    pub fn stable_code(&self) -> &'static str {
        match self {
            Self::Parameter { .. } => "pg.parameter",
            Self::Io(_) => "pg.connection",
            Self::Tls { .. } => "pg.tls",
            Self::Authentication { .. } => "pg.authentication",
            Self::Timeout(_) => "pg.timeout",
            Self::Stopped => "pg.stopped",
            Self::Server(error) if error.is_of_pooler() => "pg.pooler",
            Self::Protocol(_) => "pg.protocol",
            Self::Server(error) => match error.code.as_str() {
                code if code.starts_with("28") => "pg.authentication",
                "57P03" => "pg.starting",
                code if code.starts_with("57P") => "pg.shutdown",
                "53300" => "pg.too_many_connections",
                "42501" => "pg.privilege",
                NO_DATABASE => "pg.database",
                "55006" => "pg.slot_in_use",
                _ => "pg.server",
            },
        }
    }

    /// Makes it an error of the engine: what was tried, on what.
    #[must_use]
    pub fn at(self, operation: &'static str, object: impl Into<String>) -> EngineError {
        let mut error = EngineError::new(self.stable_code(), operation, object, self.to_string());
        error.retryable = self.is_retryable();
        error.hint = self.advice();
        if matches!(self, Self::Parameter { .. }) || self.sqlstate() == Some(NO_DATABASE) {
            error.class = FailureClass::Usage;
        }
        match self {
            Self::Io(cause) => error.cause(cause),
            Self::Server(cause) => error.cause(cause),
            _ => error,
        }
    }

    /// What to do.
    pub(crate) fn advice(&self) -> Option<String> {
        match self {
            Self::Parameter { hint, .. } | Self::Tls { hint, .. } | Self::Authentication { hint, .. } => {
                hint.clone()
            }
            Self::Server(error) if error.is_of_pooler() => Some(POOLER_HINT.to_owned()),
            Self::Server(error) => error.hint.clone().or_else(|| advice_for(error)),
            Self::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => Some(
                "is the server running there, and does listen_addresses include that address?".to_owned(),
            ),
            Self::Io(_) | Self::Timeout(_) | Self::Stopped | Self::Protocol(_) => None,
        }
    }
}

fn advice_for(error: &ServerError) -> Option<String> {
    let advice = match error.code.as_str() {
        "28P01" => "check the password (password=, PGPASSWORD, or a line in ~/.pgpass)",
        "28000" => {
            "allow it in pg_hba.conf, e.g. `hostssl replication <user> <address>/32 scram-sha-256`, \
             then SELECT pg_reload_conf()"
        }
        "42501" => refused_because(error),
        NO_DATABASE => {
            "correct the name of the database in the address, such as /postgres (without one, that of the user is meant): any one \
             that exists does, the whole server is protected"
        }
        "53300" => "raise max_wal_senders or max_connections, or close idle connections",
        "55006" => {
            "another receiver holds the slot, or the server has not yet noticed that an old one is gone"
        }
        "XX000" if error.site().1 == "_tarWriteHeader" => {
            "over the network the server can't send a file whose path below its directory is longer than 99 bytes: take it out of the server's \
             directories, or set data_dir, where Everpoint reads the files itself"
        }
        _ => return None,
    };
    Some(advice.to_owned())
}

/// What mends a want of privileges: the code is the same whether the role lacks one, or the server's own account does.
fn refused_because(error: &ServerError) -> &'static str {
    match error.site() {
        _ if error.is_of_account() => {
            "the account that the server runs as may not read that path: take it out of the server's directories, or give \
             it to that account (chown); with data_dir set, Everpoint reads the files itself and passes over what the server \
             does not need"
        }
        (_, "CheckMyDatabase") => "GRANT CONNECT ON DATABASE <database> TO <user>",
        _ if error.is_fatal() => "ALTER ROLE <user> REPLICATION",
        ("walsender.c" | "slot.c" | "slotfuncs.c" | "postinit.c" | "miscinit.c" | "user.c", _) => {
            "ALTER ROLE <user> REPLICATION"
        }
        ("genfile.c", _) => "GRANT pg_read_server_files TO <user>, or let a superuser take the backup",
        ("aclchk.c", _) => {
            "GRANT the role what the message names (for a function: GRANT EXECUTE ON FUNCTION ... TO <user>)"
        }
        _ => {
            "the role lacks the privilege that the message names; replication needs: ALTER ROLE <user> REPLICATION"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_want_of_privileges_is_told_apart() {
        let hint = |severity: &str, file: &str| {
            let origin = Some((file.to_owned(), "f".to_owned()));
            let (severity, code) = (severity.to_owned(), "42501".to_owned());
            PgError::Server(ServerError { severity, code, origin, ..ServerError::default() })
                .at("x", "y")
                .hint
                .unwrap()
        };
        assert!(hint("FATAL", "postinit.c").starts_with("ALTER ROLE"));
        assert!(hint("ERROR", "walsender.c").starts_with("ALTER ROLE"));
        assert!(hint("ERROR", "fd.c").contains("account that the server runs as"));
        assert!(hint("ERROR", "basebackup.c").contains("chown"));
        assert!(hint("ERROR", "genfile.c").contains("chown"), "the role may, the server can't");
        assert!(hint("ERROR", "aclchk.c").contains("GRANT EXECUTE"));
        assert!(!hint("ERROR", "fd.c").contains("ALTER ROLE"));
    }

    #[test]
    fn a_name_that_does_not_go_over_the_network_is_told_apart() {
        let origin = Some(("basebackup.c".to_owned(), "_tarWriteHeader".to_owned()));
        let server = ServerError { code: "XX000".into(), origin, ..ServerError::default() };
        let hint = PgError::Server(server).at("x", "y").hint;
        assert!(hint.is_some_and(|hint| hint.contains("data_dir")));
        let other = ServerError { code: "XX000".into(), ..ServerError::default() };
        assert_eq!(PgError::Server(other).at("x", "y").hint, None);
    }

    #[test]
    fn a_server_error_keeps_its_facts_and_is_not_said_twice() {
        let server = ServerError {
            severity: "FATAL".into(),
            code: "57P03".into(),
            message: "the database system is starting up".into(),
            detail: Some("recovering".into()),
            hint: None,
            origin: None,
        };
        let error = PgError::Server(server).at("connect to", "db1:5432");
        assert_eq!(error.code, "pg.starting");
        assert!(error.retryable);
        assert_eq!(error.to_string(), "cannot connect to db1:5432: the database system is starting up");
        assert_eq!(error.cause.map(|cause| cause.to_string()), Some("FATAL 57P03: recovering".to_owned()));
    }

    #[test]
    fn a_wrong_password_is_not_tried_again() {
        let server = ServerError { code: "28P01".into(), ..ServerError::default() };
        assert!(!PgError::Server(server).is_retryable());
        assert!(PgError::Io(io::ErrorKind::ConnectionReset.into()).is_retryable());
    }
}
