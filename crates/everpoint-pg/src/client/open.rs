//! Opening a connection: hosts in turn, TLS or not, start-up, the wanted kind of server.

use std::io::{Read, Write};
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;

use super::config::{Config, Host, SslMode, TargetSession};
use super::socket::{Address, Plain, Socket, addresses};
use super::{Connection, Frame, PgError, authentication, limits, refused, tls};

/// How long a server may take to shake hands, authenticate and start a session, unless `connect_timeout` says otherwise.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// SQL.
    Sql,
    /// Physical replication: only replication commands.
    Replication,
}

/// Connects to the first host that can be reached, lets us in, and is of the wanted kind.
///
/// # Errors
/// That of the last host tried, if none would do.
pub fn connect(config: &Config, purpose: Purpose) -> Result<Connection, PgError> {
    if let Some(error) = refused::known(config, purpose) {
        return Err(error);
    }
    connect_any(config, purpose).inspect_err(|error| refused::note(config, purpose, error))
}

fn connect_any(config: &Config, purpose: Purpose) -> Result<Connection, PgError> {
    if config.target_session == TargetSession::PreferStandby && config.hosts.len() > 1 {
        let standby = Config { target_session: TargetSession::Standby, ..config.clone() };
        if let Ok(connection) = connect_first(&standby, purpose) {
            return Ok(connection);
        }
    }
    connect_first(config, purpose)
}

fn connect_first(config: &Config, purpose: Purpose) -> Result<Connection, PgError> {
    let mut last = PgError::parameter("no host is given");
    for host in &config.hosts {
        let places = match addresses(host) {
            Ok(places) => places,
            Err(error) => {
                tracing::debug!(%host, %error, "host not found");
                last = PgError::Io(error);
                continue;
            }
        };
        for address in &places {
            match connect_address(host, address, config, purpose) {
                Ok(connection) => return Ok(connection),
                Err(error) => {
                    tracing::debug!(%host, %error, "not connected");
                    last = error;
                }
            }
        }
    }
    Err(last)
}

fn connect_address(
    host: &Host,
    address: &Address,
    config: &Config,
    purpose: Purpose,
) -> Result<Connection, PgError> {
    let unix = matches!(address, Address::Unix(_));
    let tries: &[SslMode] = match config.ssl_mode {
        _ if unix => &[SslMode::Disable],
        SslMode::Disable => &[SslMode::Disable],
        SslMode::Allow => &[SslMode::Disable, SslMode::Prefer],
        SslMode::Prefer => &[SslMode::Prefer, SslMode::Disable],
        SslMode::Require => &[SslMode::Require],
        SslMode::VerifyCa => &[SslMode::VerifyCa],
        SslMode::VerifyFull => &[SslMode::VerifyFull],
    };
    let mut first_error = None;
    for ssl_mode in tries {
        let config = Config { ssl_mode: *ssl_mode, ..config.clone() };
        match start(host, address, &config, purpose) {
            Ok(connection) => return Ok(connection),
            Err(error) => {
                let other_may_do = matches!(&error, PgError::Tls { .. }) || error.sqlstate() == Some("28000");
                let error = first_error.unwrap_or(error);
                if !other_may_do {
                    return Err(error);
                }
                first_error = Some(error);
            }
        }
    }
    Err(first_error.unwrap_or_else(|| PgError::parameter("no host is given")))
}

/// Puts TLS over a fresh socket as the mode asks.
pub(super) fn encrypt(mut plain: Plain, host: &Host, config: &Config) -> Result<Socket, PgError> {
    if config.ssl_mode == SslMode::Disable || matches!(plain, Plain::Unix(_)) {
        return Ok(Socket::Plain(plain));
    }
    if config.ssl_direct && config.ssl_mode >= SslMode::Require {
        return Ok(Socket::Tls(Box::new(tls::handshake(plain, host, config)?)));
    }
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    plain.write_all(&request)?;
    let mut answer = [0; 1];
    plain.read_exact(&mut answer)?;
    match answer {
        // Exactly one byte is read, so nothing that somebody slipped in before TLS can be taken for the server's.
        [b'S'] => Ok(Socket::Tls(Box::new(tls::handshake(plain, host, config)?))),
        _ if config.ssl_mode >= SslMode::Require => Err(PgError::Tls {
            message: "the server does not offer TLS".to_owned(),
            hint: Some(
                "set ssl = on with a certificate on the server, or ask for less with sslmode".to_owned(),
            ),
        }),
        [b'N'] => Ok(Socket::Plain(plain)),
        [other] => Err(PgError::Protocol(format!("byte {other:#04x} in reply to a request for TLS"))),
    }
}

