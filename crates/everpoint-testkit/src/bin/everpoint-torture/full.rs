//! A repository whose disk runs full under load: the database stays up, and all is well again as soon as there is room.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;
use everpoint_testkit::{
    Address, Background, Everpoint, PgCluster, Pgbench, RunningCopy, Session, Webhook, parse_lsn, say, text,
};
use serde_json::Value;

use crate::disk::{self, Disk};

const CLUSTER: &str = "order-db";
/// A commit that takes longer was held up by something.
const STUCK: Duration = Duration::from_secs(30);

/// What is told, and is over in the end.
const ALERTS: [&str; 4] = ["slot_given_up", "gap", "archiving_failed", "backup_failed"];

/// How large.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// The everpoint program
    #[arg(long, value_name = "PATH")]
    binary: PathBuf,
    /// Size of the disk in MiB
    #[arg(long, default_value_t = 1024)]
    megabytes: u64,
    /// Major version
    #[arg(long, default_value_t = 15)]
    version: u32,
    /// Seconds that any stage may take
    #[arg(long, default_value_t = 900)]
    patience: u64,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if !disk::enter()? {
        say("   not tried: this machine lets nobody but root mount a disk");
        return Ok(());
    }
    let mut world = World::new(options)?;
    let done = trial(&mut world, options);
    done.map_err(|why| {
        let said = world.daemon.as_ref().map(Background::said).unwrap_or_default();
        let (source, everpoint) = (world.source.keep(), world.everpoint.keep());
        let kept = format!("files are kept in {} and {}", source.display(), everpoint.display());
        why.context(format!("{kept}; the daemon said last:\n{said}"))
    })
}

/// A server, a daemon that keeps a repository on a small disk, and somebody who hears alerts.
struct World {
    // Dropped first: clients of the server.
    daemon: Option<Background>,
    source: PgCluster,
    // Dropped before the directory that it lies in.
    disk: Disk,
    everpoint: Everpoint,
    alerts: Webhook,
    /// Bytes that the slot may hold back.
    most: u64,
    patience: Duration,
}

impl World {
    fn new(options: &Options) -> Result<Self> {
        let small = options.megabytes < 512;
        let most = (options.megabytes << 20) / 8;
        let source = PgCluster::builder()
            .major(options.version)
            .wal_segsize_mb(if small { 1 } else { 16 })
            .settings([
                ("max_wal_size", if small { "8MB" } else { "128MB" }),
                ("min_wal_size", if small { "2MB" } else { "32MB" }),
                ("checkpoint_timeout", "30s"),
                ("autovacuum", "off"),
            ])
            .start()?;
        Pgbench::prepare(&source, if small { 1 } else { 5 })?;
        for table in ["ballast", "noise"] {
            source.psql(&format!("CREATE TABLE {table} (word text)"))?;
            source.psql(&format!("ALTER TABLE {table} ALTER word SET STORAGE external"))?;
        }
        source.psql("CREATE TABLE beat (n bigint PRIMARY KEY)")?;
        // Hexadecimal digits of noise take half of their size when compressed: a backup takes a fourteenth of the disk.
        fill(&mut source.session()?, "ballast", options.megabytes / 7)?;
        let alerts = Webhook::start()?;
        let everpoint = Everpoint::new(&options.binary, &[(CLUSTER, &source)])?;
        let disk = Disk::new(everpoint.home().path(), options.megabytes)?;
        let world = Self {
            daemon: None,
            source,
            disk,
            everpoint,
            alerts,
            most,
            patience: Duration::from_secs(options.patience),
        };
        world.configure()?;
        world.everpoint.run(&["init"])?;
        Ok(world)
    }

    fn configure(&self) -> Result<()> {
        let path = self.everpoint.home().path().join("everpoint.toml");
        let text = fs::read_to_string(&path).context("cannot read the configuration")?;
        let here = self.everpoint.home().path().join("repository");
        let there = self.disk.place().join("repository");
        let text = text.replace(&here.display().to_string(), &there.display().to_string());
        fs::write(&path, text).context("cannot write the configuration")?;
        self.everpoint.configure(&format!(
            "\n[serve]\nstate_dir = \"{}\"\nmax_retained = \"{} B\"\n[schedule]\nbackup = \"off\"\n[api]\nlisten = \"off\"\n\
             [retention]\nlast = 1\ndaily = 0\nweekly = 0\nmonthly = 0\nwindow_days = 0\n\
             [alerts]\nevery = \"1s\"\n[[alerts.sink]]\ntype = \"webhook\"\nurl = \"{}\"\n",
            self.everpoint.home().subdir("state")?.display(),
            self.most,
            self.alerts.url()
        ))
    }

    fn cluster(&self) -> Result<Value> {
        let list = self.everpoint.json(&["list", CLUSTER])?;
        list.pointer("/clusters/0").cloned().context("the cluster is not listed")
    }

