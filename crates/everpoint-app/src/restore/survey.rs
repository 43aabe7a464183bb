//! Looks at what lies in the places of a restore: what would be removed, what is none of ours, what is in the way. The same
//! walk removes it in the end.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use everpoint_core::name::escape;
use everpoint_core::place::{Act, EntryFacts, InTheWay, Kind, Wanted, decide};
use everpoint_core::{FailureClass, shell};
use everpoint_engine::StopFlag;
use rustix::fs::{Access, AtFlags, CWD, Statx, StatxAttributes, StatxFlags};

use super::known::Known;
use super::mark::{MARKER, NEW_MARK};
use super::tree::Tree;
use crate::AppError;

/// The directory of the log.
const LOG: &str = "pg_wal";
/// The file of ALTER SYSTEM, where settings of a recovery stand.
const SETTINGS: &str = "postgresql.auto.conf";
/// Where links to tablespaces lie.
const LINKS: &str = "pg_tblspc";
/// A file system's own.
const LOST: &str = "lost+found";
/// So many paths are named at most.
const LISTED: usize = 1000;

/// What was found.
#[derive(Debug, Default)]
pub struct Survey {
    /// What would be removed, a directory with all that is in it as one; no more than a bounded number of paths.
    pub removes: Vec<PathBuf>,
    /// How many there are.
    pub count: u64,
    /// What lies between and is left alone: other file systems, and what is not the server's where its log lies.
    pub left: Vec<PathBuf>,
    /// Bytes on disk, by device, of the files that would be removed and have no other name.
    pub freed: BTreeMap<u64, u64>,
}

/// The walk.
pub struct Walker<'a> {
    tree: &'a Tree,
    known: &'a Known,
    /// Whether a name in the directory of the log is the server's.
    is_log_name: &'a dyn Fn(&str) -> bool,
    stop: &'a StopFlag,
    apply: bool,
    found: Survey,
}

/// A directory that is being looked through.
#[derive(Clone, Copy)]
struct Inside {
    device: (u32, u32),
    writable: bool,
    /// All of it goes.
    gone: bool,
    /// It lies elsewhere, behind a link: only what the server writes there is its own.
    elsewhere: bool,
}

impl<'a> Walker<'a> {
    /// A walk that only looks.
    pub fn new(
        tree: &'a Tree,
        known: &'a Known,
        is_log_name: &'a dyn Fn(&str) -> bool,
        stop: &'a StopFlag,
    ) -> Self {
        Self { tree, known, is_log_name, stop, apply: false, found: Survey::default() }
    }

    /// Looks at everything.
    ///
    /// # Errors
    /// `Usage` if something is in the way, so that a restore could not end well.
    pub fn look(mut self) -> Result<Survey, AppError> {
        self.walk()?;
        Ok(self.found)
    }

    /// Removes what is not wanted.
    ///
    /// # Errors
    /// As [`Walker::look`], or if something can't be removed.
    pub fn remove(mut self) -> Result<Survey, AppError> {
        self.apply = true;
        self.walk()?;
        Ok(self.found)
    }

    fn walk(&mut self) -> Result<(), AppError> {
        let root = self.tree.root().to_owned();
        if root.is_dir() {
            let stat = look(&fs::canonicalize(&root).map_err(|error| AppError::io("find", &root, error))?)?;
            self.directory(&root, "", &stat, false, false)?;
        }
        let Some(part) = self.tree.part() else { return Ok(()) };
        let spaces: Vec<_> =
            self.tree.outside().map(|(oid, place, new)| (oid, place.to_owned(), new)).collect();
        for (oid, place, created) in spaces {
            self.space(&place, &format!("{LINKS}/{oid}/{part}"), &place.join(part), created)?;
        }
        Ok(())
    }

    /// This version's part of a tablespace: all else in its place is left alone.
    fn space(&mut self, place: &Path, name: &str, path: &Path, created: bool) -> Result<(), AppError> {
        if !place.is_dir() {
            return Ok(());
        }
        let above = look(&fs::canonicalize(place).map_err(|error| AppError::io("find", place, error))?)?;
        let inside = Inside {
            device: device(&above),
            writable: writable(place) && !immutable(&above),
            gone: false,
            elsewhere: false,
        };
        if fs::symlink_metadata(path).is_err() {
            return if inside.writable { Ok(()) } else { Err(in_the_way(place, InTheWay::ClosedParent)) };
        }
        let wanted = if created { Wanted::Nothing } else { Wanted::Directory };
        self.decided(path, name, inside, wanted).map(drop)
    }

