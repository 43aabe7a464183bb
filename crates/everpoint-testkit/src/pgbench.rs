//! Load on a server, as PostgreSQL's own benchmark makes it.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::builder::{client, run};
use crate::{PgCluster, signal_child};

/// A running `pgbench`. When dropped, it is killed.
#[derive(Debug)]
pub struct Pgbench {
    child: Child,
    said: PathBuf,
}

impl Pgbench {
    /// Makes its tables in the database `postgres`, 100,000 rows (about 15 MB) for each unit of `scale`.
    ///
    /// # Errors
    /// If the server refuses.
    pub fn prepare(cluster: &PgCluster, scale: u32) -> Result<()> {
        let mut command = command(cluster)?;
        run(command.args(["--initialize", "--quiet", "--scale", &scale.to_string(), "postgres"]))?;
        Ok(())
    }

    /// Starts its transactions: `rate` a second in all sessions together, or, if `None`, as many as the server takes.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start(cluster: &PgCluster, sessions: u32, rate: Option<u32>) -> Result<Self> {
        let said = cluster.home().path().join("pgbench.log");
        let file = File::options().create(true).append(true).open(&said);
        let file = file.with_context(|| format!("cannot open {}", said.display()))?;
        let mut command = command(cluster)?;
        command.args(["--no-vacuum", "--progress", "5", "--time", "86400"]);
        command.args(["--client", &sessions.to_string()]);
        if let Some(rate) = rate {
            command.args(["--rate", &rate.to_string()]);
        }
        command.arg("postgres").stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        Ok(Self { child: command.spawn().context("cannot run pgbench")?, said })
    }

    /// Whether it still runs: it ends when all its sessions have lost the server.
    ///
    /// # Errors
    /// If it can't be looked after.
    pub fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait().context("cannot look after pgbench")?.is_none())
    }

    /// Holds it, and lets it go on (SIGSTOP, SIGCONT).
    ///
    /// # Errors
    /// If it can't be signalled.
    pub fn hold(&self, held: bool) -> Result<()> {
        signal_child(&self.child, if held { Signal::STOP } else { Signal::CONT })
    }

    /// What it printed.
    #[must_use]
    pub fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap_or_default()
    }
}

impl Drop for Pgbench {
    fn drop(&mut self) {
        // Both fail only for a process that has gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(cluster: &PgCluster) -> Result<Command> {
    let mut command = client(cluster.install(), "pgbench")?;
    command.arg("--host").arg(cluster.socket_dir()).args(["--port", &cluster.port().to_string()]);
    command.args(["--username", "postgres"]);
    Ok(command)
}
