//! Ports that no two tests share.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};

/// A TCP port of the loopback interface, reserved among all tests of this machine until dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Reserves a free port in the range `$EVERPOINT_PORTS` (`from-to`), by default 21000-29999: below the ports that
    /// the kernel gives to outgoing connections.
    ///
    /// # Errors
    /// If the range is malformed or has no free port.
    pub fn free() -> Result<Self> {
        let (from, to) = range()?;
        // One directory a user: nobody else may make files in it.
        let user = rustix::process::geteuid().as_raw();
        let directory = std::env::temp_dir().join(format!("everpoint-ports-{user}"));
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let count = u32::from(to - from) + 1;
        // Processes begin at different places, so that they seldom try the same port.
        let first = std::process::id().wrapping_mul(61);
        for step in 0..count {
            let number = from + u16::try_from(first.wrapping_add(step) % count).unwrap_or(0);
            let lock = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(directory.join(number.to_string()));
            let Ok(lock) = lock else { continue };
            if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
                && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok()
            {
                return Ok(Self { number, _lock: lock });
            }
        }
        bail!("no port between {from} and {to} is free")
    }

    /// The number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }
}

fn range() -> Result<(u16, u16)> {
    let Ok(text) = std::env::var("EVERPOINT_PORTS") else {
        return Ok((21000, 29999));
    };
    let parsed =
        text.split_once('-').and_then(|(a, b)| Some((a.trim().parse().ok()?, b.trim().parse().ok()?)));
    match parsed {
        Some((from, to)) if from <= to && from > 0 => Ok((from, to)),
        _ => bail!("EVERPOINT_PORTS is {text:?}, not like 21000-29999"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice() {
        let ports: Vec<Port> = (0..20).map(|_| Port::free().unwrap()).collect();
        let mut numbers: Vec<u16> = ports.iter().map(Port::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), ports.len());
    }
}
