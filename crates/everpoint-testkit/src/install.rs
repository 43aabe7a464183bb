//! Programs of a PostgreSQL version.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::Account;

/// Major versions that Everpoint supports.
pub const SUPPORTED: [u32; 6] = [13, 14, 15, 16, 17, 18];

/// The newest version comes with every client tool; they serve the versions that lack them.
const COMPLETE: u32 = 18;

/// Where the project keeps what it fetched: `$EVERPOINT_CACHE`, else `.cache` of the checkout.
#[must_use]
pub fn cache_dir() -> PathBuf {
    match std::env::var_os("EVERPOINT_CACHE") {
        Some(path) => PathBuf::from(path),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache"),
    }
}

/// The programs of one version, placed where the servers' account can run them.
#[derive(Debug, Clone)]
pub struct PgInstall {
    major: u32,
    root: PathBuf,
    complete: PathBuf,
}

impl PgInstall {
    /// Finds a version in the cache.
    ///
    /// # Errors
    /// If it is not there; the message names the script that fetches it.
    pub fn find(major: u32) -> Result<Self> {
        Ok(Self { major, root: locate(major)?, complete: locate(COMPLETE)? })
    }

    /// Finds a version; where it is missing and `EVERPOINT_SKIP_MISSING=1`, says so on standard error, adds a line to
    /// the file `$EVERPOINT_SKIP_LOG` (if set) and returns `None`: the test then returns early.
    ///
    /// # Errors
    /// If it is missing and skipping was not asked for.
    pub fn find_or_skip(major: u32) -> Result<Option<Self>> {
        match Self::find(major) {
            Ok(found) => Ok(Some(found)),
            Err(why) if std::env::var("EVERPOINT_SKIP_MISSING").is_ok_and(|v| v == "1") => {
                note_skip(&format!("{why:#}"))?;
                Ok(None)
            }
            Err(why) => Err(why),
        }
    }

    /// The major version.
    #[must_use]
    pub fn major(&self) -> u32 {
        self.major
    }

    /// Directory of its programs.
    #[must_use]
    pub fn bin(&self) -> PathBuf {
        self.root.join("bin")
    }

    /// Path of a program of this very version.
    ///
    /// # Errors
    /// If this version comes without it.
    pub fn tool(&self, name: &str) -> Result<PathBuf> {
        let path = self.root.join("bin").join(name);
        ensure!(path.exists(), "PostgreSQL {} comes without {name} here ({})", self.major, path.display());
        Ok(path)
    }

    /// Path of a client program: of this version, or of a newer one where this version comes without it. Only for
    /// programs that talk to older servers (`psql`, `pg_basebackup`, `pg_dump`, `pgbench`), not for `pg_waldump`.
    ///
    /// # Errors
    /// If neither has it.
    pub fn client_tool(&self, name: &str) -> Result<PathBuf> {
        let newer = self.complete.join("bin").join(name);
        self.tool(name).or_else(|_| {
            ensure!(newer.exists(), "there is no {name} in {}", newer.display());
            Ok(newer)
        })
    }

    /// A command that runs a program of this version as the servers' account.
    ///
    /// # Errors
    /// If this version comes without it.
    pub fn command(&self, name: &str) -> Result<Command> {
        Ok(Account::of_servers()?.command(self.tool(name)?))
    }
}

fn locate(major: u32) -> Result<PathBuf> {
    let path = cache_dir().join("servers").join(format!("pg{major}"));
    if !path.join("bin/postgres").exists() {
        bail!(
            "PostgreSQL {major} is not in {}; run scripts/install-test-servers {major}",
            cache_dir().join("servers").display()
        );
    }
    let path = path.canonicalize().with_context(|| format!("cannot resolve {}", path.display()))?;
    if Account::of_servers()?.reaches(&path.join("bin")) { Ok(path) } else { reachable_copy(major, &path) }
}

/// Where copies lie that the servers' account reaches.
const COPIES: &str = "/var/tmp/everpoint-test-servers";

/// Root may keep its checkout where no one else may look. The servers' account then gets a copy.
fn reachable_copy(major: u32, from: &Path) -> Result<PathBuf> {
    let parent = Path::new(COPIES);
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let lock = File::create(parent.join(".lock")).context("cannot make a lock file")?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).context("cannot lock")?;
    let to = parent.join(format!("pg{major}"));
    let version = |root: &Path| fs::read(root.join(".version")).ok();
    if to.exists() && version(&to).is_some() && version(&to) == version(from) {
        return Ok(to);
    }
    if to.exists() {
        fs::remove_dir_all(&to).with_context(|| format!("cannot remove {}", to.display()))?;
    }
    let done = Command::new("cp").arg("-a").arg(from).arg(&to).status().context("cannot run cp")?;
    ensure!(done.success(), "cannot copy {} to {}", from.display(), to.display());
    Ok(to)
}

/// A program of others that a test needs, from `.cache/tools` (`scripts/install-test-tools`); `None` if it is not there:
/// the test is skipped then, and that is noted.
///
/// # Errors
/// If the skip can't be noted.
pub fn test_tool(path: &str) -> Result<Option<PathBuf>> {
    let found = cache_dir().join("tools").join(path);
    if found.exists() {
        return Ok(Some(found));
    }
    note_skip(&format!("{} is missing; run scripts/install-test-tools", found.display()))?;
    Ok(None)
}

/// As [`test_tool`], for a program of one file that the servers' account runs.
///
/// # Errors
/// If the skip can't be noted, or the program can't be copied to where that account reaches it.
pub fn server_tool(path: &str) -> Result<Option<PathBuf>> {
    let Some(found) = test_tool(path)? else { return Ok(None) };
    let found = found.canonicalize().with_context(|| format!("cannot resolve {}", found.display()))?;
    if Account::of_servers()?.reaches(&found) {
        return Ok(Some(found));
    }
    let name = found.file_name().context("a program has a name")?;
    let parent = Path::new(COPIES).join("tools");
    fs::create_dir_all(&parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let lock = File::create(parent.join(".lock")).context("cannot make a lock file")?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).context("cannot lock")?;
    let to = parent.join(name);
    if fs::metadata(&to).map(|meta| meta.len()).ok() != Some(fs::metadata(&found)?.len()) {
        let done = Command::new("cp").arg("--remove-destination").arg(&found).arg(&to).status();
        ensure!(done.context("cannot run cp")?.success(), "cannot copy {}", found.display());
    }
    Ok(Some(to))
}

fn note_skip(why: &str) -> Result<()> {
    let thread = std::thread::current();
    let line = format!("SKIPPED {}: {why}\n", thread.name().unwrap_or("a test"));
    std::io::stderr().write_all(line.as_bytes())?;
    if let Some(path) = std::env::var_os("EVERPOINT_SKIP_LOG") {
        let mut log =
            File::options().append(true).create(true).open(&path).context("cannot open the log of skips")?;
        log.write_all(line.as_bytes()).context("cannot write the log of skips")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_version_names_the_script() {
        let message = format!("{:#}", PgInstall::find(12).unwrap_err());
        assert!(message.contains("scripts/install-test-servers 12"), "{message}");
    }

    #[test]
    fn every_supported_version_is_there_and_runs() {
        for major in SUPPORTED {
            let install = PgInstall::find(major).unwrap();
            let shown = install.command("postgres").unwrap().arg("--version").output().unwrap();
            let text = String::from_utf8(shown.stdout).unwrap();
            assert!(text.starts_with(&format!("postgres (PostgreSQL) {major}.")), "{text}");
            assert!(install.client_tool("psql").is_ok());
        }
    }
}
