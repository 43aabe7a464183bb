//! Production with everpoint beside it, looked after as its operator would: what captures is started again when it has ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use everpoint_testkit::{
    Account, Address, Background, Everpoint, PgInstall, Port, Ran, Random, WriterOptions, Writers, now,
    parse_lsn, print_lsn, say,
};
use serde_json::Value;

use super::Sabotage;
use super::chronicle::{Chronicle, Point};
use super::plan::Mode;
use super::server::{Server, copy_tree};

pub(super) const CLUSTER: &str = "order-db";
/// How long what was committed may take to be in the repository, after a failover and a few restarts of capture too.
const BOUND: Duration = Duration::from_secs(40);
/// Between an end of what captures and its next start: what a supervisor waits.
const RESTART: Duration = Duration::from_secs(1);

/// Everything of one sequence.
pub(super) struct Life {
    // Dropped first: it is a client of production.
    capturing: Option<Background>,
    pub(super) production: Server,
    /// A copy that was made before; its server is stopped.
    pub(super) copy: Option<Server>,
    pub(super) everpoint: Everpoint,
    pub(super) mode: Mode,
    pub(super) random: Random,
    pub(super) chronicle: Chronicle,
    /// Where production is in it.
    pub(super) era: usize,
    pub(super) generation: u32,
    /// More lines of production's configuration.
    pub(super) conf: String,
    /// Ends of what captures, and what it said then.
    pub(super) ended: Vec<String>,
    /// Gaps that were told and explained.
    pub(super) gaps: usize,
    /// Harm to be done.
    pub(super) sabotage: Option<Sabotage>,
    seed: u64,
    sessions: u32,
    numbers: u32,
}

impl Life {
    /// Makes production from a directory as initdb leaves it, protects it, takes the first backup.
    pub(super) fn new(binary: &Path, template: &Path, major: u32, mode: Mode, seed: u64) -> Result<Self> {
        let everpoint = Everpoint::new(binary, &[])?;
        let home = everpoint.home();
        for name in ["s", "ts", "state"] {
            home.subdir(name)?;
        }
        let production = Server {
            install: PgInstall::find(major)?,
            data: home.path().join("prod-0"),
            port: Port::free()?,
        };
        copy_tree(template, &production.data)?;
        let mut life = Self {
            capturing: None,
            production,
            copy: None,
            everpoint,
            mode,
            random: Random::new(seed ^ 0x5DEE_CE66),
            chronicle: Chronicle::default(),
            era: 0,
            generation: 1,
            conf: String::new(),
            ended: Vec::new(),
            gaps: 0,
            sabotage: None,
            seed,
            sessions: 0,
            numbers: 0,
        };
        life.write_conf(&life.production.data)?;
        life.point_here()?;
        life.everpoint.run(&["init"])?;
        life.production.start(&[])?;
        let mut session = life.production.session()?;
        Writers::prepare(&mut session)?;
        session.query("CREATE EXTENSION amcheck; CREATE TABLE marker (id int)")?;
        session.query("CHECKPOINT")?;
        let start = session.query("SELECT redo_lsn FROM pg_control_checkpoint()")?.to_string();
        life.chronicle.begin(1, 1, None, parse_lsn(&start).context("no position")?);
        life.supervise()?;
        life.backup(&[])?;
        life.chronicle.era_mut(0)?.since = now();
        life.write(600)?;
        Ok(life)
    }

    /// Says something of this sequence: several may run at once.
    pub(super) fn say(&self, line: &str) {
        say(&format!("   [{}] {line}", self.seed));
    }