    /// Labels of the good backups, oldest first.
    fn good(&self) -> Result<Vec<String>> {
        let cluster = self.cluster()?;
        let backups = cluster.get("backups").and_then(Value::as_array).cloned().unwrap_or_default();
        let good = backups.iter().filter(|backup| backup.get("status").and_then(Value::as_str) == Some("ok"));
        good.map(|backup| Ok(text(backup, "/label")?.to_owned())).collect()
    }

    fn gaps(&self) -> Result<usize> {
        Ok(self.cluster()?.get("gaps").and_then(Value::as_array).map_or(0, Vec::len))
    }

    /// Bytes of log that the slot holds back; `None` if there is no slot.
    fn held(&self) -> Result<Option<u64>> {
        let held = self.source.psql(
            "SELECT (pg_current_wal_insert_lsn() - restart_lsn)::bigint FROM pg_replication_slots \
             WHERE slot_name = 'everpoint_order_db'",
        )?;
        Ok(held.parse().ok())
    }

    /// Bytes of the server's log directory.
    fn log_bytes(&self) -> Result<u64> {
        Ok(self.source.psql("SELECT sum(size)::bigint FROM pg_ls_waldir()")?.parse()?)
    }

    /// Waits until something is so; the database must take commits all the time.
    fn until(
        &mut self,
        what: &str,
        beats: &Beats,
        mut is_so: impl FnMut(&Self) -> Result<bool>,
    ) -> Result<()> {
        let since = Instant::now();
        while !is_so(self)? {
            beats.check()?;
            let daemon = self.daemon.as_mut().context("no daemon")?;
            ensure!(daemon.runs()?, "the daemon ended");
            ensure!(since.elapsed() < self.patience, "waited in vain until {what}");
            sleep(Duration::from_millis(300));
        }
        say(&format!(
            "   {what}: after {:.0} s, {} MiB free, the slot holds {} MiB, {} MiB of log on the server",
            since.elapsed().as_secs_f64(),
            self.disk.free()? >> 20,
            self.held()?.map_or_else(|| "no".to_owned(), |bytes| (bytes >> 20).to_string()),
            self.log_bytes()? >> 20
        ));
        Ok(())
    }
}

fn trial(world: &mut World, options: &Options) -> Result<()> {
    let beats = Beats::start(world.source.address())?;
    world.daemon = Some(world.everpoint.spawn(&["serve"])?);
    world.until("the first backup is there", &beats, |world| Ok(world.good()?.len() == 1))?;
    let first = world.good()?;
    // Three backups on hold; the policy keeps the last one, and lets go the first.
    for _ in 0..3 {
        let report = world.everpoint.json(&["backup", CLUSTER, "--full"])?;
        world.everpoint.run(&["hold", CLUSTER, text(&report, "/label")?])?;
    }
    world.everpoint.run(&["backup", CLUSTER, "--full"])?;
    let newest = world.good()?.last().cloned();
    let held = world.good()?.get(1..4).context("backups are missing")?.to_vec();
    let pgbench = Pgbench::start(&world.source, 2, Some(100))?;
    let noise = noise(world.source.address(), options.megabytes)?;

    say("-- what the policy does not keep goes by itself when the disk is full");
    world.until("the first backup has gone", &beats, |world| {
        Ok(!world.good()?.contains(first.first().context("no backup")?))
    })?;
    ensure!(world.gaps()? == 0, "log is lost though there was something to let go");

    say("-- the disk is full of what must stay");
    world.until("the slot holds log back", &beats, |world| {
        Ok(world.held()?.is_some_and(|bytes| bytes > world.most / 2))
    })?;
    let mut most_log = 0;
    world.until("the slot is given up", &beats, |world| {
        most_log = most_log.max(world.log_bytes()?);
        Ok(world.alerts.count("slot_given_up", "firing") == 1)
    })?;
    ensure!(most_log > world.most, "the slot was given up too early, at {most_log} bytes");
    let before = world.source.flushed()?;
    let beyond = world.most.saturating_mul(2);
    world.until("the server goes on without us", &beats, |world| {
        most_log = most_log.max(world.log_bytes()?);
        Ok(world.source.flushed()? > before + beyond)
    })?;
    let bound = world.most.saturating_mul(2) + (256 << 20);
    ensure!(most_log < bound, "{most_log} bytes of log heaped up on the server");

    say("-- the operator releases the holds");
    for label in &held {
        world.everpoint.run(&["hold", CLUSTER, label, "--release"])?;
    }
    world.everpoint.run(&["expire", CLUSTER, "--now"])?;
    world.until("a new backup is there", &beats, |world| Ok(world.good()?.last() != newest.as_ref()))?;
    ensure!(world.gaps()? >= 1, "the gap is not recorded");
    world.until("all alerts are over", &beats, |world| {
        let is_over =
            |kind: &&str| world.alerts.count(kind, "firing") == world.alerts.count(kind, "resolved");
        Ok(ALERTS.iter().all(is_over))
    })?;
    noise.end()?;
    drop(pgbench);
    finish(world, beats)
}

