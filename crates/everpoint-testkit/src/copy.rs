//! A server that somebody else started on a restored directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::builder::run;
use crate::{Address, PgInstall, Session};

/// A running copy, known by its data directory. When dropped, it is stopped.
#[derive(Debug)]
pub struct RunningCopy {
    data: PathBuf,
    pid: Pid,
    address: Address,
}

impl RunningCopy {
    /// Finds the server that runs on a data directory.
    ///
    /// # Errors
    /// If none does.
    pub fn on(data: &Path) -> Result<Self> {
        let path = data.join("postmaster.pid");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        // Process id, data directory, start time, port, directory of the socket, address it listens on.
        let [pid, _, _, port, socket, listen, ..] = lines.as_slice() else {
            bail!("{} holds {} lines", path.display(), lines.len());
        };
        let pid = pid.parse().ok().and_then(Pid::from_raw).context("no process id")?;
        let port = port.parse().context("no port")?;
        let address = if listen.is_empty() {
            Address::Socket(PathBuf::from(*socket), port)
        } else {
            Address::Loopback(port)
        };
        let copy = Self { data: data.to_owned(), pid, address };
        ensure!(copy.is_there(), "no server runs on {}", data.display());
        Ok(copy)
    }

    /// Opens a connection to the database `postgres`.
    ///
    /// # Errors
    /// If it does not take it.
    pub fn session(&self) -> Result<Session> {
        Ok(Session::connect(&self.address, "postgres")?)
    }

    /// Whether the process is the server of this directory: ids of processes are used again.
    fn is_there(&self) -> bool {
        let id = self.pid.as_raw_nonzero();
        let works_in = fs::read_link(format!("/proc/{id}/cwd"));
        works_in.is_ok_and(|path| self.data.canonicalize().is_ok_and(|data| data == path))
    }

    /// Stops it cleanly, and lets `pg_checksums`, where the version has it, read every page of it.
    ///
    /// # Errors
    /// If it does not stop, or a page is damaged.
    pub fn stop_and_check(self, install: &PgInstall) -> Result<()> {
        self.halt(Signal::INT)?;
        let Ok(mut command) = install.command("pg_checksums") else {
            return Ok(());
        };
        run(command.arg("--check").arg("-D").arg(&self.data))?;
        Ok(())
    }

    fn halt(&self, signal: Signal) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        if self.is_there() {
            kill_process(self.pid, signal).context("cannot stop a copy")?;
        }
        while self.is_there() || self.data.join("postmaster.pid").exists() {
            ensure!(Instant::now() < deadline, "the server on {} does not stop", self.data.display());
            sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for RunningCopy {
    fn drop(&mut self) {
        if self.is_there() {
            // A test that failed is already on its way out; it says more than this could.
            let _ = kill_process(self.pid, Signal::QUIT);
            let deadline = Instant::now() + Duration::from_secs(20);
            while self.is_there() && Instant::now() < deadline {
                sleep(Duration::from_millis(10));
            }
        }
    }
}
