//! What all worlds are made from: a protected cluster with its repository, and what other directories hold, all stopped.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use everpoint_testkit::{Account, Everpoint, PgCluster, PgInstall, Scratch, StopMode, text};

use super::snapshot::Snapshot;

pub(crate) const CLUSTER: &str = "order-db";
/// The tablespaces: the third is created after the image.
pub(crate) const SPACES: [&str; 3] = ["alpha", "beta", "gamma"];
/// Stands in a directory as long as a restore into it has not ended.
pub(crate) const MARKER: &str = "everpoint.restore-incomplete";
/// What a marker of the first versions said: no word of whose it is.
pub(crate) const OLD_MARKER: &str =
    "A restore into this directory has not finished. It is not a whole database.\n";

/// A moment to restore to.
#[derive(Debug, Clone)]
pub(crate) struct Moment {
    /// In words.
    pub(crate) name: &'static str,
    /// For `--to`.
    pub(crate) target: String,
    /// What the tables held: one line a table.
    pub(crate) rows: String,
    /// Whether the third tablespace was there.
    pub(crate) gamma: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) sandbox: Scratch,
    pub(crate) everpoint: Everpoint,
    pub(crate) source: PgCluster,
    pub(crate) account: Account,
    /// Oids of [`SPACES`].
    pub(crate) oids: Vec<String>,
    /// In their order in time; the last one is `latest`.
    pub(crate) moments: Vec<Moment>,
    /// Number of the case: each has a world of its own name.
    pub(crate) number: u64,
    /// What was restored from it is not this repository's.
    foreign: Everpoint,
}

impl Stage {
    pub(crate) fn build(binary: &Path) -> Result<Self> {
        let sandbox = Scratch::new("trees")?;
        let account = Account::of_servers()?;
        let source = quiet(15)?;
        let other = quiet(15)?;
        let everpoint = Everpoint::new(binary, &[(CLUSTER, &source), ("other", &other)])?;
        let foreign = Everpoint::new(binary, &[(CLUSTER, &source)])?;
        let stage = Self {
            sandbox,
            everpoint,
            source,
            account,
            oids: Vec::new(),
            moments: Vec::new(),
            number: 0,
            foreign,
        };
        stage.fill(other)
    }

    fn fill(mut self, mut other: PgCluster) -> Result<Self> {
        self.directory(&self.template(""))?;
        let other_space = other.home().subdir("space")?;
        other.psql(&format!("CREATE TABLESPACE theirs LOCATION '{}'", other_space.display()))?;
        other.psql("CREATE TABLE theirs TABLESPACE theirs AS SELECT n FROM generate_series(1, 900) n")?;
        self.write_history()?;
        self.everpoint.run(&["backup", "other"])?;
        self.foreign.run(&["init"])?;
        self.foreign.run(&["backup", CLUSTER])?;
        self.source.stop(StopMode::Fast)?;
        other.stop(StopMode::Fast)?;
        let mut older = quiet(14)?;
        older.stop(StopMode::Fast)?;
        self.keep("production", self.source.data_dir())?;
        for space in SPACES {
            self.keep(space, &self.source.home().path().join(space))?;
        }
        self.keep("other", other.data_dir())?;
        self.keep("other-space", &other_space)?;
        self.keep("older", older.data_dir())?;
        self.keep("repository", &self.repository())?;
        self.unfinished(&self.everpoint, "other", "leftover-of-other-cluster")?;
        self.unfinished(&self.foreign, CLUSTER, "leftover-of-other-repository")?;
        Ok(self)
    }

    /// Production's life: an image, rows behind it, a tablespace that the image does not know, more rows.
    fn write_history(&mut self) -> Result<()> {
        for space in SPACES {
            self.source.home().subdir(space)?;
        }
        self.sql("CREATE TABLE plain AS SELECT n, md5(n::text) AS word FROM generate_series(1, 3000) n")?;
        self.create_space("alpha")?;
        self.create_space("beta")?;
        self.everpoint.run(&["init"])?;
        let backup = self.everpoint.json(&["backup", CLUSTER])?;
        let label = format!("backup:{}", text(&backup, "/label")?);
        self.moment("the backup", label, &["plain", "alpha", "beta"])?;
        self.add(&["plain", "alpha"])?;
        self.moment_now("before gamma", &["plain", "alpha", "beta"])?;
        self.create_space("gamma")?;
        self.add(&["plain", "beta", "gamma"])?;
        self.moment_now("after gamma", &["plain", "alpha", "beta", "gamma"])?;
        self.sql("DELETE FROM gamma WHERE n % 3 = 0")?;
        self.add(&["alpha", "gamma"])?;
        self.moment("latest", "latest".to_owned(), &["plain", "alpha", "beta", "gamma"])?;
        self.everpoint.run(&["capture", "--once", CLUSTER])?;
        let names = SPACES.map(|name| format!("'{name}'")).join(", ");
        let oids =
            self.sql(&format!("SELECT oid FROM pg_tablespace WHERE spcname IN ({names}) ORDER BY spcname"))?;
        self.oids = oids.lines().map(str::to_owned).collect();
        ensure!(self.oids.len() == SPACES.len(), "tablespaces: {oids}");
        Ok(())
    }