/// The newest moment comes back; the alerts were told, and are over.
fn finish(world: &mut World, beats: Beats) -> Result<()> {
    let (last, slowest) = beats.stop()?;
    say(&format!("   {last} commits, the slowest took {:.2} s", slowest.as_secs_f64()));
    for kind in ALERTS {
        let told = world.alerts.count(kind, "firing");
        say(&format!("   alert {kind}: told {told} times"));
        ensure!(told >= 1, "{kind} was not told");
    }
    let end = world.source.flushed()?;
    let since = Instant::now();
    loop {
        let status = world.everpoint.report(&["status", CLUSTER])?;
        let stored = parse_lsn(text(&status, "/clusters/0/capture/lsn")?).context("no position")?;
        if stored >= end {
            break;
        }
        ensure!(since.elapsed() < world.patience, "the log's end is not captured");
        sleep(Duration::from_millis(300));
    }
    let look = "SELECT (SELECT count(*) FROM beat), (SELECT max(n) FROM beat), (SELECT count(*) FROM pgbench_history), \
                (SELECT count(*) FROM noise), (SELECT md5(string_agg(md5(word), '' ORDER BY ctid)) FROM ballast)";
    let source = world.source.psql(look)?;
    let place = world.everpoint.home().path().join("copy");
    let report = world.everpoint.json(&[
        "restore",
        CLUSTER,
        place.to_str().context("a path is not UTF-8")?,
        "--start",
    ])?;
    let copy = RunningCopy::on(&place)?;
    let found = copy.session()?.query(look)?.to_string();
    copy.stop_and_check(world.source.install())?;
    ensure!(found == source, "the copy holds {found}, the source {source}; {report}");
    say(&format!("   restored, and equal to the source: {found}"));
    let ended = world.daemon.take().context("no daemon")?.stop()?;
    ensure!(ended.status.success(), "{}", ended.told(&["serve"]));
    Ok(())
}

/// Adds megabytes of digits that no compressor halves more than once.
fn fill(session: &mut Session, table: &str, megabytes: u64) -> Result<()> {
    for _ in 0..megabytes {
        session.query(&format!(
            "INSERT INTO {table} SELECT string_agg(md5(random()::text || i), '') \
             FROM generate_series(1, 32768) i GROUP BY i % 128"
        ))?;
    }
    Ok(())
}

/// A thread that works until it is told to stop, or fails.
#[derive(Debug)]
struct Worker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Worker {
    fn start(mut work: impl FnMut() -> Result<()> + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let run = move || {
            while !stopped.load(Ordering::SeqCst) {
                work()?;
            }
            Ok(())
        };
        Self { stop, thread: Some(thread::spawn(run)) }
    }

    /// Fails with what it failed with.
    fn end(mut self) -> Result<()> {
        self.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.take().context("it has ended")?;
        thread.join().map_err(|_| anyhow!("a thread panicked"))?
    }

    fn runs(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // Who wanted to know how it ended has asked before.
            let _ = thread.join();
        }
    }
}

/// Log that fills the disk.
fn noise(address: Address, disk: u64) -> Result<Worker> {
    // The table stays small beside what a backup takes.
    let most = (disk / 16).max(1);
    let mut session = Session::connect(&address, "postgres")?;
    let mut written = 0;
    Ok(Worker::start(move || {
        fill(&mut session, "noise", 1)?;
        written += 1;
        if written % most == 0 {
            session.query("TRUNCATE noise")?;
        }
        // A small disk is not full sooner than a large one.
        sleep(Duration::from_millis(50 << 10) / u32::try_from(disk)?);
        Ok(())
    }))
}

/// Somebody who commits again and again, and notes how long that took.
struct Beats {
    worker: Worker,
    /// Commits so far, and the microseconds of the slowest.
    seen: Arc<(AtomicU64, AtomicU64)>,
}

impl Beats {
    fn start(address: Address) -> Result<Self> {
        let mut session = Session::connect(&address, "postgres")?;
        let seen = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
        let told = Arc::clone(&seen);
        let worker = Worker::start(move || {
            let since = Instant::now();
            let number = told.0.load(Ordering::SeqCst) + 1;
            session.query(&format!("INSERT INTO beat VALUES ({number})"))?;
            told.0.store(number, Ordering::SeqCst);
            let took = u64::try_from(since.elapsed().as_micros())?;
            told.1.fetch_max(took, Ordering::SeqCst);
            sleep(Duration::from_millis(200));
            Ok(())
        });
        Ok(Self { worker, seen })
    }

    fn check(&self) -> Result<()> {
        let slowest = Duration::from_micros(self.seen.1.load(Ordering::SeqCst));
        ensure!(self.worker.runs(), "the database refused a commit");
        ensure!(slowest < STUCK, "a commit took {} s", slowest.as_secs());
        Ok(())
    }

    fn stop(self) -> Result<(u64, Duration)> {
        self.worker.end().context("the database refused a commit")?;
        let slowest = Duration::from_micros(self.seen.1.load(Ordering::SeqCst));
        Ok((self.seen.0.load(Ordering::SeqCst), slowest))
    }
}
