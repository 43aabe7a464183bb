//! Who runs the servers: PostgreSQL refuses to run as root.

use std::fs;
use std::os::unix::fs::{MetadataExt, lchown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The account under which servers (and programs that own their files) run: the current one, or, for root, an
/// unprivileged one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    name: String,
    uid: u32,
    gid: u32,
    switch: bool,
}

impl Account {
    /// The account for servers. As root: the one named by `$EVERPOINT_TEST_USER`, else `postgres`, else `nobody`.
    ///
    /// # Errors
    /// If root finds none of them.
    pub fn of_servers() -> Result<Self> {
        let uid = rustix::process::geteuid().as_raw();
        let known = fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
        if uid != 0 {
            let gid = rustix::process::getegid().as_raw();
            let name = known.lines().filter_map(parse).find(|entry| entry.1 == uid);
            let Some((name, ..)) = name else {
                bail!("user {uid} has no line in /etc/passwd: PostgreSQL's initdb needs one");
            };
            return Ok(Self { name: name.to_owned(), uid, gid, switch: false });
        }
        let wished = std::env::var("EVERPOINT_TEST_USER").ok();
        let candidates: Vec<&str> = match &wished {
            Some(name) => vec![name.as_str()],
            None => vec!["postgres", "nobody"],
        };
        for candidate in &candidates {
            let found = known.lines().filter_map(parse).find(|(name, uid, _)| name == candidate && *uid != 0);
            if let Some((name, uid, gid)) = found {
                return Ok(Self { name: name.to_owned(), uid, gid, switch: true });
            }
        }
        bail!("root cannot run PostgreSQL, and there is no account {}", candidates.join(" or "))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that runs `program` under this account, in `/` (which every account may enter).
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.current_dir("/");
        crate::clean(&mut command);
        if self.switch {
            command.gid(self.gid).uid(self.uid).env("USER", &self.name);
        }
        command
    }

    /// Gives a file, or a directory with everything in it, to this account.
    ///
    /// # Errors
    /// If ownership can't be changed.
    pub fn own(&self, path: &Path) -> Result<()> {
        if !self.switch {
            return Ok(());
        }
        let kind =
            fs::symlink_metadata(path).with_context(|| format!("cannot look at {}", path.display()))?;
        lchown(path, Some(self.uid), Some(self.gid))
            .with_context(|| format!("cannot give {} to {}", path.display(), self.name))?;
        if kind.is_dir() {
            for entry in fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))? {
                self.own(&entry?.path())?;
            }
        }
        Ok(())
    }

    /// Whether this account can reach `path`: it may enter every directory above it and read it.
    #[must_use]
    pub fn reaches(&self, path: &Path) -> bool {
        if !self.switch {
            return true;
        }
        path.ancestors().all(|part| {
            let Ok(meta) = fs::metadata(part) else {
                return false;
            };
            let shift = if meta.uid() == self.uid {
                6
            } else if meta.gid() == self.gid {
                3
            } else {
                0
            };
            let needed = if meta.is_dir() { 0o1 } else { 0o4 };
            (meta.mode() >> shift) & needed == needed
        })
    }
}

/// Name, user id and group id of a line of /etc/passwd.
fn parse(line: &str) -> Option<(&str, u32, u32)> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    Some((name, uid, gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_passwd() {
        assert_eq!(
            parse("postgres:x:101:104:admin,,,:/var/lib/postgresql:/bin/bash"),
            Some(("postgres", 101, 104))
        );
        assert_eq!(parse("# remark"), None);
    }

    #[test]
    fn servers_never_run_as_root() {
        let account = Account::of_servers().unwrap();
        let shown = account.command("/usr/bin/id").arg("-u").output().unwrap();
        assert_ne!(String::from_utf8(shown.stdout).unwrap().trim(), "0");
    }
}
