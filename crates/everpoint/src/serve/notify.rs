//! Tells systemd how the daemon is: sd_notify(3), by hand, as it is one datagram.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The socket that systemd listens at, if it started this process.
pub(crate) struct Notify {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// How often systemd wants to hear, if it does.
    watchdog: Option<Duration>,
}

impl Notify {
    /// Finds it in the environment.
    pub(crate) fn from_environment() -> Self {
        let address = std::env::var("NOTIFY_SOCKET").ok().and_then(|name| address(&name));
        let socket = address.and_then(|address| Some((UnixDatagram::unbound().ok()?, address)));
        let ours = std::env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
        let micros = std::env::var("WATCHDOG_USEC").ok().and_then(|micros| micros.parse().ok());
        Self { socket, watchdog: micros.filter(|_| ours).map(Duration::from_micros) }
    }

    /// It works.
    pub(crate) fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}"));
    }

    /// It is on its way out.
    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=stopping");
    }

    /// It is alive.
    pub(crate) fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    /// How often [`Notify::alive`] is to be called: twice as often as systemd wants to hear.
    pub(crate) fn every(&self) -> Option<Duration> {
        self.watchdog.map(|interval| interval / 2)
    }

    fn send(&self, text: &str) {
        if let Some((socket, address)) = &self.socket {
            // systemd not listening is nothing that we could mend.
            let _ = socket.send_to_addr(text.as_bytes(), address);
        }
    }
}

fn address(name: &str) -> Option<SocketAddr> {
    match name.strip_prefix('@') {
        Some(hidden) => SocketAddr::from_abstract_name(hidden).ok(),
        None => SocketAddr::from_pathname(name).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_hears_it() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("socket");
        let systemd = UnixDatagram::bind(&path).unwrap();
        let address = address(path.to_str().unwrap()).unwrap();
        let notify = Notify { socket: Some((UnixDatagram::unbound().unwrap(), address)), watchdog: None };
        notify.ready("two clusters");
        let mut buffer = [0; 100];
        let length = systemd.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1\nSTATUS=two clusters");
    }
}