    fn sql(&self, sql: &str) -> Result<String> {
        self.source.psql(sql)
    }

    fn create_space(&self, name: &str) -> Result<()> {
        let place = self.source.home().path().join(name);
        self.sql(&format!("CREATE TABLESPACE {name} LOCATION '{}'", place.display()))?;
        let rows = "SELECT n, md5(n::text) AS word FROM generate_series(1, 2000) n";
        self.sql(&format!("CREATE TABLE {name} TABLESPACE {name} AS {rows}"))?;
        Ok(())
    }

    fn add(&self, tables: &[&str]) -> Result<()> {
        for table in tables {
            let rows = "SELECT n, md5((n * 7)::text) FROM generate_series(5001, 5500) n";
            self.sql(&format!("INSERT INTO {table} {rows}"))?;
        }
        Ok(())
    }

    /// A moment between two commits, whose time the server says.
    fn moment_now(&mut self, name: &'static str, tables: &[&str]) -> Result<()> {
        sleep(Duration::from_millis(30));
        let now = self.sql("SELECT to_char(clock_timestamp(), 'YYYY-MM-DD HH24:MI:SS.USOF')")?;
        sleep(Duration::from_millis(30));
        self.moment(name, now, tables)
    }

    fn moment(&mut self, name: &'static str, target: String, tables: &[&str]) -> Result<()> {
        let rows = self.sql(&rows_of(tables))?;
        self.moments.push(Moment { name, target, rows, gamma: tables.contains(&"gamma") });
        Ok(())
    }

    /// Leaves a directory in which a restore was killed.
    fn unfinished(&self, everpoint: &Everpoint, cluster: &str, name: &str) -> Result<()> {
        let place = self.template(name);
        let spaces = self.sandbox.path().join(format!("{name}-spaces"));
        let shown = place.display().to_string();
        let mut arguments = vec!["restore", cluster, &shown, "--to", "latest"];
        // Whether tablespaces lie inside or at their own paths by default, those paths are taken: name others.
        let maps: Vec<String> = if cluster == CLUSTER {
            let source = self.source.home().path().display();
            let of = |space: &&str| format!("{source}/{space}={}/{space}", spaces.display());
            SPACES.iter().map(of).collect()
        } else {
            self.other_map(&spaces)?
        };
        for map in &maps {
            arguments.extend(["--map", map]);
        }
        // One that was done before it could be killed leaves nothing unfinished.
        for _ in 0..10 {
            let mut running = everpoint.spawn(&arguments)?;
            await_marker(&place, || running.runs())?;
            running.kill9()?;
            let unfinished = place.join(MARKER).exists();
            remove(&spaces)?;
            if unfinished {
                return Ok(());
            }
            ensure!(place.join("PG_VERSION").exists(), "nothing was restored: {}", running.all_said());
            remove(&place)?;
        }
        bail!("no restore could be killed before it was done")
    }

    /// The only tablespace of the other cluster, elsewhere.
    fn other_map(&self, spaces: &Path) -> Result<Vec<String>> {
        let links = self.template("other").join("pg_tblspc");
        let mut maps = Vec::new();
        for link in fs::read_dir(&links).context("cannot list links")? {
            let old = fs::read_link(link?.path()).context("cannot read a link")?;
            maps.push(format!("{}={}/theirs", old.display(), spaces.display()));
        }
        Ok(maps)
    }

    /// A directory that is copied into worlds; nothing of it may ever change.
    pub(crate) fn template(&self, name: &str) -> PathBuf {
        self.sandbox.path().join("templates").join(name)
    }

    fn keep(&self, name: &str, from: &Path) -> Result<()> {
        copy(from, &self.template(name))
    }

    /// The data directory of production.
    pub(crate) fn production(&self) -> &Path {
        self.source.data_dir()
    }

    /// Where production's tablespace lies.
    pub(crate) fn space(&self, name: &str) -> PathBuf {
        self.source.home().path().join(name)
    }

