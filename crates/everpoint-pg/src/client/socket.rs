//! Sockets: TCP, unix and TLS over either.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustls::{ClientConnection, StreamOwned};

use super::config::{Config, Host, Keepalives};

/// A write that makes no progress for this long means that the peer is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// A socket without TLS.
#[derive(Debug)]
pub(super) enum Plain {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// What messages travel over.
#[derive(Debug)]
pub(super) enum Socket {
    Plain(Plain),
    Tls(Box<StreamOwned<ClientConnection, Plain>>),
}

/// Where a host can be reached, one entry for each address.
#[derive(Debug, Clone)]
pub(super) enum Address {
    Tcp(SocketAddr),
    Unix(String),
}

/// Looks a host up.
pub(super) fn addresses(host: &Host) -> io::Result<Vec<Address>> {
    if host.is_unix() {
        return Ok(vec![Address::Unix(format!("{}/.s.PGSQL.{}", host.name, host.port))]);
    }
    if let Some(address) = host.address {
        return Ok(vec![Address::Tcp(SocketAddr::new(address, host.port))]);
    }
    Ok((host.name.as_str(), host.port).to_socket_addrs()?.map(Address::Tcp).collect())
}

impl Plain {
    pub(super) fn connect(address: &Address, config: &Config) -> io::Result<Self> {
        let plain = match address {
            Address::Unix(path) => Self::Unix(UnixStream::connect(path)?),
            Address::Tcp(address) => {
                let stream = match config.connect_timeout {
                    Some(timeout) => TcpStream::connect_timeout(address, timeout)?,
                    None => TcpStream::connect(address)?,
                };
                stream.set_nodelay(true)?;
                keep_alive(&stream, config.keepalives)?;
                Self::Tcp(stream)
            }
        };
        match &plain {
            Self::Tcp(stream) => stream.set_write_timeout(Some(WRITE_TIMEOUT))?,
            Self::Unix(stream) => stream.set_write_timeout(Some(WRITE_TIMEOUT))?,
        }
        Ok(plain)
    }

    /// The peer's address, if it has one.
    pub(super) fn peer(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok().map(|address| address.ip()),
            Self::Unix(_) => None,
        }
    }

    pub(super) fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(timeout),
            Self::Unix(stream) => stream.set_read_timeout(timeout),
        }
    }
}

fn keep_alive(stream: &TcpStream, keepalives: Keepalives) -> io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(stream, keepalives.enabled)?;
    if keepalives.enabled {
        sockopt::set_tcp_keepidle(stream, keepalives.idle)?;
        sockopt::set_tcp_keepintvl(stream, keepalives.interval)?;
        sockopt::set_tcp_keepcnt(stream, keepalives.count)?;
    }
    if !keepalives.user_timeout.is_zero() {
        let millis = u32::try_from(keepalives.user_timeout.as_millis()).unwrap_or(u32::MAX);
        sockopt::set_tcp_user_timeout(stream, millis)?;
    }
    Ok(())
}

impl Socket {
    /// Reads wait at most this long; `None`: for ever.
    pub(super) fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Plain(plain) => plain.set_read_timeout(timeout),
            Self::Tls(stream) => stream.sock.set_read_timeout(timeout),
        }
    }

    /// The TLS connection, if it is one.
    pub(super) fn tls(&self) -> Option<&ClientConnection> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => Some(&stream.conn),
        }
    }
}

impl Read for Plain {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Plain {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(plain) => plain.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(plain) => plain.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(plain) => plain.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
