//! Lists a data directory, one directory at a time.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use everpoint_core::Micros;
use everpoint_core::name::{escape, of_path};
use everpoint_engine::{FileKind, FileMeta, TablespaceLink};

use super::links::{Followed, Links, Number, is_data_directory, numbers_of, special};
use super::needed::{Live, is_needed, is_of_live};
use super::notes::Notes;
use super::{
    Class, Fork, PUT_ASIDE, Pages, SOCKET, classify, holds_relations, is_emptied, settled, unlogged,
};

/// Longest path that an image takes, with some room for what is put before it.
const LONGEST: usize = 4000;

/// A file or directory to be backed up.
#[derive(Debug)]
pub(super) struct Found {
    /// How it is listed.
    pub(super) meta: FileMeta,
    /// Where it lies.
    pub(super) path: PathBuf,
    /// If it holds pages of a relation that a database knows: they are checked.
    pub(super) pages: Option<Pages>,
    /// It carries a checksum of its own, which must hold.
    pub(super) settles: bool,
    /// The server needs it.
    pub(super) needed: bool,
}

impl Found {
    /// What a file system says of a file, as `meta`.
    pub(super) fn new(name: &str, path: PathBuf, kind: FileKind, metadata: &Metadata) -> Self {
        let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let micros = modified.and_then(|time| i64::try_from(time.as_micros()).ok()).unwrap_or_default();
        let meta = FileMeta {
            path: name.to_owned(),
            kind,
            mode: metadata.permissions().mode() & 0o7777,
            modified: Micros(micros),
            size_hint: if kind == FileKind::Directory { 0 } else { metadata.size() },
        };
        Self { meta, path, pages: None, settles: false, needed: false }
    }
}

/// The tablespaces of a data directory: links, or directories inside it.
pub(crate) fn tablespaces(data_dir: &Path) -> io::Result<Vec<TablespaceLink>> {
    let mut links = Vec::new();
    for entry in fs::read_dir(data_dir.join("pg_tblspc"))? {
        let entry = entry?;
        let Some(oid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let path =
            if entry.file_type()?.is_symlink() { Some(of_path(&fs::read_link(entry.path())?)) } else { None };
        links.push(TablespaceLink { oid, path });
    }
    links.sort_by_key(|link| link.oid);
    Ok(links)
}

/// Walks a data directory. `version_directory` is the name that this server's part of a tablespace has, e.g.
/// `PG_15_202209061`: another server's part beside it is none of ours.
pub(super) struct Walk<'a> {
    pub(super) data_dir: &'a Path,
    pub(super) version_directory: &'a str,
    pub(super) links: Links,
    /// What the server knows, if that is known.
    pub(super) live: Option<&'a Live>,
    /// Device and inode of what is left out.
    pub(super) leave_out: &'a [Number],
    /// What is passed over is told here.
    pub(super) notes: &'a Notes,
}

/// Device and inode of paths, as far as they exist.
pub(super) fn numbers(paths: &[PathBuf]) -> Vec<Number> {
    let found = paths.iter().filter_map(|path| fs::metadata(path).ok());
    found.map(|found| numbers_of(&found)).collect()
}

/// A directory that is looked through.
struct Inside<'a> {
    /// Its name in the image, empty at the top.
    name: &'a str,
    /// Where it lies.
    path: &'a Path,
    /// Numbers of it and those above it.
    above: &'a mut Vec<Number>,
    /// It was found behind a link that is none of the server's own.
    linked: bool,
}

/// What becomes of one entry of a directory.
enum Item {
    Found(Found),
    /// A directory behind a link that is none of the server's own.
    Linked(Found),
    None,
}