fn start(host: &Host, address: &Address, config: &Config, purpose: Purpose) -> Result<Connection, PgError> {
    let mut connection = begin(host, address, config, purpose, &[])?;
    match purpose {
        Purpose::Sql => limits::lift(&mut connection)?,
        Purpose::Replication => {
            let set = limits::to_set(&mut connection)?;
            if !set.is_empty() {
                match begin(host, address, config, purpose, &set) {
                    Ok(again) => connection = again,
                    // Something between takes no such parameters; what it leads to can be used all the same.
                    Err(error) => tracing::debug!(%error, "the session keeps its settings"),
                }
            }
        }
    }
    check_kind(&mut connection, config.target_session)?;
    Ok(connection)
}

/// One session, with these settings.
fn begin(
    host: &Host,
    address: &Address,
    config: &Config,
    purpose: Purpose,
    settings: &[(&str, &str)],
) -> Result<Connection, PgError> {
    let timeout = config.connect_timeout.unwrap_or(START_TIMEOUT);
    let plain = Plain::connect(address, config)?;
    plain.set_read_timeout(Some(timeout))?;
    let socket = encrypt(plain, host, config)?;
    let mut connection = Connection::new(socket, host, address, config, purpose);
    let mut parameters = vec![
        ("user", config.user.as_str()),
        ("application_name", config.application_name.as_str()),
        // Nothing is converted: paths and names are bytes, and a server refuses to send those that it can't convert.
        ("client_encoding", "SQL_ASCII"),
        ("DateStyle", "ISO"),
    ];
    match purpose {
        Purpose::Sql => parameters.push(("database", config.database.as_str())),
        Purpose::Replication => {
            parameters.push(("replication", "true"));
            if !matches!(config.target_session, TargetSession::ReadWrite | TargetSession::ReadOnly) {
                // Before 14, a read-only session is the only sign of a standby: let no other reason make one.
                parameters.push(("default_transaction_read_only", "off"));
            }
        }
    }
    if let Some(options) = &config.options {
        parameters.push(("options", options.as_str()));
    }
    parameters.extend(settings);
    connection.queue(|out| frontend::startup_message(parameters, out))?;
    connection.flush()?;
    authentication::authenticate(&mut connection, purpose, timeout)?;
    wait_until_ready(&mut connection, timeout)?;
    Ok(connection)
}

fn wait_until_ready(connection: &mut Connection, timeout: Duration) -> Result<(), PgError> {
    loop {
        match connection.receive(Some(timeout))?.ok_or(PgError::Timeout(timeout))? {
            Frame::Message(Message::BackendKeyData(body)) => {
                connection.set_key((body.process_id(), body.secret_key()));
            }
            Frame::Message(Message::ReadyForQuery(_)) => return Ok(()),
            Frame::Error(error) => return Err(PgError::Server(error)),
            other => return Err(PgError::Protocol(format!("{other:?} while the session starts"))),
        }
    }
}

fn check_kind(connection: &mut Connection, wanted: TargetSession) -> Result<(), PgError> {
    let setting = match wanted {
        TargetSession::Any | TargetSession::PreferStandby => return Ok(()),
        TargetSession::ReadWrite | TargetSession::ReadOnly => "transaction_read_only",
        TargetSession::Primary | TargetSession::Standby => {
            // Servers before 14 have no in_hot_standby; there a standby's sessions are read-only.
            if connection.major() >= 14 { "in_hot_standby" } else { "transaction_read_only" }
        }
    };
    let on = connection.show(setting)? == "on";
    let (fits, kind) = match wanted {
        TargetSession::ReadWrite => (!on, "read-write"),
        TargetSession::ReadOnly => (on, "read-only"),
        TargetSession::Primary => (!on, "a primary"),
        _ => (on, "a standby"),
    };
    if fits {
        return Ok(());
    }
    // A failover may change it: worth another try later.
    Err(PgError::Io(std::io::Error::other(format!("the server is not {kind} (target_session_attrs)"))))
}