    /// Production's own configuration, behind what initdb wrote.
    pub(super) fn write_conf(&self, data: &Path) -> Result<()> {
        let path = data.join("postgresql.conf");
        let old = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let archive = if self.mode.archives() {
            let command = self.everpoint.archive_command(CLUSTER);
            format!(
                "archive_mode = on\narchive_timeout = '60s'\narchive_command = '{}'\n",
                command.replace('\'', "''")
            )
        } else {
            "archive_mode = off\n".to_owned()
        };
        let text = format!(
            "{old}\nport = {}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\nfsync = off\n\
             wal_level = replica\nmax_wal_senders = 10\nmax_replication_slots = 10\nwal_keep_size = '20GB'\n\
             shared_buffers = '16MB'\nautovacuum = off\nlogging_collector = off\nlog_timezone = UTC\ntimezone = UTC\n\
             log_line_prefix = '%m [%p] '\n{archive}{}",
            self.production.port.number(),
            self.everpoint.home().path().join("s").display(),
            self.conf
        );
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Lets Everpoint's configuration say where production is.
    pub(super) fn point_here(&self) -> Result<()> {
        let home = self.everpoint.home().path().display();
        let text = format!(
            "[repository.local]\nurl = \"{home}/repository\"\nkey_file = \"{home}/key\"\n\n[cluster.{CLUSTER}]\n\
             postgres = \"postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable\"\ndata_dir = \"{}\"\npg_bin = \"{}\"\n\
             \n[schedule]\nbackup = \"off\"\npackage = \"off\"\nbundle = \"off\"\ncheck = \"off\"\n\
             \n[serve]\nstate_dir = \"{home}/state\"\n\n[api]\nlisten = \"off\"\n",
            self.production.port.number(),
            self.production.data.display(),
            self.production.install.bin().display()
        );
        fs::write(self.home().join("everpoint.toml"), text).context("cannot write the configuration")
    }

    pub(super) fn home(&self) -> PathBuf {
        self.everpoint.home().path().to_owned()
    }

    /// A name that nothing has yet.
    pub(super) fn place(&mut self, kind: &str) -> PathBuf {
        self.numbers += 1;
        self.home().join(format!("{kind}-{}", self.numbers))
    }

    /// Starts what captures, unless it runs.
    pub(super) fn supervise(&mut self) -> Result<()> {
        if self.sabotage == Some(Sabotage::Capture) {
            self.capturing = None;
            return Ok(());
        }
        let Some(arguments) = self.mode.arguments() else { return Ok(()) };
        if let Some(mut capturing) = self.capturing.take() {
            if capturing.runs()? {
                self.capturing = Some(capturing);
                return Ok(());
            }
            self.ended.push(capturing.said());
            sleep(RESTART);
        }
        self.capturing = Some(self.everpoint.spawn(arguments)?);
        Ok(())
    }

    /// Ends what captures, and starts it again with the configuration as it is now.
    pub(super) fn restart_capture(&mut self) -> Result<()> {
        if let Some(capturing) = self.capturing.take() {
            capturing.stop()?;
        }
        self.supervise()
    }

    /// What captures said last, if it still runs.
    pub(super) fn capture_said(&self) -> String {
        let now = self.capturing.as_ref().map(Background::said).unwrap_or_default();
        let before = self.ended.last().cloned().unwrap_or_default();
        format!("it ended {} times, at last with:\n{before}\nand said since:\n{now}", self.ended.len())
    }

    /// Runs a command that must succeed. It may wait for the lease of another run.
    pub(super) fn run(&mut self, arguments: &[&str]) -> Result<Ran> {
        let since = Instant::now();
        loop {
            let ran = self.everpoint.try_run(arguments)?;
            match ran.status.code() {
                Some(0) => return Ok(ran),
                Some(6) if since.elapsed() < Duration::from_secs(60) => sleep(Duration::from_millis(500)),
                _ => bail!("{}", ran.told(arguments)),
            }
            self.supervise()?;
        }
    }

    pub(super) fn json(&mut self, arguments: &[&str]) -> Result<Value> {
        let arguments = [&["--json"], arguments].concat();
        let out = self.run(&arguments)?.out;
        serde_json::from_str(&out).with_context(|| format!("{arguments:?} printed {out:?}"))
    }

    pub(super) fn backup(&mut self, more: &[&str]) -> Result<()> {
        self.run(&[&["backup", CLUSTER], more].concat()).map(drop)
    }

    /// Writers with numbers of their own.
    pub(super) fn writing(&mut self) -> WriterOptions {
        self.sessions += 3;
        let seed = self.random.bits();
        WriterOptions {
            sessions: 3,
            first_session: self.sessions,
            seed,
            pause_ms: 4,
            ..WriterOptions::default()
        }
    }

    /// Starts writers on production.
    pub(super) fn writers(&mut self) -> Result<Writers> {
        let options = self.writing();
        Writers::start(Address::Loopback(self.production.port.number()), &options)
    }

    /// Lets writers write for so many milliseconds.
    pub(super) fn write(&mut self, milliseconds: u64) -> Result<()> {
        let writers = self.writers()?;
        sleep(Duration::from_millis(milliseconds));
        self.note(writers)
    }

    /// Stops writers, and takes note of what they did.
    pub(super) fn note(&mut self, writers: Writers) -> Result<()> {
        let record = writers.stop();
        self.chronicle.add(self.era, record)?;
        if self.production.runs() { self.read_log() } else { Ok(()) }
    }

    /// Reads what production's log says. Nobody writes.
    pub(super) fn read_log(&mut self) -> Result<()> {
        let until = self.production.flushed()?;
        self.chronicle.read(self.era, &self.production.install, &self.production.data, until)
    }

    /// The same of a server that has crashed, whose log was flushed at least until then.
    pub(super) fn read_dead_log(&mut self, until: u64) -> Result<()> {
        self.chronicle.read(self.era, &self.production.install, &self.production.data, until)
    }

    /// Where production is now.
    pub(super) fn here(&self) -> Result<Point> {
        self.chronicle.end(self.era)
    }

    /// Begins the era of a production that has just left recovery; `wanted` is what it must hold.
    pub(super) fn new_era(&mut self, wanted: Point) -> Result<()> {
        let timeline = self.production.timeline()?;
        let (parent, fork) = self.production.fork(timeline)?;
        let from = self.chronicle.of_timeline(self.generation, parent);
        let from = from.with_context(|| {
            format!("timeline {timeline} comes from {parent}, which production never had")
        })?;
        let point = self.chronicle.before(from, fork)?;
        ensure!(
            self.chronicle.same(point, wanted),
            "timeline {timeline} forks from {parent} at {}, which is not where it should: {point:?} instead of {wanted:?}",
            print_lsn(fork)
        );
        self.era = self.chronicle.begin(timeline, self.generation, Some(point), fork);
        Ok(())
    }

    /// Commits something on production, and waits until the repository has it, on production's timeline. Returns how long
    /// that took.
    pub(super) fn settle(&mut self) -> Result<Duration> {
        self.production.psql("INSERT INTO marker VALUES (1)")?;
        let (end, timeline) = (self.production.flushed()?, self.production.timeline()?);
        if self.mode == Mode::Archive {
            // What archive_timeout would do, had its checkpointer not gone to sleep for long before it was in production.
            self.production.psql("SELECT pg_switch_wal()")?;
        }
        let since = Instant::now();
        loop {
            self.supervise()?;
            let reached = self.stored_until(timeline);
            // Windows reach the end of a record, behind which the server leaves up to 7 bytes free.
            if matches!(reached, Ok(reached) if reached + 7 >= end) {
                self.chronicle.era_mut(self.era)?.stored = end;
                return Ok(since.elapsed());
            }
            if since.elapsed() > BOUND {
                let reached = reached.map_or_else(|why| format!("{why:#}"), print_lsn);
                let here = format!("capture does not go on: {} s after {}", BOUND.as_secs(), print_lsn(end));
                bail!(
                    "{here} on timeline {timeline}, the repository has {reached}; of capture: {}\nproduction says:\n{}",
                    self.capture_said(),
                    self.production.said()
                );
            }
            sleep(Duration::from_millis(100));
        }
    }

    fn stored_until(&mut self, timeline: u32) -> Result<u64> {
        let list = self.json(&["list", CLUSTER])?;
        let windows =
            list.pointer("/clusters/0/windows").and_then(Value::as_array).cloned().unwrap_or_default();
        let here =
            windows.iter().filter(|it| it.get("timeline").and_then(Value::as_u64) == Some(timeline.into()));
        Ok(here.filter_map(|window| parse_lsn(window.get("to_lsn")?.as_str()?)).max().unwrap_or(0))
    }

    /// Removes a directory that is no longer anybody's.
    pub(super) fn remove(&self, path: &Path) -> Result<()> {
        ensure!(path.starts_with(self.home()), "{} is not ours", path.display());
        match fs::remove_dir_all(path) {
            Err(why) if why.kind() != std::io::ErrorKind::NotFound => {
                Err(why).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Makes a directory for a tablespace.
    pub(super) fn make_place(&self, path: &Path) -> Result<()> {
        fs::create_dir(path).with_context(|| format!("cannot make {}", path.display()))?;
        Account::of_servers()?.own(path)
    }
}
