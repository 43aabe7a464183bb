//! A running cluster.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::{Signal, kill_process};

use crate::builder::{client, run};
use crate::process::{children_of, signal_child};
use crate::{Address, PgClusterBuilder, PgInstall, Port, Scratch, Session, SqlError};

/// How long a server may take to start, stop, or be promoted.
const PATIENCE: Duration = Duration::from_secs(120);

/// How a server is asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// Waits for its clients to leave.
    Smart,
    /// Sends its clients away, writes a checkpoint.
    Fast,
    /// Leaves at once; the next start recovers.
    Immediate,
}

/// A PostgreSQL cluster with a server of its own. When dropped, the server is stopped and its files are removed.
#[derive(Debug)]
pub struct PgCluster {
    install: PgInstall,
    data: PathBuf,
    sockets: Scratch,
    port: Port,
    server: Option<Child>,
    home: Scratch,
}

impl PgCluster {
    /// Describes a cluster to be made.
    #[must_use]
    pub fn builder() -> PgClusterBuilder {
        PgClusterBuilder::default()
    }

    pub(crate) fn new(install: PgInstall, home: Scratch, data: PathBuf, port: Port) -> Result<Self> {
        Ok(Self { install, data, sockets: Scratch::for_sockets()?, port, server: None, home })
    }

    /// Runs a server on a data directory that lies at `data` inside `home`: a copy that some tool restored there.
    /// The directory's own settings of port and sockets do not matter. Call [`PgCluster::start`] next.
    ///
    /// # Errors
    /// If no port is free.
    pub fn on_directory(install: PgInstall, home: Scratch, data: PathBuf) -> Result<Self> {
        Self::new(install, home, data, Port::free()?)
    }

