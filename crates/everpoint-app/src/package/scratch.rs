//! The directory in which a package is made.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

use crate::AppError;

const PREFIX: &str = "package-";
/// Locked as long as a process works in the directory.
const LOCK: &str = "lock";

/// See the module. Goes away with the value.
pub(crate) struct Scratch {
    directory: TempDir,
    _lock: File,
}

impl Scratch {
    /// Makes one, and takes away those that killed processes left behind: they would fill the disk day by day.
    pub(crate) fn new(parent: &Path) -> Result<Self, AppError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(|error| AppError::io("make", parent, error))?;
        sweep(parent);
        let directory = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(parent)
            .map_err(|error| AppError::io("make a directory in", parent, error))?;
        // Locked before it has the name by which others look for it.
        let (unnamed, lock) = (directory.path().join("unlocked"), directory.path().join(LOCK));
        let wrap = |error| AppError::io("lock", &lock, error);
        let file = File::create_new(&unnamed).map_err(wrap)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|error| wrap(error.into()))?;
        std::fs::rename(&unnamed, &lock).map_err(wrap)?;
        Ok(Self { directory, _lock: file })
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

fn sweep(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let lock = File::open(entry.path().join(LOCK));
        if let (true, Ok(lock)) = (ours, lock)
            && flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
            && let Err(error) = std::fs::remove_dir_all(entry.path())
        {
            tracing::warn!(%error, "what a killed process left behind could not be removed");
        }
    }
}
