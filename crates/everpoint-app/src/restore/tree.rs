//! The directory that a restore fills: where each path of the image goes, and who owns it.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use everpoint_core::FailureClass;
use everpoint_engine::owner_of;
use everpoint_format::manifest::{FileEntry, TablespaceRecord};
use rustix::fs::{Gid, Uid};

use crate::AppError;

/// Stands in the directory until a restore is complete: such a directory is never mistaken for a whole one.
pub const MARKER: &str = "everpoint.restore-incomplete";

/// See the module.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    /// Oid of a tablespace → where it is restored.
    spaces: BTreeMap<u32, PathBuf>,
    owner: Option<(Uid, Gid)>,
}

impl Tree {
    /// A tree at `root` with tablespaces placed as `map` says (`OLD=NEW` by path or oid), else where they were.
    ///
    /// # Errors
    /// `Usage` if a place is relative or lies inside the data directory, or a mapping names no tablespace.
    pub fn plan(
        root: &Path,
        tablespaces: &[TablespaceRecord],
        map: &[(String, String)],
    ) -> Result<Self, AppError> {
        let root = absolute(root)?;
        let mut spaces = BTreeMap::new();
        let mut unused: Vec<&str> = map.iter().map(|(old, _)| old.as_str()).collect();
        for space in tablespaces {
            let Some(old) = &space.path else { continue };
            let oid = space.oid.to_string();
            let mapped = map
                .iter()
                .find(|(name, _)| name.trim_end_matches('/') == old.trim_end_matches('/') || *name == oid);
            if let Some((name, _)) = mapped {
                unused.retain(|left| left != name);
            }
            let place = PathBuf::from(mapped.map_or(old, |(_, new)| new));
            if !place.is_absolute() || place.starts_with(&root) {
                let message = "a tablespace needs an absolute path outside the data directory";
                return Err(usage("place the tablespace at", &place, message));
            }
            spaces.insert(space.oid, place);
        }
        // A mapping of a tablespace that the log creates later is used when the copy is prepared, not here.
        let owner = owner_for(&root)?;
        tracing::debug!(?unused, "mappings for tablespaces that are not in the image");
        Ok(Self { root, spaces, owner })
    }

    /// The data directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The tablespaces and their places.
    pub fn spaces(&self) -> impl Iterator<Item = (u32, &Path)> {
        self.spaces.iter().map(|(oid, place)| (*oid, place.as_path()))
    }

    /// Refuses tablespaces: they are written outside of the data directory.
    ///
    /// # Errors
    /// `Usage` if there is one.
    pub fn refuse_spaces(&self) -> Result<(), AppError> {
        let Some(place) = self.spaces.values().next() else { return Ok(()) };
        let message = format!("the backup has a tablespace that would be written to {}", place.display());
        let (object, code) = (self.root.display().to_string(), "restore.tablespaces");
        Err(AppError::new(code, FailureClass::Usage, "stay inside of", object, message).hint(format!(
            "only the command line says where tablespaces go: everpoint restore with --map {}=/new/place",
            place.display()
        )))
    }

    /// Refuses an image of so many bytes for which there is no room where the data directory is, or will be.
    ///
    /// # Errors
    /// `restore.no_room` if it is so.
    pub fn refuse_full(&self, bytes: u64) -> Result<(), AppError> {
        let there = self.root.ancestors().find_map(|place| rustix::fs::statvfs(place).ok());
        let Some(there) = there else { return Ok(()) };
        let free = there.f_bavail.saturating_mul(there.f_frsize);
        if bytes <= free {
            return Ok(());
        }
        let (object, code) = (self.root.display().to_string(), "restore.no_room");
        let message = format!("the image has {bytes} bytes, and {free} are free there");
        Err(AppError::new(code, FailureClass::Failed, "restore into", object, message)
            .hint("free some space there, or restore to another disk"))
    }

    /// Refuses directories that hold something, unless they may be written over.
    ///
    /// # Errors
    /// `Usage` if one is not empty or a server runs on it.
    pub fn check(&self, delta: bool) -> Result<(), AppError> {
        self.refuse_live_server()?;
        let resumed = self.root.join(MARKER).exists();
        for place in std::iter::once(self.root.as_path()).chain(self.spaces.values().map(PathBuf::as_path)) {
            if delta || resumed || is_empty(place)? {
                continue;
            }
            let error = usage("restore into", place, "the directory is not empty");
            return Err(if place == self.root {
                error.hint(
                    "name an empty or new directory, or add --delta to bring this one to the wanted state",
                )
            } else {
                error.hint(format!("a tablespace lies there: add --map {}=/new/place", place.display()))
            });
        }
        Ok(())
    }