    pub(crate) fn repository(&self) -> PathBuf {
        self.everpoint.home().path().join("repository")
    }

    /// The directory in which a world is made.
    pub(crate) fn world(&self) -> PathBuf {
        self.sandbox.path().join(format!("world-{}", self.number))
    }

    /// Everything that a restore could reach for.
    pub(crate) fn roots(&self) -> Vec<PathBuf> {
        [&self.sandbox, self.source.home(), self.everpoint.home(), self.foreign.home()]
            .map(|scratch| scratch.path().to_owned())
            .into()
    }

    pub(crate) fn install(&self) -> &PgInstall {
        self.source.install()
    }

    /// Production, its tablespaces and the repository are again what they were, where the last world changed them.
    pub(crate) fn renew(&self, pristine: &Snapshot, now: &Snapshot) -> Result<()> {
        let changes = pristine.differences(now);
        let mut pairs = vec![("production", self.production().to_owned()), ("repository", self.repository())];
        pairs.extend(SPACES.map(|space| (space, self.space(space))));
        for (name, place) in pairs {
            if changes.iter().any(|change| change.path.starts_with(&place)) {
                remove(&place)?;
                copy(&self.template(name), &place)?;
            }
        }
        Ok(())
    }

    /// Copies a template.
    pub(crate) fn copy(&self, name: &str, to: &Path) -> Result<()> {
        copy(&self.template(name), to)
    }

    /// A directory of the servers' account, mode 0700, and those above it.
    pub(crate) fn directory(&self, path: &Path) -> Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.directory(parent)?;
        }
        fs::create_dir(path).with_context(|| format!("cannot make {}", path.display()))?;
        self.account.own(path)
    }

    /// A file that somebody wrote.
    pub(crate) fn file(&self, path: &Path, words: &str) -> Result<()> {
        if let Some(parent) = path.parent() {
            self.directory(parent)?;
        }
        fs::write(path, words).with_context(|| format!("cannot write {}", path.display()))?;
        self.account.own(path)
    }

    pub(crate) fn link(&self, leads: &Path, path: &Path) -> Result<()> {
        symlink(leads, path).with_context(|| format!("cannot link {}", path.display()))?;
        // `own` never follows a link.
        self.account.own(path)
    }
}

/// A statement that tells of each table how many rows it has, and their hash.
pub(crate) fn rows_of(tables: &[&str]) -> String {
    let of = |table: &&str| {
        format!(
            "SELECT '{table}', count(*), md5(string_agg(n::text || word, ',' ORDER BY n, word)) FROM {table}"
        )
    };
    tables.iter().map(of).collect::<Vec<_>>().join(" UNION ALL ") + " ORDER BY 1"
}

fn quiet(major: u32) -> Result<PgCluster> {
    let small = [("autovacuum", "off"), ("wal_keep_size", "200MB"), ("max_wal_size", "64MB")];
    let cluster = PgCluster::builder().major(major).wal_segsize_mb(1).settings(small).start()?;
    // Each world holds several copies: without the templates they are a third as large.
    cluster.psql("UPDATE pg_database SET datistemplate = false")?;
    cluster.psql("DROP DATABASE template0")?;
    cluster.psql("DROP DATABASE template1")?;
    Ok(cluster)
}

/// Waits until a restore has begun to write.
pub(crate) fn await_marker(place: &Path, mut runs: impl FnMut() -> Result<bool>) -> Result<()> {
    let since = Instant::now();
    while !place.join(MARKER).exists() && runs()? {
        if since.elapsed() > Duration::from_secs(60) {
            bail!("nothing came into {}", place.display());
        }
        sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Copies a tree as `cp -a` does.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    command("cp", &["-a".as_ref(), from.as_os_str(), to.as_os_str()])
}

/// Runs a program that must succeed.
pub(crate) fn command(program: &str, arguments: &[&std::ffi::OsStr]) -> Result<()> {
    let done = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let done = done.with_context(|| format!("cannot run {program}"))?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{program} {arguments:?}: {}", said.trim());
    Ok(())
}

/// Removes a tree. What still fetched for a server that was stopped may be on its way out.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let since = Instant::now();
    loop {
        let removed = match fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(path),
            Ok(_) => fs::remove_file(path),
            Err(error) => Err(error),
        };
        match removed.or_else(nothing_there) {
            Ok(()) => return Ok(()),
            Err(_) if since.elapsed() < Duration::from_secs(10) => sleep(Duration::from_millis(50)),
            Err(why) => return Err(why).with_context(|| format!("cannot remove {}", path.display())),
        }
    }
}

fn nothing_there(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Whether this process may do what only root may.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}
