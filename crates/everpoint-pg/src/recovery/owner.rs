//! Whom a data directory belongs to. The server refuses to run as root, and refuses a directory that is not its own.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::path::Path;

use everpoint_engine::EngineError;

use super::failed;

/// Names the user that runs servers when the directory belongs to root.
const USER: &str = "EVERPOINT_PG_USER";
const DEFAULT_USER: &str = "postgres";

/// A user and its main group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Name of the user; empty if the system has none for it.
    pub(super) name: String,
}

/// The user that a server on this directory has to run as: its owner, or, if that is root, the configured user.
/// `None`: we are not root, the server runs as we do.
pub(super) fn server_user(directory: &Path) -> Result<Option<Owner>, EngineError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let metadata = fs::metadata(directory).map_err(|error| failed("look at", directory, error))?;
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    if metadata.uid() != 0 {
        let name =
            find(&users, |owner| owner.uid == metadata.uid()).map_or(String::new(), |owner| owner.name);
        return Ok(Some(Owner { uid: metadata.uid(), gid: metadata.gid(), name }));
    }
    let wanted = std::env::var(USER).unwrap_or_else(|_| DEFAULT_USER.to_owned());
    find(&users, |owner| owner.name == wanted && owner.uid != 0).map(Some).ok_or_else(|| {
        let message =
            format!("root owns it, PostgreSQL refuses to run as root, and there is no user {wanted:?}");
        EngineError::new("pg.user", "start a server on", directory.display().to_string(), message).hint(
            format!("set {USER} to an existing user, or give the directory to the user that shall run it"),
        )
    })
}

fn find(users: &str, wanted: impl Fn(&Owner) -> bool) -> Option<Owner> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Owner { uid, gid, name }).filter(&wanted)
    })
}

/// Gives a tree to a user, tablespaces behind links too.
pub(super) fn give(path: &Path, owner: &Owner) -> Result<(), EngineError> {
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
        give(&entry.map_err(fail)?.path(), owner)?;
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