    /// Looks through a directory; `true` if nothing is left in it.
    fn directory(
        &mut self,
        path: &Path,
        prefix: &str,
        stat: &Statx,
        gone: bool,
        elsewhere: bool,
    ) -> Result<bool, AppError> {
        super::stopped(self.stop)?;
        let inside =
            Inside { device: device(stat), writable: writable(path) && !immutable(stat), gone, elsewhere };
        if !gone && !inside.writable {
            return Err(in_the_way(path, InTheWay::ClosedParent));
        }
        let list = |error| closed("list", path, error);
        let mut names = Vec::new();
        for entry in fs::read_dir(path).map_err(list)? {
            names.push(entry.map_err(list)?.file_name());
        }
        names.sort_unstable();
        let mut empty = true;
        for name in names {
            let relative = format!("{prefix}{}", escape(name.as_bytes()));
            let path = path.join(&name);
            empty &= match self.entry(&path, &relative, inside) {
                // Where a server runs, its files come and go while one looks.
                Err(_) if !self.apply && is_gone(&path) => true,
                looked => looked?,
            };
        }
        Ok(empty)
    }

    /// One entry; `true` if it is gone in the end.
    fn entry(&mut self, path: &Path, name: &str, inside: Inside) -> Result<bool, AppError> {
        if inside.gone {
            return self.decided(path, name, inside, Wanted::Nothing);
        }
        // Its content stays, and it is written anew all the same: with the settings of the recovery, and without them.
        if name == SETTINGS && self.tree.stays(path) && kind(&look(path)?) == Kind::File {
            return self.decided(path, name, inside, Wanted::File);
        }
        if name == LOST || name == MARKER || name == NEW_MARK || self.tree.stays(path) {
            return Ok(false);
        }
        if name == LOG {
            return self.log(path, inside);
        }
        let wanted = self.known.wanted(name);
        if wanted == Wanted::Nothing && self.tree.kept().is_beside(name) {
            return Ok(false);
        }
        if name.strip_prefix(LOG).is_some_and(|rest| rest.starts_with('/')) {
            let plain = name.get(LOG.len() + 1..).unwrap_or_default();
            let foreign = inside.elsewhere && !(self.is_log_name)(plain);
            if wanted == Wanted::Nothing && (plain == LOST || foreign) {
                self.leave(path);
                return Ok(false);
            }
        }
        let oid = name.strip_prefix(LINKS).and_then(|rest| rest.strip_prefix('/')?.parse::<u32>().ok());
        let Some(oid) = oid else {
            let holds_place = self.tree.leads_to_place(path);
            let wanted = if name == LINKS || holds_place { Wanted::Directory } else { wanted };
            return self.decided(path, name, inside, wanted);
        };
        match self.tree.space(oid).map(|space| space.place.as_deref()) {
            Some(Some(place)) if fs::read_link(path).is_ok_and(|target| target == place) => Ok(false),
            Some(None) => self.decided(path, name, inside, Wanted::Directory),
            _ => self.decided(path, name, inside, Wanted::Nothing),
        }
    }

    /// The directory of the log: a link to another disk, or a file system of its own, stays; what is in it goes.
    fn log(&mut self, path: &Path, inside: Inside) -> Result<bool, AppError> {
        let stat = look(path)?;
        let prefix = format!("{LOG}/");
        match kind(&stat) {
            // On a disk of its own other things may lie beside the log.
            Kind::Directory => {
                let elsewhere = mounted(&stat, inside.device);
                self.directory(path, &prefix, &stat, false, elsewhere).map(|_| false)
            }
            Kind::Other if self.tree.follows_log() && is_link(&stat) => {
                let Ok(target) = fs::canonicalize(path) else {
                    return Err(refused(path, "the link to the log leads nowhere").hint(format!(
                        "make the directory that it names, or remove the link: rm {}",
                        shell::path(path)
                    )));
                };
                let stat = look(&target)?;
                if kind(&stat) != Kind::Directory {
                    return Err(refused(path, "the link to the log leads to no directory"));
                }
                self.directory(path, &prefix, &stat, false, true).map(|_| false)
            }
            _ => self.decided(path, LOG, inside, Wanted::Directory),
        }
    }

