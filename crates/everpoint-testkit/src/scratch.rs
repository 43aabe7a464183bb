//! Directories for a test's files.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::Account;

/// A directory owned by the servers' account, removed when dropped (kept with `EVERPOINT_KEEP=1`).
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    dir: Option<TempDir>,
}

impl Scratch {
    /// Makes one under `$EVERPOINT_SCRATCH`, by default the system's directory for temporary files. `name` begins its
    /// name.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn new(name: &str) -> Result<Self> {
        let parent = std::env::var_os("EVERPOINT_SCRATCH").map_or_else(std::env::temp_dir, PathBuf::from);
        Self::below(&parent, name)
    }

    /// Makes one for sockets: their path may have at most 107 bytes, so it lies in `/tmp`.
    pub(crate) fn for_sockets() -> Result<Self> {
        Self::below(Path::new("/tmp"), "eps")
    }

    fn below(parent: &Path, name: &str) -> Result<Self> {
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        let mut dir = tempfile::Builder::new()
            .prefix(&format!("{name}-"))
            .permissions(Permissions::from_mode(0o755))
            .tempdir_in(parent)
            .with_context(|| format!("cannot make a directory in {}", parent.display()))?;
        // The process's umask may have taken rights away.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755))?;
        Account::of_servers()?.own(dir.path())?;
        dir.disable_cleanup(std::env::var("EVERPOINT_KEEP").is_ok_and(|v| v == "1"));
        Ok(Self { path: dir.path().to_owned(), dir: Some(dir) })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a directory in it that the servers' account owns, mode 0700.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn subdir(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        fs::set_permissions(&path, Permissions::from_mode(0o700))?;
        Account::of_servers()?.own(&path)?;
        Ok(path)
    }

    /// Keeps it after the end of the test: something failed, and someone will want to look. Returns its path.
    pub fn keep(&mut self) -> PathBuf {
        if let Some(mut dir) = self.dir.take() {
            dir.disable_cleanup(true);
        }
        self.path.clone()
    }
}
