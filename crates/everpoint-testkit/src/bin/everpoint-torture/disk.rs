//! A small disk of its own, which only this process and its children see.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use everpoint_testkit::Account;

/// Says that this process is inside already.
const INSIDE: &str = "EVERPOINT_TORTURE_MOUNTS";

/// Makes sure that this process may mount, and that what it mounts goes with it: begins it anew in a mount namespace of its
/// own. As an ordinary user, also in a user namespace, where it stays the same user. `false` if this machine allows neither.
///
/// # Errors
/// If the program can't be begun anew.
pub(crate) fn enter() -> Result<bool> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(true);
    }
    let arguments: &[&str] = if rustix::process::geteuid().is_root() {
        &["--mount", "--propagation", "private"]
    } else {
        &["--user", "--map-current-user", "--keep-caps", "--mount"]
    };
    let allowed = Command::new("unshare").args(arguments).arg("true").output();
    if !allowed.is_ok_and(|done| done.status.success()) {
        return Ok(false);
    }
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut again = Command::new("unshare");
    again.args(arguments).arg(program).args(std::env::args_os().skip(1)).env(INSIDE, "1");
    Err(again.exec()).context("cannot begin anew")
}

/// A mounted filesystem.
#[derive(Debug)]
pub(crate) struct Disk {
    place: PathBuf,
}

impl Disk {
    /// Makes one of `megabytes` at `home/disk`, owned by the servers' account: ext4 in a file, or, where only root can mount
    /// that, in memory.
    ///
    /// # Errors
    /// If it can't be made or mounted.
    pub(crate) fn new(home: &Path, megabytes: u64) -> Result<Self> {
        let place = home.join("disk");
        fs::create_dir(&place).with_context(|| format!("cannot make {}", place.display()))?;
        if rustix::process::geteuid().is_root() {
            let image = home.join("disk.img");
            let file = File::create(&image).with_context(|| format!("cannot make {}", image.display()))?;
            file.set_len(megabytes << 20).context("cannot size the disk")?;
            tool(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image))?;
            tool(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&place))?;
            Account::of_servers()?.own(&place)?;
        } else {
            let size = format!("size={megabytes}m");
            tool(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "everpoint"]).arg(&place))?;
        }
        Ok(Self { place })
    }

    /// Where it is.
    pub(crate) fn place(&self) -> &Path {
        &self.place
    }

    /// Bytes that an ordinary user can still write.
    ///
    /// # Errors
    /// If it can't be asked.
    pub(crate) fn free(&self) -> Result<u64> {
        let space = rustix::fs::statvfs(&self.place).context("cannot ask for free space")?;
        Ok(space.f_bavail * space.f_frsize)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: what still looks at it keeps it until its end, and the namespace until the end of this process.
        let _ = Command::new("umount").arg("--lazy").arg(&self.place).env("PATH", PATH).output();
    }
}

/// Programs of administrators are not on everybody's path.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

fn tool(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let done = command.env("PATH", PATH).output().with_context(|| format!("cannot run {name}"))?;
    if !done.status.success() {
        bail!("{name}: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    ensure!(done.stderr.is_empty(), "{name}: {}", String::from_utf8_lossy(&done.stderr).trim());
    Ok(())
}
