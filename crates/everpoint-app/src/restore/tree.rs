//! The directory that a restore fills: where each path of the image goes, and who owns it.

mod marks;

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use everpoint_core::FailureClass;
use everpoint_core::name::to_path;
use everpoint_engine::owner_of;
use everpoint_format::manifest::FileEntry;
use rustix::fs::{Gid, OFlags, Uid};

use super::kept::Kept;
use super::mark::{MARKER, Mark};
use super::salvage::COPY_MARK;
use super::spaces::Space;
use crate::AppError;

/// What a server needs of its own directories.
const OWNERS: u32 = 0o700;

/// See the module.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    spaces: BTreeMap<u32, Space>,
    /// Name of the server's part of a tablespace's place.
    part: Option<String>,
    /// A `pg_wal` that is a link is followed.
    follows_log: bool,
    /// What is left as it is.
    kept: Kept,
    mark: Mark,
    owner: Option<(Uid, Gid)>,
}

impl Tree {
    /// A tree at `root` (absolute) with these tablespaces, of each of which the server's part has the name `part`. Until it
    /// is finished it has this mark.
    ///
    /// # Errors
    /// As root, if the system knows no user as whom a server could run.
    pub fn new(
        root: &Path,
        spaces: BTreeMap<u32, Space>,
        part: Option<String>,
        mark: Mark,
    ) -> Result<Self, AppError> {
        let owner = owner_for(root)?;
        Ok(Self {
            root: root.to_owned(),
            spaces,
            part,
            follows_log: false,
            kept: Kept::default(),
            mark,
            owner,
        })
    }

    /// A log that lies elsewhere, behind a link, is this directory's.
    #[must_use]
    pub const fn with_log_elsewhere(mut self, follows_log: bool) -> Self {
        self.follows_log = follows_log;
        self
    }

    /// Its mark keeps the programs with which its server is started.
    #[must_use]
    pub fn with_programs(mut self, programs: Option<&Path>) -> Self {
        self.mark = self.mark.with_programs(programs);
        self
    }

    /// Those of an earlier attempt, as its mark says.
    #[must_use]
    pub fn marked_programs(&self) -> Option<PathBuf> {
        self.mark.programs_in(&self.root)
    }

    /// These links and files of the data directory are left as they are.
    #[must_use]
    pub fn with_kept(mut self, kept: Kept) -> Self {
        self.kept = kept;
        self
    }

    /// The links and files that are left as they are.
    #[must_use]
    pub const fn kept(&self) -> &Kept {
        &self.kept
    }

    /// The data directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Name of the server's part of a tablespace's place, if it is known.
    #[must_use]
    pub fn part(&self) -> Option<&str> {
        self.part.as_deref()
    }

    /// A tablespace of the image, or one that the log will create.
    #[must_use]
    pub fn space(&self, oid: u32) -> Option<&Space> {
        self.spaces.get(&oid)
    }

    /// The tablespaces that are links, their places, and whether it is the log that creates them.
    pub fn outside(&self) -> impl Iterator<Item = (u32, &Path, bool)> {
        self.spaces.iter().filter_map(|(oid, space)| Some((*oid, space.place.as_deref()?, space.created)))
    }

    /// Whether `pg_wal` may be a link that is followed.
    #[must_use]
    pub const fn follows_log(&self) -> bool {
        self.follows_log
    }

    /// Whether a path inside of the data directory is none of what is compared there: the server's part of a tablespace, which
    /// has another name, or a link or file that is kept.
    #[must_use]
    pub fn stays(&self, path: &Path) -> bool {
        if path.strip_prefix(&self.root).is_ok_and(|path| self.kept.is(path)) {
            return true;
        }
        let Some(part) = self.part() else { return false };
        path.ends_with(part) && self.outside().any(|(_, place, _)| path.parent() == Some(place))
    }

    /// Whether a path inside of the data directory is the place of a tablespace, or leads there, or to a link that is kept.
    #[must_use]
    pub fn leads_to_place(&self, path: &Path) -> bool {
        let mut kept = self.kept.paths().iter().map(|kept| self.root.join(kept));
        kept.any(|kept| kept.starts_with(path)) || self.outside().any(|(_, place, _)| place.starts_with(path))
    }

    /// Whether a path of the image is restored. Of a tablespace that is a link only the server's part is; and what an older
    /// backup has twice, because the tablespace lay inside the data directory, is restored once.
    ///
    /// # Errors
    /// `Damaged` if the image holds a tablespace of another version.
    pub fn takes(&self, path: &str) -> Result<bool, AppError> {
        // An older backup of a copy holds its mark: what is restored from it says itself what it is.
        if path == MARKER || path == COPY_MARK {
            return Ok(false);
        }
        // Nothing is written through a link.
        if self.kept.holds(&to_path(path)) {
            return Ok(false);
        }
        if let Some(rest) = path.strip_prefix("pg_tblspc/") {
            let (oid, inside) = rest.split_once('/').unwrap_or((rest, ""));
            let linked = oid.parse().ok().and_then(|oid: u32| self.spaces.get(&oid)?.place.as_ref());
            let first = inside.split('/').next().unwrap_or_default();
            if linked.is_none() || Some(first) == self.part() {
                return Ok(true);
            }
            if first.starts_with("PG_") {
                return Err(misplaced(path, "it is another version's part of a tablespace"));
            }
            return Ok(false);
        }
        let nested = self.outside().filter_map(|(_, place, _)| place.strip_prefix(&self.root).ok());
        let mut parts = nested.zip(self.part()).map(|(place, part)| place.join(part));
        Ok(!parts.any(|part| to_path(path).starts_with(part)))
    }