impl Walk<'_> {
    /// Hands every directory and file that belongs to a backup to `found`, parents first. What vanishes meanwhile is
    /// passed over. Memory: the names of one path of directories.
    pub(super) fn run<E: From<WalkError>>(
        &self,
        found: &mut dyn FnMut(Found) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut above: Vec<Number> = fs::metadata(self.data_dir).iter().map(numbers_of).collect();
        let inside = Inside { name: "", path: self.data_dir, above: &mut above, linked: false };
        self.directory(inside, found)
    }

    fn directory<E: From<WalkError>>(
        &self,
        inside: Inside<'_>,
        found: &mut dyn FnMut(Found) -> Result<(), E>,
    ) -> Result<(), E> {
        let names = match names(inside.path) {
            Ok(names) => names,
            Err(error) if !inside.name.is_empty() && is_gone(&error) => return Ok(()),
            Err(error) => return Ok(self.trouble(inside.name, inside.path, &error)?),
        };
        let unlogged = if holds_relations(inside.name) {
            unlogged(names.iter().map(|(name, _)| name.as_str()))
        } else {
            BTreeSet::new()
        };
        for (name, real) in &names {
            let path = if inside.name.is_empty() { name.clone() } else { format!("{}/{name}", inside.name) };
            if self.links.is_elsewhere(&path) {
                continue;
            }
            let full = inside.path.join(real);
            let (item, linked) = match self.item(&path, &full, inside.above)? {
                Item::Found(item) => (item, inside.linked),
                Item::Linked(item) => (item, true),
                Item::None => continue,
            };
            let directory = item.meta.kind == FileKind::Directory;
            let number = directory.then(|| fs::metadata(&full).as_ref().map(numbers_of).ok()).flatten();
            if linked && number.is_some_and(|number| self.is_none_of_ours(&path, &full, number)) {
                continue;
            }
            // A tablespace that is a link comes back as a link, its contents below it.
            let is_link = inside.name == "pg_tblspc" && full.is_symlink();
            let skip =
                !unlogged.is_empty() && may_be_unlogged(&path).is_some_and(|it| unlogged.contains(&it));
            if !skip && !is_link {
                found(item)?;
            }
            if let Some(number) = number.filter(|_| !is_emptied(&path)) {
                inside.above.push(number);
                let below = Inside { name: &path, path: &full, above: &mut *inside.above, linked };
                let done = self.directory(below, found);
                inside.above.pop();
                done?;
            }
        }
        Ok(())
    }

    /// Whether a directory behind a link is another server's, or is in the image anyway.
    fn is_none_of_ours(&self, path: &str, full: &Path, number: Number) -> bool {
        let other = is_data_directory(full) && !self.links.is_stored(number);
        if other {
            self.notes.lacks(path, "it is another server's data directory");
        }
        other || self.links.is_stored(number)
    }

    /// One entry.
    fn item(&self, path: &str, full: &Path, above: &[Number]) -> Result<Item, WalkError> {
        let metadata = match fs::symlink_metadata(full) {
            Ok(metadata) => metadata,
            Err(error) if is_gone(&error) => return Ok(Item::None),
            Err(error) => return self.trouble(path, full, &error).map(|()| Item::None),
        };
        let link = metadata.is_symlink();
        let leaves_out = |metadata: &Metadata| self.leave_out.contains(&numbers_of(metadata));
        if leaves_out(&metadata) || (link && fs::metadata(full).is_ok_and(|target| leaves_out(&target))) {
            return Ok(Item::None);
        }
        let foreign = in_tablespace(path) && !path.ends_with(self.version_directory);
        let skipped = !metadata.is_dir() && matches!(classify(path), Class::Skip(_));
        if foreign || skipped || path == PUT_ASIDE {
            return Ok(Item::None);
        }
        let metadata = match link.then(|| self.links.follow(path, full, above)) {
            None => metadata,
            Some(Followed::Taken(target)) => target,
            Some(Followed::Stored) => return Ok(Item::None),
            Some(Followed::Lost(reason)) => return self.lost(path, full, reason).map(|()| Item::None),
        };
        if path.len() > LONGEST {
            return self.lost(path, full, "its path is too long".to_owned()).map(|()| Item::None);
        }
        let needed = is_needed(path, self.live);
        if metadata.is_dir() {
            let item = Found { needed, ..Found::new(path, full.to_owned(), FileKind::Directory, &metadata) };
            let linked = link && !is_emptied(path) && !path.starts_with("pg_tblspc/") && !needed;
            return Ok(if linked { Item::Linked(item) } else { Item::Found(item) });
        }
        if !metadata.is_file() {
            return self.other(path, full, &metadata).map(|()| Item::None);
        }
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        let live = is_of_live(directory, self.live);
        Ok(match classify(path) {
            Class::Skip(_) => Item::None,
            Class::Plain => {
                let settles = settled::has_own_checksum(path) && live;
                let found = Found::new(path, full.to_owned(), FileKind::Plain, &metadata);
                Item::Found(Found { settles, needed, ..found })
            }
            Class::Pages(pages) => {
                let found = Found::new(path, full.to_owned(), FileKind::Pages, &metadata);
                Item::Found(Found { pages: Some(pages).filter(|_| live), needed, ..found })
            }
        })
    }

    /// What is neither file nor directory. The server's own sockets are nobody's loss.
    fn other(&self, path: &str, full: &Path, metadata: &Metadata) -> Result<(), WalkError> {
        let name = path.rsplit('/').next().unwrap_or_default();
        if name.starts_with(SOCKET) {
            return Ok(());
        }
        let kind = special(metadata).unwrap_or("something else");
        self.lost(path, full, format!("it is a {kind}, no file"))
    }

    fn trouble(&self, path: &str, full: &Path, error: &io::Error) -> Result<(), WalkError> {
        let name = if path.is_empty() { "." } else { path };
        if path.is_empty() || is_needed(path, self.live) {
            return Err(WalkError::io(full, io::Error::new(error.kind(), error.to_string())));
        }
        self.notes.lacks(name, format!("it can't be read: {error}"));
        Ok(())
    }

    fn lost(&self, path: &str, full: &Path, reason: String) -> Result<(), WalkError> {
        if is_needed(path, self.live) {
            return Err(WalkError { path: full.to_owned(), reason: Reason::Lost(reason) });
        }
        self.notes.lacks(path, reason);
        Ok(())
    }
}

/// Number of the relation of a file that a backup leaves out if the relation is unlogged.
fn may_be_unlogged(path: &str) -> Option<u32> {
    match classify(path) {
        Class::Pages(pages) if pages.fork != Fork::Init => Some(pages.relation),
        _ => None,
    }
}

/// Whether the path is `pg_tblspc/<oid>/<name>`.
fn in_tablespace(path: &str) -> bool {
    path.starts_with("pg_tblspc/") && path.split('/').count() == 3
}

/// Why a file or directory that the server needs can't be taken.
#[derive(Debug)]
pub(super) enum Reason {
    Io(io::Error),
    Lost(String),
}

/// A file or directory that the server needs and that can't be taken.
#[derive(Debug)]
pub(super) struct WalkError {
    pub(super) path: PathBuf,
    pub(super) reason: Reason,
}

impl WalkError {
    /// What the file system said.
    pub(super) fn io(path: &Path, error: io::Error) -> Self {
        Self { path: path.to_owned(), reason: Reason::Io(error) }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "it can't be read: {error}"),
            Self::Lost(reason) => f.write_str(reason),
        }
    }
}

pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Names in a directory, as an image has them and as they are, in the order of the bytes.
pub(super) fn names(directory: &Path) -> io::Result<Vec<(String, OsString)>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        names.push((escape(name.as_bytes()), name));
    }
    names.sort_unstable_by(|(_, one), (_, other)| one.cmp(other));
    Ok(names)
}

#[cfg(test)]
mod tests;
