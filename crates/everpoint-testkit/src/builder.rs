//! How a cluster is made.

use std::fs::{self, File};
use std::io::Write;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{Account, PgCluster, PgInstall, Port, Scratch};

/// Settings of every cluster made for tests, before those that a test asks for. `fsync = off`: tests kill processes,
/// never the machine, and the page cache outlives a process.
const SETTINGS: [(&str, &str); 9] = [
    ("fsync", "off"),
    ("wal_level", "replica"),
    ("max_wal_senders", "10"),
    ("max_replication_slots", "10"),
    ("shared_buffers", "32MB"),
    ("log_line_prefix", "%m [%p] "),
    ("log_timezone", "UTC"),
    ("timezone", "UTC"),
    ("logging_collector", "off"),
];

/// What a cluster shall be like. Made by [`PgCluster::builder`].
#[derive(Debug, Clone)]
pub struct PgClusterBuilder {
    major: u32,
    wal_segsize_mb: u32,
    checksums: bool,
    settings: Vec<(String, String)>,
    hba: Vec<String>,
    initdb: Vec<String>,
}

impl Default for PgClusterBuilder {
    fn default() -> Self {
        Self {
            major: 15,
            wal_segsize_mb: 16,
            checksums: true,
            settings: Vec::new(),
            hba: Vec::new(),
            initdb: Vec::new(),
        }
    }
}

impl PgClusterBuilder {
    /// Major version, 13 to 18; 15 unless set.
    #[must_use]
    pub fn major(mut self, major: u32) -> Self {
        self.major = major;
        self
    }

    /// Size of a WAL segment in MiB, a power of two from 1 to 1024; 16 unless set.
    #[must_use]
    pub fn wal_segsize_mb(mut self, megabytes: u32) -> Self {
        self.wal_segsize_mb = megabytes;
        self
    }

    /// Page checksums; on unless set.
    #[must_use]
    pub fn checksums(mut self, on: bool) -> Self {
        self.checksums = on;
        self
    }

    /// One setting of postgresql.conf; the value without quotes.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Several settings of postgresql.conf; values without quotes.
    #[must_use]
    pub fn settings<'a>(mut self, settings: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        for (name, value) in settings {
            self = self.setting(name, value);
        }
        self
    }

    /// A line of pg_hba.conf, placed before those that trust every local connection.
    #[must_use]
    pub fn hba(mut self, line: &str) -> Self {
        self.hba.push(line.to_owned());
        self
    }

    /// One more argument of initdb.
    #[must_use]
    pub fn initdb_arg(mut self, argument: &str) -> Self {
        self.initdb.push(argument.to_owned());
        self
    }

    /// Makes the cluster and starts it.
    ///
    /// # Errors
    /// If the version is missing, or initdb or the server fails.
    pub fn start(self) -> Result<PgCluster> {
        let mut cluster = self.create()?;
        cluster.start()?;
        Ok(cluster)
    }

    /// Makes the cluster without starting it.
    ///
    /// # Errors
    /// If the version is missing or initdb fails.
    pub fn create(self) -> Result<PgCluster> {
        let install = PgInstall::find(self.major)?;
        let home = Scratch::new(&format!("pg{}", self.major))?;
        let data = home.path().join("data");
        let mut initdb = install.command("initdb")?;
        initdb.arg("-D").arg(&data).args(["-U", "postgres", "-A", "trust", "-N", "-E", "UTF8", "--locale=C"]);
        initdb.arg(format!("--wal-segsize={}", self.wal_segsize_mb)).args(&self.initdb);
        if self.checksums {
            initdb.arg("--data-checksums");
        } else if self.major >= 18 {
            initdb.arg("--no-data-checksums");
        }
        run(&mut initdb)?;

        let mut conf = File::options()
            .append(true)
            .open(data.join("postgresql.conf"))
            .context("cannot open postgresql.conf")?;
        let common = SETTINGS.iter().map(|(name, value)| (*name, *value));
        let own = self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in common.chain(own) {
            writeln!(conf, "{name} = '{}'", value.replace('\'', "''"))?;
        }
        let path = data.join("pg_hba.conf");
        let hba = fs::read_to_string(&path).context("cannot read pg_hba.conf")?;
        fs::write(&path, format!("{}\n{hba}", self.hba.join("\n"))).context("cannot write pg_hba.conf")?;
        PgCluster::new(install, home, data, Port::free()?)
    }
}

/// Runs a command to its end; an error holds what it printed.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let done = command.output().with_context(|| format!("cannot run {program}"))?;
    let printed = String::from_utf8_lossy(&done.stdout).into_owned();
    ensure!(
        done.status.success(),
        "{program} failed ({}): {}{}",
        done.status,
        printed.trim(),
        String::from_utf8_lossy(&done.stderr).trim()
    );
    Ok(printed)
}

/// Runs a program of an installation that talks to servers, as the servers' account.
pub(crate) fn client(install: &PgInstall, name: &str) -> Result<Command> {
    Ok(Account::of_servers()?.command(install.client_tool(name)?))
}