    /// Where a path of the image goes.
    ///
    /// # Errors
    /// `Damaged` if the path would leave the tree.
    pub fn place(&self, path: &str) -> Result<PathBuf, AppError> {
        let name = to_path(path);
        let relative = name.as_path();
        if relative.as_os_str().is_empty()
            || !relative.components().all(|part| matches!(part, Component::Normal(_)))
        {
            return Err(misplaced(path, "the path leaves the data directory"));
        }
        if let Some(rest) = path.strip_prefix("pg_tblspc/") {
            let (oid, inside) = rest.split_once('/').unwrap_or((rest, ""));
            let place = oid.parse().ok().and_then(|oid: u32| self.spaces.get(&oid)?.place.as_ref());
            if let Some(place) = place {
                return Ok(if inside.is_empty() { place.clone() } else { place.join(to_path(inside)) });
            }
        }
        Ok(self.root.join(relative))
    }

    /// Makes the links to the tablespaces.
    ///
    /// # Errors
    /// If they can't be made.
    pub fn link(&self) -> Result<(), AppError> {
        let links = self.root.join("pg_tblspc");
        self.directory(&links, 0o700)?;
        for (oid, place, _) in self.outside() {
            self.directory(place, 0o700)?;
            let link = links.join(oid.to_string());
            if std::fs::read_link(&link).is_ok_and(|target| target == place) {
                continue;
            }
            std::os::unix::fs::symlink(place, &link).map_err(|error| AppError::io("link", &link, error))?;
            if let Some((uid, gid)) = self.owner {
                std::os::unix::fs::lchown(&link, Some(uid.as_raw()), Some(gid.as_raw()))
                    .map_err(|error| AppError::io("change the owner of", &link, error))?;
            }
        }
        Ok(())
    }

    /// Makes a directory and those above it. One of the tree that is there already gets the tree's owner, too: a restore
    /// that was killed may have made it, and no more.
    ///
    /// # Errors
    /// If it can't be made, or not given away.
    pub fn directory(&self, path: &Path, mode: u32) -> Result<(), AppError> {
        self.make(path, mode, &mut Vec::new())
    }

    /// As [`Tree::directory`], and notes what it has made.
    ///
    /// # Errors
    /// If one of them can't be made.
    pub fn make(&self, path: &Path, mode: u32, made: &mut Vec<PathBuf>) -> Result<(), AppError> {
        if path.is_dir() {
            if self.is_strangers(path) {
                self.own(path)?;
            }
            return self.let_owner_in(path);
        }
        if let Some(parent) = path.parent() {
            self.make(parent, 0o700, made)?;
        }
        let new = DirBuilder::new().mode(mode & 0o7777).create(path);
        if new.is_ok() {
            made.push(path.to_owned());
        }
        match new {
            Ok(()) => set_mode(path, mode).and_then(|()| self.own(path)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            Err(error) => Err(AppError::io("make the directory", path, error)),
        }
    }

    /// What is known of a directory below the root, or of the server's part of a tablespace.
    fn found_below(&self, path: &Path) -> Option<Metadata> {
        let parts = self.outside().filter_map(|(_, place, _)| Some(place.join(self.part()?)));
        let mut tops = parts.map(|part| path.starts_with(part)).chain([path.starts_with(&self.root)]);
        let below = path != self.root && tops.any(|below| below);
        std::fs::symlink_metadata(path).ok().filter(|found| below && found.is_dir())
    }

    /// Whether it belongs to somebody else than the tree.
    fn is_strangers(&self, path: &Path) -> bool {
        let Some((uid, _)) = self.owner else { return false };
        self.found_below(path).is_some_and(|found| found.uid() != uid.as_raw())
    }

    /// Root may write where the server can't: its own directories are open to it.
    fn let_owner_in(&self, path: &Path) -> Result<(), AppError> {
        match self.found_below(path).map(|found| found.mode()) {
            Some(mode) if mode & OWNERS != OWNERS => set_mode(path, mode | OWNERS),
            _ => Ok(()),
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
            .custom_flags(i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default())
            .open(path)
            .map_err(|error| AppError::io("write", path, error))?;
        if let Some((uid, gid)) = self.owner {
            rustix::fs::fchown(&file, Some(uid), Some(gid))
                .map_err(|error| AppError::io("change the owner of", path, error.into()))?;
        }
        // Whatever the umask is, and the file had before.
        file.set_permissions(Permissions::from_mode(mode))
            .map_err(|error| AppError::io("set the permissions of", path, error))?;
        Ok(file)
    }

    /// Makes an empty file in the data directory, whatever was there.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn small_file(&self, name: &str) -> Result<(), AppError> {
        let path = self.root.join(name);
        remove_any(&path)?;
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        made.map_err(|error| AppError::io("write", &path, error))?;
        self.own(&path)
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

    /// Writes back the file systems of the tree.
    ///
    /// # Errors
    /// If the disk reports that something could not be written.
    pub fn sync(&self) -> Result<(), AppError> {
        let mut devices = Vec::new();
        let outside = self.outside().map(|(_, place, _)| place);
        for place in std::iter::once(self.root()).chain(outside) {
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

fn misplaced(path: &str, message: &str) -> AppError {
    AppError::new("restore.path", FailureClass::Damaged, "restore", path, message)
}

fn set_mode(path: &Path, mode: u32) -> Result<(), AppError> {
    std::fs::set_permissions(path, Permissions::from_mode(mode & 0o7777))
        .map_err(|error| AppError::io("set the permissions of", path, error))
}

/// As root, the files belong to the user as whom the server will run: see [`owner_of`]. `None` for another user.
///
/// # Errors
/// If the system knows no such user.
pub fn owner_for(root: &Path) -> Result<Option<(Uid, Gid)>, AppError> {
    Ok(owner_of(root)?.map(|owner| (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid))))
}

#[cfg(test)]
mod tests;
