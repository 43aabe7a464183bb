//! A server as an operator runs it: by `pg_ctl`, or started by a restore. It is known by its data directory alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use everpoint_testkit::{Account, Address, PgInstall, Port, Session, parse_lsn};
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, waitpid};

/// How long a server may take to start, stop, or leave recovery.
const PATIENCE: Duration = Duration::from_secs(60);

/// A data directory and what is needed to run it. Dropped, its server is killed.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) install: PgInstall,
    pub(super) data: PathBuf,
    pub(super) port: Port,
}

impl Server {
    pub(super) fn session(&self) -> Result<Session> {
        Ok(Session::connect(&address(&self.data)?, "postgres")?)
    }

    /// Rows as `psql -At` prints them.
    pub(super) fn psql(&self, sql: &str) -> Result<String> {
        let answer = self.session()?.query(sql).map_err(|why| anyhow!("{sql}: {why}"))?;
        Ok(answer.to_string())
    }

    pub(super) fn number(&self, sql: &str) -> Result<u64> {
        self.psql(sql)?.parse().with_context(|| format!("{sql} is no number"))
    }

    /// Starts it by hand, with these settings on the command line.
    pub(super) fn start(&self, settings: &[(&str, String)]) -> Result<()> {
        let log = self.log();
        let options: Vec<String> =
            settings.iter().map(|(name, value)| format!("-c {name}={value}")).collect();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let before = fs::metadata(&log).map_or(0, |meta| meta.len());
            let mut command = self.install.command("pg_ctl")?;
            command.arg("-D").arg(&self.data).arg("-l").arg(&log).args(["-w", "-t", "60", "start"]);
            if !options.is_empty() {
                command.arg("-o").arg(options.join(" "));
            }
            let Err(why) = quietly(&mut command) else { return Ok(()) };
            let said = fs::read_to_string(&log).unwrap_or_default();
            let said = said.get(usize::try_from(before)?..).unwrap_or_default();
            // The shared memory of a server that was killed lives until its last process has gone.
            if !said.contains("is still in use") || Instant::now() > deadline {
                let lines: Vec<&str> = said.lines().rev().take(25).collect();
                let lines: Vec<&str> = lines.into_iter().rev().collect();
                return Err(why.context(format!(
                    "{} does not start:\n{}",
                    self.data.display(),
                    lines.join("\n")
                )));
            }
            sleep(Duration::from_millis(100));
        }
    }

    /// Waits until it accepts writes.
    pub(super) fn wait_writable(&self) -> Result<()> {
        self.wait("it accepts writes", || Ok(self.psql("SELECT pg_is_in_recovery()")? == "f"))
    }

    /// Waits until something is so; what fails meanwhile is tried again.
    pub(super) fn wait(&self, what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match is_so() {
                Ok(true) => return Ok(()),
                Err(why) if Instant::now() > deadline => {
                    return Err(why.context(format!("waited in vain until {what} ({})", self.data.display())));
                }
                Ok(false) if Instant::now() > deadline => {
                    bail!("waited in vain until {what} ({})", self.data.display());
                }
                _ => sleep(Duration::from_millis(30)),
            }
        }
    }

    /// Stops it cleanly.
    pub(super) fn stop(&self) -> Result<()> {
        let server = self.postmaster();
        let mut command = self.install.command("pg_ctl")?;
        quietly(command.arg("-D").arg(&self.data).args(["-m", "fast", "-w", "-t", "60", "stop"]))?;
        self.wait("it has ended", || {
            server.into_iter().for_each(reap);
            Ok(!self.runs())
        })
    }

    /// Kills all of its processes: what a crash of the machine does, but for the page cache.
    pub(super) fn kill9(&self) -> Result<()> {
        ensure!(kill_all(&self.data), "the processes on {} do not end", self.data.display());
        Ok(())
    }

    pub(super) fn runs(&self) -> bool {
        self.postmaster().is_some()
    }

    /// The server itself, not what else works in its directory.
    fn postmaster(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.data.join("postmaster.pid")).ok()?;
        let pid = text.lines().next()?.trim().parse().ok().and_then(Pid::from_raw)?;
        processes_in(&self.data).into_iter().find(|found| *found == pid)
    }

    /// The end of its flushed log.
    pub(super) fn flushed(&self) -> Result<u64> {
        let lsn = self.psql("SELECT pg_current_wal_flush_lsn()")?;
        parse_lsn(&lsn).with_context(|| format!("{lsn} is no position"))
    }

    /// Its timeline now, which the control file tells only after the first checkpoint.
    pub(super) fn timeline(&self) -> Result<u32> {
        let name = self.psql("SELECT pg_walfile_name(pg_current_wal_lsn())")?;
        let digits = name.get(..8).with_context(|| format!("{name} is no file of the log"))?;
        Ok(u32::from_str_radix(digits, 16)?)
    }

    /// Where its timeline began: the parent and the position, as PostgreSQL itself wrote it down.
    pub(super) fn fork(&self, timeline: u32) -> Result<(u32, u64)> {
        let path = self.data.join(format!("pg_wal/{timeline:08X}.history"));
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let line = text.lines().rfind(|line| line.starts_with(|c: char| c.is_ascii_digit()));
        let mut words = line.unwrap_or_default().split_whitespace();
        let parent = words.next().and_then(|word| word.parse().ok());
        let position = words.next().and_then(parse_lsn);
        parent.zip(position).with_context(|| format!("{} is not understood: {text}", path.display()))
    }

    /// Its tablespaces: name, oid, location.
    pub(super) fn tablespaces(&self) -> Result<Vec<(String, String, PathBuf)>> {
        let sql = "SELECT spcname, oid, pg_tablespace_location(oid) FROM pg_tablespace WHERE oid > 16383 ORDER BY oid";
        let answer = self.session()?.query(sql)?;
        let rows = answer.rows.into_iter().map(|row| {
            let mut row = row.into_iter().map(Option::unwrap_or_default);
            let mut next = || row.next().unwrap_or_default();
            (next(), next(), PathBuf::from(next()))
        });
        Ok(rows.collect())
    }

    /// What it said lately: to the operator's log, or to that of a restore.
    pub(super) fn said(&self) -> String {
        let logs = [self.log(), self.data.join("everpoint-server.log")];
        let newest = logs.iter().max_by_key(|log| fs::metadata(log).and_then(|meta| meta.modified()).ok());
        let text = newest.and_then(|log| fs::read_to_string(log).ok()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(15).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    fn log(&self) -> PathBuf {
        self.data.with_extension("log")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        kill_all(&self.data);
    }
}

/// Where the server on a directory listens.
fn address(data: &Path) -> Result<Address> {
    let path = data.join("postmaster.pid");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let [_, _, _, port, socket, listen, ..] = lines.as_slice() else {
        bail!("{} is not whole", path.display());
    };
    let port = port.parse().context("no port")?;
    Ok(if listen.is_empty() {
        Address::Socket(PathBuf::from(*socket), port)
    } else {
        Address::Loopback(port)
    })
}

/// Processes that work in a directory: a server, what it runs, and nothing of anybody else's.
fn processes_in(data: &Path) -> Vec<Pid> {
    let (Ok(entries), Ok(data)) = (fs::read_dir("/proc"), data.canonicalize()) else {
        return Vec::new();
    };
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let inside = |id: &i32| fs::read_link(format!("/proc/{id}/cwd")).is_ok_and(|path| path == data);
    ids.filter(inside).filter_map(Pid::from_raw).collect()
}

/// Becomes the parent of all servers that `pg_ctl` and restores start, so that those that end are buried, as on any machine
/// with an init: to PostgreSQL a dead process that nobody has waited for is one that runs.
pub(super) fn adopt_orphans() -> Result<()> {
    set_child_subreaper(Some(getpid())).context("cannot become the parent of servers")
}

fn reap(pid: Pid) {
    // It may be another's child, or still run.
    let _ = waitpid(Some(pid), WaitOptions::NOHANG);
}

/// Whether a process waits to be buried by us.
fn is_ours(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    // The second field is the name in parentheses, which may hold anything; state and parent come after it.
    let mut after = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default().split_whitespace();
    after.next() == Some("Z") && after.next() == Some(&std::process::id().to_string())
}

/// Kills them until none is left.
fn kill_all(data: &Path) -> bool {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut killed = Vec::new();
    loop {
        let found = processes_in(data);
        for pid in &found {
            // It may have gone.
            let _ = kill_process(*pid, Signal::KILL);
        }
        killed.extend_from_slice(&found);
        if Instant::now() > deadline {
            return false;
        }
        sleep(Duration::from_millis(10));
        // The last child's death makes it ours only when its parent is buried.
        killed.iter().for_each(|pid| reap(*pid));
        if found.is_empty() {
            killed.retain(|pid| is_ours(*pid));
            if killed.is_empty() {
                return true;
            }
        }
    }
}

/// Runs a program of PostgreSQL's to its end. A server that it starts must not hold our pipe open.
pub(super) fn quietly(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let said = tempfile::tempfile().context("cannot make a file")?;
    let copy = said.try_clone().context("cannot use a file twice")?;
    let done = command.stdout(said).stderr(copy.try_clone()?).status();
    let done = done.with_context(|| format!("cannot run {program}"))?;
    if done.success() {
        return Ok(());
    }
    let mut copy = copy;
    let mut text = String::new();
    std::io::Seek::rewind(&mut copy)?;
    std::io::Read::read_to_string(&mut copy, &mut text)?;
    bail!("{program} failed ({done}): {}", text.trim())
}

/// `cp -a`, as the servers' account.
pub(super) fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    quietly(Account::of_servers()?.command("/bin/cp").arg("-a").arg(from).arg(to))
}
