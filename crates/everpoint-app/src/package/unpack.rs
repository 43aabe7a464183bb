//! Unpacking a package into a directory.

use std::fs::{File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use everpoint_core::FailureClass;
use everpoint_engine::beside;
use everpoint_format::package::PackageManifest;

use super::{Opening, scratch};
use crate::AppError;

/// What begins so is not yet whole.
const HIDDEN: &str = ".unpacking-";

impl Opening<'_> {
    /// Puts its members into a directory, which must be empty or not exist. What an unpack that was killed left there goes.
    ///
    /// # Errors
    /// `Damaged` if anything differs from its sum: nothing of it stays then. `Locked` if another process unpacks into it.
    pub fn unpack(&self, directory: &Path) -> Result<PackageManifest, AppError> {
        let known = directory.exists();
        make(directory)?;
        let done = hold(directory).and_then(|_held| self.unpack_into(directory));
        if done.is_err() && !known {
            // Only if nothing is in it.
            let _ = std::fs::remove_dir(directory);
        }
        done
    }

    /// Nothing is seen in the directory before all of it is compared.
    fn unpack_into(&self, directory: &Path) -> Result<PackageManifest, AppError> {
        clear(directory)?;
        let hidden = tempfile::Builder::new()
            .prefix(HIDDEN)
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(directory)
            .map_err(|error| AppError::io("unpack into", directory, error))?;
        let manifest = self.each(&mut |_, name, contents| {
            let path = self.inside(hidden.path(), name)?;
            path.parent().map_or(Ok(()), make)?;
            let io = |error| AppError::io("write", &path, error);
            let mut file = scratch::create(&path).map_err(io)?;
            io::copy(contents, &mut file).map_err(io)?;
            Ok(())
        })?;
        let io = |error| AppError::io("unpack into", directory, error);
        for entry in std::fs::read_dir(hidden.path()).map_err(io)? {
            let entry = entry.map_err(io)?;
            std::fs::rename(entry.path(), directory.join(entry.file_name())).map_err(io)?;
        }
        Ok(manifest)
    }

    /// Where a member goes; no member may leave the directory.
    fn inside(&self, directory: &Path, name: &str) -> Result<PathBuf, AppError> {
        let relative = Path::new(name);
        if relative.components().all(|part| matches!(part, Component::Normal(_))) && !name.is_empty() {
            return Ok(directory.join(relative));
        }
        Err(self.damaged(format!("its member {name} would leave the directory")))
    }
}

fn make(directory: &Path) -> Result<(), AppError> {
    beside::make_directories(directory, 0o700).map_err(|error| AppError::io("make", directory, error))
}

/// Keeps other processes from unpacking into it, as long as the file is open; nothing where the filesystem has no locks.
fn hold(directory: &Path) -> Result<File, AppError> {
    let held = File::open(directory).map_err(|error| AppError::io("open", directory, error))?;
    if matches!(held.try_lock(), Err(TryLockError::WouldBlock)) {
        let object = directory.display().to_string();
        let message = "another process unpacks into it";
        return Err(AppError::new("package.unpacking", FailureClass::Locked, "unpack into", object, message)
            .hint("wait for it, or name another directory"));
    }
    Ok(held)
}

/// Removes what is not whole, if nothing else is in the directory.
fn clear(directory: &Path) -> Result<(), AppError> {
    let io = |error| AppError::io("read", directory, error);
    let (mut left, mut others) = (Vec::new(), false);
    for entry in std::fs::read_dir(directory).map_err(io)? {
        let entry = entry.map_err(io)?;
        let ours = entry.file_name().to_string_lossy().starts_with(HIDDEN);
        if ours { left.push(entry.path()) } else { others = true }
    }
    if others {
        let object = directory.display().to_string();
        let message =
            if left.is_empty() { "it is not empty" } else { "an unpack into it was killed at its end" };
        return Err(AppError::new("package.not_empty", FailureClass::Usage, "unpack into", object, message)
            .hint("name an empty directory, or one that does not exist"));
    }
    let remove =
        |path: PathBuf| std::fs::remove_dir_all(&path).map_err(|error| AppError::io("remove", &path, error));
    left.into_iter().try_for_each(remove)
}
