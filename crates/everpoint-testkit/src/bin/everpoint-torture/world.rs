//! A protected server, and how a restored copy of it is judged.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use everpoint_testkit::{
    Account, Background, Everpoint, History, PgCluster, PgInstall, RunningCopy, WriterOptions, Writers,
    parse_lsn, print_lsn, print_time, say, text,
};
use serde_json::Value;

use crate::Capture;

pub(crate) const CLUSTER: &str = "order-db";
/// Bytes of a log segment.
const SEGMENT: u64 = 1 << 20;

/// What one trial runs on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) version: u32,
    pub(crate) capture: Capture,
    pub(crate) seed: u64,
}

/// A source server with everpoint beside it. The source keeps its whole log for the judge; where nothing captures, it
/// recycles its log, and a plain copy of that is kept elsewhere.
#[derive(Debug)]
pub(crate) struct World {
    // Dropped first: it is a client of the server.
    capturing: Option<Background>,
    pub(crate) source: PgCluster,
    pub(crate) everpoint: Everpoint,
    capture: Capture,
    log_start: u64,
    copies: u32,
}

impl World {
    /// Makes a server with the writers' tables, and captures its log from then on.
    pub(crate) fn new(setting: &Setting, binary: &Path) -> Result<Self> {
        let archive = setting.capture != Capture::Stream;
        let keeps = if setting.capture == Capture::None { "0" } else { "20GB" };
        let source = PgCluster::builder()
            .major(setting.version)
            .wal_segsize_mb(1)
            .settings([
                ("max_prepared_transactions", "30"),
                ("wal_keep_size", keeps),
                ("max_wal_size", "64MB"),
                ("checkpoint_timeout", "30s"),
                ("autovacuum_naptime", "1s"),
                ("archive_mode", if archive { "on" } else { "off" }),
            ])
            .start()?;
        Writers::prepare(&mut source.session()?)?;
        let start = source.psql("SELECT redo_lsn FROM pg_control_checkpoint()")?;
        let log_start = parse_lsn(&start).context("no position")?;
        let everpoint = Everpoint::new(binary, &[(CLUSTER, &source)])?;
        everpoint.run(&["init"])?;
        let mut world =
            Self { capturing: None, source, everpoint, capture: setting.capture, log_start, copies: 0 };
        world.start_capture()?;
        Ok(world)
    }

    /// Starts (or starts again) what captures.
    pub(crate) fn start_capture(&mut self) -> Result<()> {
        if self.capture != Capture::Stream {
            let mut session = self.source.session()?;
            let command = if self.capture == Capture::None {
                fs::create_dir(self.aside()).context("cannot make a directory")?;
                Account::of_servers()?.own(&self.aside())?;
                format!("cp %p {}/%f", self.aside().display())
            } else {
                self.everpoint.archive_command(CLUSTER)
            };
            let command = command.replace('\'', "''");
            session.query(&format!("ALTER SYSTEM SET archive_command = '{command}'"))?;
            session.query("ALTER SYSTEM SET archive_timeout = '2s'")?;
            session.query("SELECT pg_reload_conf()")?;
        } else {
            self.capturing = Some(self.everpoint.spawn(&["-vv", "capture", CLUSTER])?);
        }
        Ok(())
    }