    /// Starts the server and waits until it answers queries.
    ///
    /// # Errors
    /// If it does not start; the message ends with the last lines of its log.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.server.is_none(), "the server runs already");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let before = fs::metadata(self.log_path()).map_or(0, |meta| meta.len());
            self.spawn()?;
            match self.wait_ready(deadline) {
                Ok(()) => return Ok(()),
                Err(why) => {
                    self.kill();
                    // The shared memory of a server that was killed lives until its last process has gone.
                    let said = self.log_since(before);
                    if said.contains("is still in use") && Instant::now() < deadline {
                        sleep(Duration::from_millis(100));
                        continue;
                    }
                    return Err(why);
                }
            }
        }
    }

    fn spawn(&mut self) -> Result<()> {
        let log = File::options()
            .append(true)
            .create(true)
            .open(self.log_path())
            .with_context(|| format!("cannot open {}", self.log_path().display()))?;
        let mut command = self.install.command("postgres")?;
        command.arg("-D").arg(&self.data);
        command.arg("-c").arg(format!("port={}", self.port.number()));
        command.arg("-c").arg(format!("unix_socket_directories={}", self.sockets.path().display()));
        command.args(["-c", "listen_addresses=127.0.0.1"]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.server = Some(command.spawn().context("cannot start the server")?);
        Ok(())
    }

    fn wait_ready(&mut self, deadline: Instant) -> Result<()> {
        loop {
            if let Some(server) = &mut self.server
                && let Some(status) = server.try_wait().context("cannot look after the server")?
            {
                self.server = None;
                bail!("PostgreSQL {} did not start ({status}):\n{}", self.install.major(), self.log_tail());
            }
            let why = match self.session() {
                Ok(_) => return Ok(()),
                Err(why) => why,
            };
            if Instant::now() > deadline {
                bail!("PostgreSQL {} does not answer ({why:#}):\n{}", self.install.major(), self.log_tail());
            }
            sleep(Duration::from_millis(20));
        }
    }

    /// Stops the server and waits until it is gone.
    ///
    /// # Errors
    /// If it does not run, or stays.
    pub fn stop(&mut self, mode: StopMode) -> Result<()> {
        let signal = match mode {
            StopMode::Smart => Signal::TERM,
            StopMode::Fast => Signal::INT,
            StopMode::Immediate => Signal::QUIT,
        };
        let Some(server) = &mut self.server else { bail!("the server does not run") };
        signal_child(server, signal)?;
        let deadline = Instant::now() + PATIENCE;
        while server.try_wait().context("cannot look after the server")?.is_none() {
            if Instant::now() > deadline {
                bail!("the server does not stop:\n{}", self.log_tail());
            }
            sleep(Duration::from_millis(10));
        }
        self.server = None;
        Ok(())
    }

    /// Kills the server with SIGKILL, all its processes: what a crash of the machine does, but for the page cache.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill9(&mut self) -> Result<()> {
        ensure!(self.server.is_some(), "the server does not run");
        self.kill();
        Ok(())
    }

    fn kill(&mut self) {
        let Some(mut server) = self.server.take() else {
            return;
        };
        let children = children_of(server.id());
        // Both fail only for a process that has gone.
        let _ = server.kill();
        let _ = server.wait();
        for child in children {
            let _ = kill_process(child, Signal::KILL);
        }
    }

    /// Stops and starts again.
    ///
    /// # Errors
    /// As [`PgCluster::stop`] and [`PgCluster::start`].
    pub fn restart(&mut self, mode: StopMode) -> Result<()> {
        self.stop(mode)?;
        self.start()
    }

    /// Promotes a standby and waits until it accepts writes.
    ///
    /// # Errors
    /// If it is no standby, or stays one.
    pub fn promote(&self) -> Result<()> {
        let done = self.psql("SELECT pg_promote(true, 120)")?;
        ensure!(done == "t", "the standby was not promoted:\n{}", self.log_tail());
        Ok(())
    }

    /// Makes a streaming standby of this cluster with `pg_basebackup -R` and starts it.
    ///
    /// # Errors
    /// If the copy fails, or the standby does not start.
    pub fn standby(&self) -> Result<Self> {
        let home = Scratch::new(&format!("pg{}-standby", self.install.major()))?;
        let data = home.path().join("data");
        let mut copy = client(&self.install, "pg_basebackup")?;
        copy.args(["-U", "postgres", "-c", "fast", "-X", "stream", "-R", "-h"]).arg(self.sockets.path());
        copy.arg("-p").arg(self.port.number().to_string()).arg("-D").arg(&data);
        run(&mut copy)?;
        // A newer pg_basebackup writes words into the connection string that an older server does not know.
        let follow = format!(
            "primary_conninfo = 'user=postgres host={} port={}'\n",
            self.sockets.path().display(),
            self.port.number()
        );
        let mut settings = File::options()
            .append(true)
            .open(data.join("postgresql.auto.conf"))
            .context("cannot open settings")?;
        settings.write_all(follow.as_bytes()).context("cannot write settings")?;
        let mut standby = Self::on_directory(self.install.clone(), home, data)?;
        standby.start()?;
        Ok(standby)
    }

    /// Opens a connection to the database `postgres`.
    ///
    /// # Errors
    /// If the server does not take it.
    pub fn session(&self) -> Result<Session> {
        self.session_to("postgres")
    }

    /// Opens a connection to a database.
    ///
    /// # Errors
    /// If the server does not take it.
    pub fn session_to(&self, database: &str) -> Result<Session> {
        Ok(Session::connect(&self.address(), database)?)
    }

    /// Runs SQL in a connection of its own, in the database `postgres`; rows as `psql -At` prints them.
    ///
    /// # Errors
    /// If the server refuses it.
    pub fn psql(&self, sql: &str) -> Result<String> {
        let answer = self.session()?.query(sql).map_err(|why: SqlError| anyhow!("{sql}: {why}"))?;
        Ok(answer.to_string())
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> Address {
        Address::Socket(self.sockets.path().to_owned(), self.port.number())
    }

    /// A `postgres://` URL of its superuser, over TCP.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port.number())
    }

    /// Its TCP port; it stays the same over restarts.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Directory of its Unix socket.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        self.sockets.path()
    }

    /// Its data directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// Its directory: holds the data directory, the log, and what a test wants to put beside them.
    #[must_use]
    pub fn home(&self) -> &Scratch {
        &self.home
    }

    /// Its programs.
    #[must_use]
    pub fn install(&self) -> &PgInstall {
        &self.install
    }

    /// Process id of its server, if it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Child::id)
    }

    /// System identifier.
    ///
    /// # Errors
    /// If the server does not answer.
    pub fn system_identifier(&self) -> Result<u64> {
        Ok(self.session()?.value("SELECT system_identifier FROM pg_control_system()")?)
    }

    /// The end of its flushed log, as a number.
    ///
    /// # Errors
    /// If the server does not answer.
    pub fn flushed(&self) -> Result<u64> {
        Ok(self.session()?.value("SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint")?)
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Keeps its files after the end of the test; returns where they are.
    pub fn keep(&mut self) -> PathBuf {
        self.home.keep()
    }

    fn log_path(&self) -> PathBuf {
        self.home.path().join("server.log")
    }

    fn log_since(&self, from: u64) -> String {
        let log = self.log();
        usize::try_from(from).ok().and_then(|from| log.get(from..)).unwrap_or_default().to_owned()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().rev().take(15).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for PgCluster {
    fn drop(&mut self) {
        if self.server.is_some() && self.stop(StopMode::Immediate).is_err() {
            self.kill();
        }
    }
}