    fn refuse_live_server(&self) -> Result<(), AppError> {
        let Ok(text) = std::fs::read_to_string(self.root.join("postmaster.pid")) else {
            return Ok(());
        };
        let Some(pid) = text.lines().next().and_then(|line| line.trim().parse::<i32>().ok()) else {
            return Ok(());
        };
        let alive = rustix::process::Pid::from_raw(pid).is_some_and(|pid| {
            !matches!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH))
        });
        if !alive || !Path::new(&format!("/proc/{pid}/exe")).exists() && Path::new("/proc/self").exists() {
            return Ok(());
        }
        let message = format!("a server runs on it (process {pid}, says postmaster.pid)");
        Err(usage("restore into", &self.root, &message)
            .hint(format!("stop it first: pg_ctl -D {} stop", self.root.display())))
    }

    /// Where a path of the image goes.
    ///
    /// # Errors
    /// `Damaged` if the path would leave the tree.
    pub fn place(&self, path: &str) -> Result<PathBuf, AppError> {
        let relative = Path::new(path);
        if relative.as_os_str().is_empty()
            || !relative.components().all(|part| matches!(part, Component::Normal(_)))
        {
            return Err(AppError::new(
                "restore.path",
                FailureClass::Damaged,
                "restore",
                path,
                "the path leaves the data directory",
            ));
        }
        if let Some(rest) = path.strip_prefix("pg_tblspc/") {
            let (oid, inside) = rest.split_once('/').unwrap_or((rest, ""));
            if let Some(place) = oid.parse().ok().and_then(|oid: u32| self.spaces.get(&oid)) {
                return Ok(if inside.is_empty() { place.clone() } else { place.join(inside) });
            }
        }
        Ok(self.root.join(relative))
    }

    /// Makes the roots and the links to the tablespaces, and the marker.
    ///
    /// # Errors
    /// If they can't be made.
    pub fn begin(&self) -> Result<(), AppError> {
        self.directory(&self.root, 0o700)?;
        std::fs::set_permissions(&self.root, std::fs::Permissions::from_mode(0o700))
            .map_err(|error| AppError::io("set the permissions of", &self.root, error))?;
        let marker = self.root.join(MARKER);
        std::fs::write(
            &marker,
            "A restore into this directory has not finished. It is not a whole database.\n",
        )
        .map_err(|error| AppError::io("write", &marker, error))?;
        self.own(&marker)?;
        let links = self.root.join("pg_tblspc");
        self.directory(&links, 0o700)?;
        for (oid, place) in &self.spaces {
            self.directory(place, 0o700)?;
            let link = links.join(oid.to_string());
            if std::fs::read_link(&link).is_ok_and(|target| target == *place) {
                continue;
            }
            remove_any(&link)?;
            std::os::unix::fs::symlink(place, &link).map_err(|error| AppError::io("link", &link, error))?;
            if let Some((uid, gid)) = self.owner {
                rustix::fs::chownat(
                    rustix::fs::CWD,
                    &link,
                    Some(uid),
                    Some(gid),
                    rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
                )
                .map_err(|error| AppError::io("change the owner of", &link, error.into()))?;
            }
        }
        Ok(())
    }

    /// Makes a directory and those above it.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn directory(&self, path: &Path, mode: u32) -> Result<(), AppError> {
        if path.is_dir() {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.directory(parent, 0o700)?;
        }
        match DirBuilder::new().mode(mode & 0o7777).create(path) {
            Ok(()) => {
                // Set, not asked for: the caller's umask has no say.
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode & 0o7777))
                    .map_err(|error| AppError::io("set the permissions of", path, error))?;
                self.own(path)
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            Err(error) => Err(AppError::io("make the directory", path, error)),
        }
    }

    /// Opens (and makes) a file for writing.
    ///
    /// # Errors
    /// If it can't be opened.
    pub fn create(&self, path: &Path, entry: &FileEntry) -> Result<File, AppError> {
        let mode = if entry.mode == 0 { 0o600 } else { entry.mode & 0o7777 };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(mode)
            .open(path)
            .map_err(|error| AppError::io("write", path, error))?;
        if let Some((uid, gid)) = self.owner {
            rustix::fs::fchown(&file, Some(uid), Some(gid))
                .map_err(|error| AppError::io("change the owner of", path, error.into()))?;
        }
        // After the owner, who takes special bits away; whatever umask the caller has, and whatever was there.
        file.set_permissions(std::fs::Permissions::from_mode(mode))
            .map_err(|error| AppError::io("set the permissions of", path, error))?;
        Ok(file)
    }

    /// Gives a path to the owner of the tree.
    ///
    /// # Errors
    /// If that is refused.
    pub fn own(&self, path: &Path) -> Result<(), AppError> {
        let Some((uid, gid)) = self.owner else {
            return Ok(());
        };
        std::os::unix::fs::chown(path, Some(uid.as_raw()), Some(gid.as_raw()))
            .map_err(|error| AppError::io("change the owner of", path, error))
    }

    /// Removes the marker of a tree that is durable.
    ///
    /// # Errors
    /// If the disk reports that something could not be written.
    pub fn finish(&self) -> Result<(), AppError> {
        let marker = self.root.join(MARKER);
        std::fs::remove_file(&marker).map_err(|error| AppError::io("remove", &marker, error))?;
        File::open(&self.root)
            .and_then(|root| root.sync_all())
            .map_err(|error| AppError::io("make durable", &self.root, error))
    }

    /// Writes back the file systems of the tree.
    ///
    /// # Errors
    /// If the disk reports that something could not be written.
    pub fn sync(&self) -> Result<(), AppError> {
        let mut devices = Vec::new();
        for place in std::iter::once(self.root.as_path()).chain(self.spaces.values().map(PathBuf::as_path)) {
            let directory = File::open(place).map_err(|error| AppError::io("open", place, error))?;
            let device = directory.metadata().map_err(|error| AppError::io("look at", place, error))?.dev();
            if !devices.contains(&device) {
                rustix::fs::syncfs(&directory)
                    .map_err(|error| AppError::io("make durable", place, error.into()))?;
                devices.push(device);
            }
        }
        Ok(())
    }
}

