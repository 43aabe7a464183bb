//! The places to try, from `host`, `hostaddr` and `port`.

use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;

use super::PgError;
use super::config::Host;
use super::resolve::Lookup;

/// Where servers put their sockets unless told otherwise: Debian's choice, then PostgreSQL's own.
pub(super) const DEFAULT_SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];

const DEFAULT_PORT: u16 = 5432;

/// At least one.
pub(super) fn hosts(lookup: &Lookup<'_>) -> Result<Vec<Host>, PgError> {
    let split = |name: &str| -> Vec<String> {
        lookup
            .get(name)
            .map(|list| list.split(',').map(|item| item.trim().to_owned()).collect())
            .unwrap_or_default()
    };
    let (names, addresses, ports) = (split("host"), split("hostaddr"), split("port"));
    let count = names.len().max(addresses.len()).max(1);
    if !names.is_empty() && !addresses.is_empty() && names.len() != addresses.len() {
        return Err(PgError::parameter("`host` and `hostaddr` list different numbers of hosts"));
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(PgError::parameter("`port` and `host` list different numbers of entries"));
    }
    (0..count)
        .map(|index| {
            let port = ports.get(index).or_else(|| ports.first()).filter(|port| !port.is_empty());
            let port = match port {
                None => DEFAULT_PORT,
                Some(text) => text.parse().ok().filter(|port| *port != 0).ok_or_else(wrong_port)?,
            };
            let address = match addresses.get(index).filter(|address| !address.is_empty()) {
                None => None,
                Some(text) => Some(
                    IpAddr::from_str(text).map_err(|_| PgError::parameter("`hostaddr` is no IP address"))?,
                ),
            };
            let name = names
                .get(index)
                .filter(|name| !name.is_empty())
                .cloned()
                .or_else(|| address.map(|address| address.to_string()))
                .unwrap_or_else(|| default_host(port));
            check_host(&name)?;
            Ok(Host { name, address, port })
        })
        .collect()
}

/// What stands there is not repeated: it may be a password, or a piece of one.
fn wrong_port() -> PgError {
    PgError::Parameter {
        message: "the port is not between 1 and 65535".to_owned(),
        hint: Some(
            "write postgres://user:password@host:port/database, and a / or @ in the password as %2F or %40"
                .to_owned(),
        ),
    }
}

/// Refuses what can't be a host: it may be a piece of a password, and a host is shown.
fn check_host(name: &str) -> Result<(), PgError> {
    let odd = |c: char| c.is_whitespace() || c.is_control() || "@\"'?#=;,\\`<>{}|&*!$()".contains(c);
    if name.starts_with('/') || name.starts_with('@') || !name.contains(odd) && !name.contains('/') {
        return Ok(());
    }
    Err(PgError::Parameter {
        message: "the host holds characters that no host name has".to_owned(),
        hint: Some(
            "write special characters of user and password as percent codes, such as %40 for @".to_owned(),
        ),
    })
}

/// The directory that has this server's socket, else `localhost`.
fn default_host(port: u16) -> String {
    DEFAULT_SOCKET_DIRECTORIES
        .into_iter()
        .find(|directory| Path::new(directory).join(format!(".s.PGSQL.{port}")).exists())
        .unwrap_or("localhost")
        .to_owned()
}
