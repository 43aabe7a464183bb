//! The program under test, run as its users run it.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::{Account, PgCluster, Scratch, signal_child};

/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// A copy of the program with a configuration of its own, run under the servers' account.
#[derive(Debug)]
pub struct Everpoint {
    account: Account,
    program: PathBuf,
    config: PathBuf,
    home: Scratch,
    runs: AtomicU32,
}

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Ran {
    /// Exit status.
    pub status: ExitStatus,
    /// What it printed on standard output.
    pub out: String,
    /// What it printed on standard error.
    pub err: String,
    /// How long it took.
    pub took: Duration,
}

/// A command that runs in the background. When dropped, it is killed.
#[derive(Debug)]
pub struct Background {
    child: Child,
    what: String,
    out: PathBuf,
    err: PathBuf,
    since: Instant,
}

impl Everpoint {
    /// Writes a configuration that protects these clusters (name and server) in an encrypted local repository.
    ///
    /// # Errors
    /// If the program is missing or files can't be written.
    pub fn new(binary: &Path, clusters: &[(&str, &PgCluster)]) -> Result<Self> {
        let home = Scratch::new("everpoint")?;
        // The servers run it too, and may not be able to look where it was built.
        let program = home.path().join("everpoint");
        fs::copy(binary, &program).with_context(|| format!("cannot copy {}", binary.display()))?;
        let config = home.path().join("everpoint.toml");
        let mut text = format!(
            "[repository.local]\nurl = \"{0}/repository\"\nkey_file = \"{0}/key\"\n",
            home.path().display()
        );
        for (name, cluster) in clusters {
            text.push_str(&format!(
                "\n[cluster.{name}]\npostgres = \"{}?sslmode=disable\"\ndata_dir = \"{}\"\npg_bin = \"{}\"\n",
                cluster.url(),
                cluster.data_dir().display(),
                cluster.install().bin().display()
            ));
        }
        fs::write(&config, text).context("cannot write the configuration")?;
        let account = Account::of_servers()?;
        account.own(home.path())?;
        Ok(Self { account, program, config, home, runs: AtomicU32::new(0) })
    }

    /// Its directory: configuration, key, repository, and what its commands printed.
    #[must_use]
    pub fn home(&self) -> &Scratch {
        &self.home
    }

    /// Adds tables to its configuration.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn configure(&self, more: &str) -> Result<()> {
        let mut file =
            File::options().append(true).open(&self.config).context("cannot open the configuration")?;
        file.write_all(more.as_bytes()).context("cannot write the configuration")
    }

    /// Keeps its files after the end of the test; returns where they are.
    pub fn keep(&mut self) -> PathBuf {
        self.home.keep()
    }

    /// The `archive_command` for a cluster.
    #[must_use]
    pub fn archive_command(&self, cluster: &str) -> String {
        format!("{} --config {} archive-push {cluster} %p", self.program.display(), self.config.display())
    }

    /// Path of the program that is run: only this test runs it.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Runs a command to its end, however it ends.
    ///
    /// # Errors
    /// If it can't be run, or takes more than ten minutes (it is killed then).
    pub fn try_run(&self, arguments: &[&str]) -> Result<Ran> {
        self.spawn(arguments)?.wait(PATIENCE)
    }

    /// Runs a command that must succeed; returns what it printed.
    ///
    /// # Errors
    /// If it fails; the message holds what it said.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let ran = self.try_run(arguments)?;
        ensure!(ran.status.success(), "{}", ran.told(arguments));
        Ok(ran.out)
    }

    /// Runs a command that must succeed with `--json`; returns its object.
    ///
    /// # Errors
    /// If it fails, or does not print one JSON object.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let arguments = [&["--json"], arguments].concat();
        let out = self.run(&arguments)?;
        serde_json::from_str(&out).with_context(|| format!("{arguments:?} printed {out:?}"))
    }

    /// Runs a command with `--json` that ends with a report, whether that is good or bad.
    ///
    /// # Errors
    /// If it does not print one JSON object.
    pub fn report(&self, arguments: &[&str]) -> Result<Value> {
        let arguments = [&["--json"], arguments].concat();
        let ran = self.try_run(&arguments)?;
        serde_json::from_str(&ran.out).with_context(|| ran.told(&arguments))
    }

    /// Starts a shell script as an operator would type it: in the directory of this program, which is `everpoint` there
    /// and finds its configuration, with the programs of `servers` at hand. It ends with the first command that fails.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn shell(&self, script: &str, servers: &Path) -> Result<Background> {
        let mut command = self.account.command("/bin/sh");
        let path = format!("{}:{}:/usr/bin:/bin", self.home.path().display(), servers.display());
        command.current_dir(self.home.path()).args(["-e", "-c", script]);
        command.env("PATH", path).env("EVERPOINT_CONFIG", &self.config).env("PGUSER", "postgres");
        self.background(command, "script")
    }

    /// Starts a command in the background.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn spawn(&self, arguments: &[&str]) -> Result<Background> {
        let mut command: Command = self.account.command(&self.program);
        command.arg("--config").arg(&self.config).arg("--no-progress").args(arguments);
        let word = arguments.iter().find(|word| !word.starts_with('-')).unwrap_or(&"run");
        let mut started = self.background(command, word)?;
        started.what = format!("everpoint {}", arguments.join(" "));
        Ok(started)
    }

    fn background(&self, mut command: Command, word: &str) -> Result<Background> {
        let run = self.runs.fetch_add(1, Ordering::SeqCst);
        let out = self.home.path().join(format!("{run:05}-{word}.out"));
        let err = self.home.path().join(format!("{run:05}-{word}.err"));
        let file =
            |path: &Path| File::create(path).with_context(|| format!("cannot make {}", path.display()));
        command.stdin(Stdio::null()).stdout(file(&out)?).stderr(file(&err)?);
        let child = spawn(&mut command).with_context(|| format!("cannot run {}", self.program.display()))?;
        Ok(Background { child, what: word.to_owned(), out, err, since: Instant::now() })
    }
}