    /// Kills what captures with SIGKILL. Returns what was killed.
    pub(crate) fn kill_capture(&mut self) -> Result<String> {
        if let Some(mut capturing) = self.capturing.take() {
            ensure!(capturing.runs()?, "capture ended by itself: {}", capturing.said());
            capturing.kill9()?;
            return Ok("capture".to_owned());
        }
        // With archive_command it lives only while a segment is pushed: wait for one.
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if kill_runs_of(self.everpoint.program(), "archive-push")? > 0 {
                return Ok("archive-push".to_owned());
            }
        }
        bail!("no archive-push was seen for 20 s")
    }

    /// Fails if capture has ended by itself.
    pub(crate) fn check_capture(&mut self) -> Result<()> {
        if let Some(capturing) = &mut self.capturing {
            ensure!(capturing.runs()?, "capture ended by itself: {}", capturing.said());
        }
        Ok(())
    }

    /// What the writers of this trial do.
    pub(crate) fn writing(&self, seed: u64, first_session: u32) -> WriterOptions {
        WriterOptions {
            sessions: 6,
            first_session,
            seed,
            prepared: true,
            record: Some(self.source.home().path().join(format!("writers-{first_session}.txt"))),
            ..WriterOptions::default()
        }
    }

    /// Waits until the repository holds the log up to the source's current end; returns that end and how long it took.
    pub(crate) fn settle(&mut self) -> Result<(u64, Duration)> {
        let end = self.source.flushed()?;
        if self.capture != Capture::Stream {
            self.source.psql("SELECT pg_switch_wal()")?;
        }
        let since = Instant::now();
        loop {
            let reached = self.stored_until()?;
            // Windows reach the end of a record, behind which the server leaves up to 7 bytes free.
            if reached + 7 >= end {
                return Ok((end, since.elapsed()));
            }
            self.check_capture()?;
            if since.elapsed() > Duration::from_secs(120) {
                let said = self.capturing.as_ref().map(Background::said).unwrap_or_default();
                bail!("the log is stored to {} instead of {}: {said}", print_lsn(reached), print_lsn(end));
            }
            sleep(Duration::from_millis(50));
        }
    }

    /// Waits until a moment that has passed can be restored to, though nothing was committed since; returns how long it took.
    pub(crate) fn settle_time(&self, moment: i64) -> Result<Duration> {
        let wanted = print_time(moment).replace(' ', "T").replace("+00", "Z");
        let since = Instant::now();
        loop {
            let reached = self
                .windows()?
                .iter()
                .filter_map(|window| window.get("to")?.as_str())
                .max()
                .map(str::to_owned);
            if reached.as_ref().is_some_and(|reached| *reached >= wanted) {
                return Ok(since.elapsed());
            }
            ensure!(
                since.elapsed() < Duration::from_secs(5),
                "nothing is known of {wanted} 5 s later, only until {reached:?}"
            );
            sleep(Duration::from_millis(50));
        }
    }

    /// The newest position that a recovery window reaches.
    fn stored_until(&self) -> Result<u64> {
        let windows = self.windows()?;
        let ends = windows.iter().filter_map(|window| parse_lsn(window.get("to_lsn")?.as_str()?));
        Ok(ends.max().unwrap_or(0))
    }

    fn windows(&self) -> Result<Vec<Value>> {
        let list = self.everpoint.json(&["list", CLUSTER])?;
        Ok(list.pointer("/clusters/0/windows").and_then(Value::as_array).cloned().unwrap_or_default())
    }

    /// Labels of the backups that are listed as good.
    pub(crate) fn backups(&self) -> Result<Vec<String>> {
        let list = self.everpoint.json(&["list", CLUSTER])?;
        let backups =
            list.pointer("/clusters/0/backups").and_then(Value::as_array).cloned().unwrap_or_default();
        let good = backups.iter().filter(|backup| backup.get("status").and_then(Value::as_str) == Some("ok"));
        good.map(|backup| Ok(text(backup, "/label")?.to_owned())).collect()
    }

    /// Takes a backup; waits while another run's lease still lasts.
    pub(crate) fn backup(&self, full: bool) -> Result<()> {
        let kind = if full { "--full" } else { "--incremental" };
        let arguments = ["backup", CLUSTER, kind];
        let since = Instant::now();
        loop {
            let ran = self.everpoint.try_run(&arguments)?;
            match ran.status.code() {
                Some(0) => break,
                Some(6) if since.elapsed() < Duration::from_secs(180) => sleep(Duration::from_millis(500)),
                _ => bail!("{}", ran.told(&arguments)),
            }
        }
        if since.elapsed() > Duration::from_secs(5) {
            say(&format!("   a backup took {:.1} s, with waiting", since.elapsed().as_secs_f64()));
        }
        Ok(())
    }

    /// The ends of all transactions in the source's own log.
    pub(crate) fn history(&self) -> Result<History> {
        let until = self.source.flushed()?;
        let log = match self.capture {
            Capture::None => self.copied(until)?,
            Capture::Stream | Capture::Archive => self.source.data_dir().join("pg_wal"),
        };
        History::read(self.source.install(), &log, 1, self.log_start, until)
    }

    /// Where the judge's copy of the log is, if the server does not keep it.
    fn aside(&self) -> PathBuf {
        self.source.home().path().join("log-aside")
    }

    /// Waits until the log before `until` was copied.
    fn copied(&self, until: u64) -> Result<PathBuf> {
        let last = self.source.psql(&format!("SELECT pg_walfile_name('{}')", print_lsn(until)))?;
        self.source.psql("CREATE TABLE IF NOT EXISTS switched(); SELECT pg_switch_wal()")?;
        let deadline = Instant::now() + Duration::from_secs(60);
        while fs::metadata(self.aside().join(&last)).map_or(0, |copy| copy.len()) < SEGMENT {
            ensure!(Instant::now() < deadline, "{last} was not copied for 60 s");
            sleep(Duration::from_millis(50));
        }
        Ok(self.aside())
    }

    /// A new place for a copy.
    pub(crate) fn place(&mut self) -> PathBuf {
        self.copies += 1;
        self.everpoint.home().path().join(format!("copy-{}", self.copies))
    }

    /// Restores to a target and starts the copy; returns it with the program's report.
    pub(crate) fn restore(&self, place: &Path, target: &str, more: &[&str]) -> Result<(RunningCopy, Value)> {
        let place_text = place.to_str().context("a path is not UTF-8")?;
        let mut arguments = vec!["restore", CLUSTER, place_text, "--to", target, "--start"];
        arguments.extend(more);
        let report = self.everpoint.json(&arguments)?;
        Ok((RunningCopy::on(place)?, report))
    }

    /// Stops a copy, checks its pages, removes it.
    pub(crate) fn remove(&self, copy: RunningCopy, place: &Path, check: bool) -> Result<()> {
        if check {
            copy.stop_and_check(self.install())?;
        } else {
            drop(copy);
        }
        // A process that fetched ahead for the server may still be on its way out.
        let deadline = Instant::now() + Duration::from_secs(10);
        while let Err(why) = fs::remove_dir_all(place) {
            if Instant::now() > deadline {
                return Err(why).with_context(|| format!("cannot remove {}", place.display()));
            }
            sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Programs of the source's version.
    pub(crate) fn install(&self) -> &PgInstall {
        self.source.install()
    }

    /// Ends a trial: after a failure, its files are kept and named.
    pub(crate) fn close(mut self, done: Result<()>) -> Result<()> {
        done.map_err(|why| {
            let (source, everpoint) = (self.source.keep(), self.everpoint.keep());
            why.context(format!("files are kept in {} and {}", source.display(), everpoint.display()))
        })
    }
}

/// Kills the processes that run `program` with this argument; returns how many.
pub(crate) fn kill_runs_of(program: &Path, argument: &str) -> Result<usize> {
    let program = program.to_str().context("a path is not UTF-8")?;
    let mut killed = 0;
    for entry in fs::read_dir("/proc").context("cannot list processes")? {
        let Ok(entry) = entry else { continue };
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Ok(line) = fs::read_to_string(entry.path().join("cmdline")) else {
            continue;
        };
        let words: Vec<&str> = line.split('\0').collect();
        if words.first() == Some(&program) && words.contains(&argument) {
            let Some(pid) = rustix::process::Pid::from_raw(id) else {
                continue;
            };
            killed += usize::from(rustix::process::kill_process(pid, rustix::process::Signal::KILL).is_ok());
        }
    }
    Ok(killed)
}