    fn decided(&mut self, path: &Path, name: &str, inside: Inside, wanted: Wanted) -> Result<bool, AppError> {
        let stat = look(path)?;
        let facts = EntryFacts {
            kind: kind(&stat),
            wanted,
            mounted: mounted(&stat, inside.device),
            immutable: immutable(&stat),
            replaced: kind(&stat) == Kind::File && !in_place(&stat, path),
            parent_writable: inside.writable,
        };
        match decide(&facts) {
            Act::Keep => {
                if facts.kind == Kind::Directory {
                    self.directory(path, &format!("{name}/"), &stat, false, false)?;
                }
                Ok(false)
            }
            Act::Remove => {
                if self.apply {
                    fs::remove_file(path).map_err(|error| AppError::io("remove", path, error))?;
                }
                // Another name keeps the blocks.
                if facts.kind == Kind::File && stat.stx_nlink == 1 {
                    let device = rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor);
                    let freed = self.found.freed.entry(device).or_default();
                    *freed = freed.saturating_add(stat.stx_blocks.saturating_mul(512));
                }
                self.removed(path);
                Ok(true)
            }
            Act::Empty => self.emptied(path, name, &stat, wanted),
            Act::Leave => {
                self.leave(path);
                Ok(false)
            }
            Act::Refuse(why) => Err(in_the_way(path, why)),
        }
    }

    /// A directory that goes, as far as nothing is mounted in it.
    fn emptied(&mut self, path: &Path, name: &str, stat: &Statx, wanted: Wanted) -> Result<bool, AppError> {
        let (listed, count) = (self.found.removes.len(), self.found.count);
        if !self.directory(path, &format!("{name}/"), stat, true, false)? {
            return if wanted == Wanted::Nothing {
                Ok(false)
            } else {
                Err(in_the_way(path, InTheWay::Mount))
            };
        }
        if self.apply {
            fs::remove_dir(path).map_err(|error| AppError::io("remove", path, error))?;
        }
        self.found.removes.truncate(listed);
        self.found.count = count;
        self.removed(path);
        Ok(true)
    }

    fn removed(&mut self, path: &Path) {
        self.found.count += 1;
        if self.found.removes.len() < LISTED {
            self.found.removes.push(path.to_owned());
        }
    }

    fn leave(&mut self, path: &Path) {
        if self.found.left.len() < LISTED {
            self.found.left.push(path.to_owned());
        }
    }
}

fn is_gone(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

/// Facts about a path, links not followed.
fn look(path: &Path) -> Result<Statx, AppError> {
    rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)
        .map_err(|error| closed("look at", path, error.into()))
}

fn kind(stat: &Statx) -> Kind {
    match rustix::fs::FileType::from_raw_mode(u32::from(stat.stx_mode)) {
        rustix::fs::FileType::Directory => Kind::Directory,
        rustix::fs::FileType::RegularFile => Kind::File,
        _ => Kind::Other,
    }
}

fn is_link(stat: &Statx) -> bool {
    rustix::fs::FileType::from_raw_mode(u32::from(stat.stx_mode)) == rustix::fs::FileType::Symlink
}

const fn device(stat: &Statx) -> (u32, u32) {
    (stat.stx_dev_major, stat.stx_dev_minor)
}

/// Bind mounts of the same file system have its device number: the kernel says of which it is the root. A file of an
/// overlay has the number of the layer that it comes from.
fn mounted(stat: &Statx, above: (u32, u32)) -> bool {
    (kind(stat) == Kind::Directory && device(stat) != above)
        || stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
}

fn immutable(stat: &Statx) -> bool {
    stat.stx_attributes.intersects(StatxAttributes::IMMUTABLE | StatxAttributes::APPEND)
}

/// Whether a file may be written as it is: under other names it is somebody else's, too, and its owner and mode are set.
fn in_place(stat: &Statx, path: &Path) -> bool {
    let user = rustix::process::geteuid();
    let ours = user.is_root() || stat.stx_uid == user.as_raw();
    stat.stx_nlink == 1 && ours && rustix::fs::access(path, Access::READ_OK | Access::WRITE_OK).is_ok()
}

/// Whether a regular file is there that may be written as it is.
pub(super) fn is_written_in_place(path: &Path) -> bool {
    look(path).is_ok_and(|stat| kind(&stat) == Kind::File && in_place(&stat, path))
}

fn writable(directory: &Path) -> bool {
    rustix::fs::access(directory, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

/// What may not be looked at can't be replaced or removed either.
fn closed(operation: &str, path: &Path, error: std::io::Error) -> AppError {
    if error.kind() != std::io::ErrorKind::PermissionDenied {
        return AppError::io(operation, path, error);
    }
    let hint = "run it as root or as the user whom it belongs to, or move it out of the directory".to_owned();
    refused(path, &format!("it can't be looked into: {error}")).hint(hint).cause(error)
}

fn in_the_way(path: &Path, why: InTheWay) -> AppError {
    let hint = match why {
        InTheWay::Mount => {
            format!("unmount it (umount {}), or restore into another directory", path.display())
        }
        InTheWay::Immutable => format!("see lsattr {0}, then chattr -i -a {0}", path.display()),
        InTheWay::ClosedParent => {
            "run it as the user who owns the directory, on a file system that takes writes".to_owned()
        }
    };
    refused(path, &why.to_string()).hint(hint)
}

fn refused(path: &Path, message: &str) -> AppError {
    AppError::new(
        "restore.in_the_way",
        FailureClass::Usage,
        "restore over",
        path.display().to_string(),
        message,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_not_be_looked_into_is_in_the_way() {
        let refused = closed("list", Path::new("/d/x"), std::io::ErrorKind::PermissionDenied.into());
        assert_eq!((refused.code.as_str(), refused.class), ("restore.in_the_way", FailureClass::Usage));
        let failed = closed("list", Path::new("/d/x"), std::io::Error::other("broken"));
        assert_eq!((failed.code.as_str(), failed.class), ("io", FailureClass::Failed));
    }
}
