//! Connection parameters, completed and checked.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::passfile::{self, Wanted};
use super::secret::Secret;
use super::{Environment, PgError, hosts, resolve};

/// One place to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Name, address, or directory of a unix socket (starts with `/`).
    pub name: String,
    /// Address to use instead of looking the name up (`hostaddr`).
    pub address: Option<IpAddr>,
    /// TCP port, or number in the socket's name.
    pub port: u16,
}

impl Host {
    /// Whether it is a directory of a unix socket.
    #[must_use]
    pub fn is_unix(&self) -> bool {
        self.address.is_none() && self.name.starts_with('/')
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]:{}", self.name, self.port)
        } else {
            write!(f, "{}:{}", self.name, self.port)
        }
    }
}

/// `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// Never TLS.
    Disable,
    /// TLS only if the server refuses without.
    Allow,
    /// TLS if the server has it.
    Prefer,
    /// TLS, whoever the server is (with a root certificate present: as `VerifyCa`).
    Require,
    /// TLS, with a certificate that a trusted authority has signed.
    VerifyCa,
    /// `VerifyCa`, and the certificate names the host.
    VerifyFull,
}

/// `sslrootcert`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootCertificates {
    /// None: the server's certificate is not checked.
    None,
    /// Those in a PEM file.
    File(PathBuf),
    /// Those that the operating system trusts.
    System,
}

/// `channel_binding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelBindingMode {
    /// Not used.
    Disable,
    /// Used when TLS is, and the server offers it.
    Prefer,
    /// No connection without.
    Require,
}

/// `target_session_attrs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetSession {
    /// Any server.
    Any,
    /// One whose sessions can write.
    ReadWrite,
    /// One whose sessions can't write.
    ReadOnly,
    /// No standby.
    Primary,
    /// A standby.
    Standby,
    /// A standby if there is one, else any.
    PreferStandby,
}

/// TCP keepalives. The defaults are shorter than most systems' own, so that a dead peer is noticed within about a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalives {
    /// Whether probes are sent at all.
    pub enabled: bool,
    /// Silence before the first probe; default 30 s.
    pub idle: Duration,
    /// Between probes; default 10 s.
    pub interval: Duration,
    /// Probes without an answer until the connection is given up; default 3.
    pub count: u32,
    /// How long sent data may stay without an acknowledgement; zero: the system's default.
    pub user_timeout: Duration,
}

impl Default for Keepalives {
    fn default() -> Self {
        Self {
            enabled: true,
            idle: Duration::from_secs(30),
            interval: Duration::from_secs(10),
            count: 3,
            user_timeout: Duration::ZERO,
        }
    }
}

/// Gives a password, or says why there is none and what to do.
type Ask = dyn Fn() -> Result<Secret, (String, Option<String>)> + Send + Sync;

/// A password that is read when a server asks for it: what needs no server needs no password either.
#[derive(Clone)]
pub struct PasswordSource(Arc<Ask>);

impl PasswordSource {
    /// The error is a message and a hint.
    pub fn new(ask: impl Fn() -> Result<Secret, (String, Option<String>)> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    fn ask(&self) -> Result<Secret, PgError> {
        (self.0)().map_err(|(message, hint)| PgError::Parameter { message, hint })
    }
}

impl fmt::Debug for PasswordSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordSource(..)")
    }
}

/// How to reach a server. `Debug` and `Display` never show the password.
#[derive(Debug, Clone)]
pub struct Config {
    /// Tried in order; at least one.
    pub hosts: Vec<Host>,
    /// User name.
    pub user: String,
    /// Database; the user's name if none was given.
    pub database: String,
    /// Password that was given directly.
    pub password: Option<Secret>,
    /// Where the password comes from instead, asked for only when a server wants one.
    pub password_source: Option<PasswordSource>,
    /// Password file.
    pub passfile: Option<PathBuf>,
    /// `sslmode`.
    pub ssl_mode: SslMode,
    /// Begin with TLS instead of asking for it first (`sslnegotiation=direct`, servers from 17).
    pub ssl_direct: bool,
    /// Whom to trust.
    pub root_certificates: RootCertificates,
    /// Client certificate chain and its key, both PEM.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// `channel_binding`.
    pub channel_binding: ChannelBindingMode,
    /// For each address; `None`: as long as the system tries.
    pub connect_timeout: Option<Duration>,
    /// Shown in pg_stat_activity and pg_stat_replication, and matched with synchronous_standby_names.
    pub application_name: String,
    /// `options` for the session.
    pub options: Option<String>,
    /// `target_session_attrs`.
    pub target_session: TargetSession,
    /// TCP keepalives.
    pub keepalives: Keepalives,
}

impl Config {
    /// Reads `postgres://...` or `name=value ...`, completed from this process's environment, service file and defaults.
    ///
    /// # Errors
    /// [`PgError::Parameter`] if something is unknown or makes no sense.
    pub fn parse(text: &str) -> Result<Self, PgError> {
        Self::parse_in(text, &Environment::of_process())
    }

    /// As [`Config::parse`], in the given surroundings.
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn parse_in(text: &str, environment: &Environment) -> Result<Self, PgError> {
        resolve::resolve(super::conninfo::parse(text)?, environment)
    }

    /// The password for a host: the one given, else that of the password file.
    pub(super) fn password_for(&self, host: &Host, replication: bool) -> Result<Option<Secret>, PgError> {
        if let Some(source) = &self.password_source {
            return source.ask().map(Some);
        }
        if self.password.is_some() {
            return Ok(self.password.clone());
        }
        let name = if host.is_unix() && hosts::DEFAULT_SOCKET_DIRECTORIES.contains(&host.name.as_str()) {
            "localhost"
        } else {
            &host.name
        };
        let database = if replication { "replication" } else { &self.database };
        let wanted = Wanted { host: name, port: host.port, database, user: &self.user };
        Ok(self.passfile.as_deref().and_then(|path| passfile::find(path, wanted)))
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<_> = self.hosts.iter().map(ToString::to_string).collect();
        write!(f, "{}@{}/{}", self.user, hosts.join(","), self.database)
    }
}