impl Ran {
    /// How it ended, in words.
    #[must_use]
    pub fn told(&self, arguments: &[&str]) -> String {
        format!("everpoint {}: {}\n{}{}", arguments.join(" "), self.status, self.out, self.err)
    }
}

impl Background {
    /// Its process id. It is its own until it was waited for.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// If it can't be looked after.
    pub fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait().context("cannot look after a command")?.is_none())
    }

    /// Kills it with SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// If it can't be waited for.
    pub fn kill9(&mut self) -> Result<()> {
        // It may have ended by itself.
        let _ = self.child.kill();
        self.child.wait().context("cannot wait for a command")?;
        Ok(())
    }

    /// Sends it a signal: SIGSTOP and SIGCONT, for what must happen while it is in the middle of something.
    ///
    /// # Errors
    /// If it can't be signalled.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        signal_child(&self.child, signal)
    }

    /// Asks it to stop (SIGTERM), and waits until it has.
    ///
    /// # Errors
    /// If it can't be signalled, or does not stop within a minute.
    pub fn stop(mut self) -> Result<Ran> {
        if self.runs()? {
            signal_child(&self.child, Signal::TERM)?;
        }
        self.wait(Duration::from_secs(60))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it takes longer than `patience`: it is killed then.
    pub fn wait(mut self, patience: Duration) -> Result<Ran> {
        // It may have run for long before it was asked to stop.
        let asked = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().context("cannot look after a command")? {
                let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
                return Ok(Ran {
                    status,
                    out: read(&self.out),
                    err: read(&self.err),
                    took: self.since.elapsed(),
                });
            }
            if asked.elapsed() > patience {
                let said = fs::read_to_string(&self.err).unwrap_or_default();
                bail!("{} did not end within {} s: {said}", self.what, patience.as_secs());
            }
            sleep(Duration::from_millis(5));
        }
    }

    /// All that it printed on standard error so far.
    #[must_use]
    pub fn all_said(&self) -> String {
        fs::read_to_string(&self.err).unwrap_or_default()
    }

    /// The last lines that it printed on standard error so far.
    #[must_use]
    pub fn said(&self) -> String {
        let said = self.all_said();
        let lines: Vec<&str> = said.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a program that was written just now: a process that another thread forked meanwhile holds it open for writing
/// until it has become its own program.
fn spawn(command: &mut Command) -> std::io::Result<Child> {
    let since = Instant::now();
    loop {
        match command.spawn() {
            Err(error)
                if error.kind() == ErrorKind::ExecutableFileBusy
                    && since.elapsed() < Duration::from_secs(5) =>
            {
                sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

/// A field of a JSON object that must be there, by a path like `/clusters/0/name`.
///
/// # Errors
/// If it is missing.
pub fn field<'a>(value: &'a Value, path: &str) -> Result<&'a Value> {
    value.pointer(path).ok_or_else(|| anyhow!("no {path} in {value}"))
}

/// A text of a JSON object that must be there.
///
/// # Errors
/// If it is missing, or no text.
pub fn text<'a>(value: &'a Value, path: &str) -> Result<&'a str> {
    field(value, path)?.as_str().ok_or_else(|| anyhow!("{path} is no text in {value}"))
}

/// Writes a line to standard error at once: programs that run long say what they do.
pub fn say(line: &str) {
    // Nobody is left to tell if this fails.
    let _ = writeln!(std::io::stderr(), "{line}");
}