/// Removes a file, link or directory tree, whatever is there.
///
/// # Errors
/// If something is there and can't be removed.
pub fn remove_any(path: &Path) -> Result<(), AppError> {
    let removed = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => Err(error),
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
    };
    removed.map_err(|error| AppError::io("remove", path, error))
}

fn usage(operation: &str, path: &Path, message: &str) -> AppError {
    AppError::new("restore.directory", FailureClass::Usage, operation, path.display().to_string(), message)
}

fn absolute(path: &Path) -> Result<PathBuf, AppError> {
    std::path::absolute(path).map_err(|error| AppError::io("find", path, error))
}

fn is_empty(path: &Path) -> Result<bool, AppError> {
    match std::fs::read_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(AppError::io("list", path, error)),
        Ok(mut entries) => Ok(entries.next().is_none()),
    }
}

/// As root, the files belong to the user as whom the server will run: see [`owner_of`]. `None` for another user.
///
/// # Errors
/// If the system knows no such user.
pub fn owner_for(root: &Path) -> Result<Option<(Uid, Gid)>, AppError> {
    Ok(owner_of(root)?.map(|owner| (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(oid: u32, path: &str) -> TablespaceRecord {
        TablespaceRecord { oid, path: Some(path.to_owned()) }
    }

    #[test]
    fn paths_of_tablespaces_go_where_the_map_says_and_nothing_leaves_the_tree() {
        let map = [("/old/a".to_owned(), "/new/a".to_owned())];
        let tree =
            Tree::plan(Path::new("/r"), &[space(16400, "/old/a"), space(16401, "/old/b")], &map).unwrap();
        assert_eq!(tree.place("pg_tblspc/16400/PG_15/5/1").unwrap(), Path::new("/new/a/PG_15/5/1"));
        assert_eq!(tree.place("pg_tblspc/16401/PG_15").unwrap(), Path::new("/old/b/PG_15"));
        assert_eq!(tree.place("pg_tblspc/9/x").unwrap(), Path::new("/r/pg_tblspc/9/x"));
        assert_eq!(tree.place("base/5/1").unwrap(), Path::new("/r/base/5/1"));
        for bad in ["../x", "/etc/passwd", "base/../../x", ""] {
            assert!(tree.place(bad).is_err(), "{bad}");
        }
        assert!(Tree::plan(Path::new("/r"), &[space(1, "/r/inside")], &[]).is_err());
        assert_eq!(tree.refuse_spaces().unwrap_err().code, "restore.tablespaces");
        let in_place = TablespaceRecord { oid: 16402, path: None };
        Tree::plan(Path::new("/r"), &[in_place], &[]).unwrap().refuse_spaces().unwrap();
    }

    #[test]
    fn a_directory_with_something_in_it_is_refused_unless_asked_for() {
        let there = tempfile::tempdir().unwrap();
        std::fs::write(there.path().join("precious"), "1").unwrap();
        let tree = Tree::plan(there.path(), &[], &[]).unwrap();
        assert_eq!(tree.check(false).unwrap_err().class, FailureClass::Usage);
        tree.check(true).unwrap();
        std::fs::write(there.path().join(MARKER), "").unwrap();
        tree.check(false).unwrap();
    }

    #[test]
    fn an_image_must_fit_where_its_directory_will_be() {
        let there = tempfile::tempdir().unwrap();
        let tree = Tree::plan(&there.path().join("not/yet"), &[], &[]).unwrap();
        tree.refuse_full(1).unwrap();
        assert_eq!(tree.refuse_full(u64::MAX).unwrap_err().code, "restore.no_room");
    }
}
