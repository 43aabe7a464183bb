//! Gives a data directory to the user as whom its server runs.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::path::Path;

use everpoint_engine::{EngineError, Owner};

use super::failed;

/// Gives a tree to a user, tablespaces behind links too. What a file system keeps for itself, and what else is mounted in
/// the tree, is not part of it.
pub(super) fn give(path: &Path, owner: &Owner) -> Result<(), EngineError> {
    if path.ends_with("lost+found") {
        return Ok(());
    }
    let fail = |error| failed("change the owner of", path, error);
    let metadata = fs::symlink_metadata(path).map_err(fail)?;
    if metadata.uid() != owner.uid || metadata.gid() != owner.gid {
        lchown(path, Some(owner.uid), Some(owner.gid)).map_err(fail)?;
    }
    let inside = if metadata.is_symlink() {
        let is_tablespace = path.parent().is_some_and(|parent| parent.ends_with("pg_tblspc"));
        let is_log = path.ends_with("pg_wal");
        is_tablespace || is_log
    } else {
        metadata.is_dir()
    };
    if !inside {
        return Ok(());
    }
    if metadata.is_symlink() {
        let target = fs::canonicalize(path).map_err(fail)?;
        return give(&target, owner);
    }
    for entry in fs::read_dir(path).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let mounted = entry.metadata().is_ok_and(|it| it.is_dir() && it.dev() != metadata.dev());
        if !mounted || entry.file_name() == "pg_wal" {
            give(&entry.path(), owner)?;
        }
    }
    Ok(())
}

/// Gives one file to whoever owns the directory that it lies in, if we may.
pub(super) fn give_like_parent(path: &Path) -> Result<(), EngineError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    let metadata = fs::metadata(parent).map_err(|error| failed("look at", parent, error))?;
    lchown(path, Some(metadata.uid()), Some(metadata.gid()))
        .map_err(|error| failed("change the owner of", path, error))
}
