//! Lists a data directory, one directory at a time.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use everpoint_core::Micros;
use everpoint_engine::{FileKind, FileMeta, TablespaceLink};

use super::{Class, Fork, PUT_ASIDE, Pages, classify, holds_relations, is_emptied, unlogged};

/// A file or directory to be backed up.
#[derive(Debug)]
pub(super) struct Found {
    /// How it is listed.
    pub(super) meta: FileMeta,
    /// Where it lies.
    pub(super) path: PathBuf,
    /// If it holds pages of a relation.
    pub(super) pages: Option<Pages>,
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
        Self { meta, path, pages: None }
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
        let path = if entry.file_type()?.is_symlink() {
            Some(fs::read_link(entry.path())?.to_string_lossy().into_owned())
        } else {
            None
        };
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
    /// See [`inside`].
    pub(super) inside: Vec<String>,
    /// Device and inode of what is left out.
    pub(super) leave_out: &'a [(u64, u64)],
}

/// This server's parts of tablespaces that lie inside the data directory, behind a link (PostgreSQL only warns of them), by
/// their paths in it: they are listed with their tablespace.
pub(super) fn inside(data_dir: &Path, version_directory: &str) -> Vec<String> {
    let links = fs::read_dir(data_dir.join("pg_tblspc")).into_iter().flatten().flatten();
    let Ok(root) = fs::canonicalize(data_dir) else { return Vec::new() };
    let part = |link: fs::DirEntry| {
        link.file_type().ok().filter(fs::FileType::is_symlink)?;
        let part = fs::canonicalize(link.path()).ok()?.join(version_directory);
        part.strip_prefix(&root).ok()?.to_str().map(str::to_owned)
    };
    links.filter_map(part).collect()
}

/// Device and inode of paths, as far as they exist.
pub(super) fn numbers(paths: &[PathBuf]) -> Vec<(u64, u64)> {
    let found = paths.iter().filter_map(|path| fs::metadata(path).ok());
    found.map(|found| (found.dev(), found.ino())).collect()
}

impl Walk<'_> {
    /// Hands every directory and file that belongs to a backup to `found`, parents first. What vanishes meanwhile is
    /// passed over. Memory: the names of one path of directories.
    pub(super) fn run<E: From<WalkError>>(
        &self,
        found: &mut dyn FnMut(Found) -> Result<(), E>,
    ) -> Result<(), E> {
        self.directory("", found)
    }

    fn directory<E: From<WalkError>>(
        &self,
        directory: &str,
        found: &mut dyn FnMut(Found) -> Result<(), E>,
    ) -> Result<(), E> {
        let names = match names(&self.data_dir.join(directory)) {
            Ok(names) => names,
            Err(error) if !directory.is_empty() && is_gone(&error) => return Ok(()),
            Err(error) => {
                return Err(WalkError { path: self.data_dir.join(directory), error }.into());
            }
        };
        let unlogged = if holds_relations(directory) {
            unlogged(names.iter().map(String::as_str))
        } else {
            Default::default()
        };
        for name in &names {
            let path = if directory.is_empty() { name.clone() } else { format!("{directory}/{name}") };
            if self.inside.contains(&path) {
                continue;
            }
            let Some(item) = self.item(&path)? else { continue };
            let enter = item.meta.kind == FileKind::Directory && !is_emptied(&path);
            // A tablespace that is a link comes back as a link, its contents below it.
            let is_link = directory == "pg_tblspc" && item.path.is_symlink();
            let skip = item.pages.is_some_and(|it| it.fork != Fork::Init && unlogged.contains(&it.relation));
            if !skip && !is_link {
                found(item)?;
            }
            if enter {
                self.directory(&path, found)?;
            }
        }
        Ok(())
    }

    /// One entry; `None` for what is left out or gone.
    fn item(&self, path: &str) -> Result<Option<Found>, WalkError> {
        let full = self.data_dir.join(path);
        let fail = |error| WalkError { path: full.clone(), error };
        let metadata = match fs::symlink_metadata(&full) {
            Ok(metadata) if metadata.is_symlink() => match fs::metadata(&full) {
                Ok(metadata) if self.follows(path, &metadata) => metadata,
                Ok(_) => return Ok(None),
                Err(error) if is_gone(&error) => return Ok(None),
                Err(error) => return Err(fail(error)),
            },
            Ok(metadata) => metadata,
            Err(error) if is_gone(&error) => return Ok(None),
            Err(error) => return Err(fail(error)),
        };
        let foreign = in_tablespace(path) && !path.ends_with(self.version_directory);
        if foreign || self.leave_out.contains(&(metadata.dev(), metadata.ino())) {
            return Ok(None);
        }
        if metadata.is_dir() {
            if path == PUT_ASIDE {
                return Ok(None);
            }
            return Ok(Some(Found::new(path, full, FileKind::Directory, &metadata)));
        }
        if !metadata.is_file() {
            return Ok(None);
        }
        Ok(match classify(path) {
            Class::Skip(_) => None,
            Class::Plain => Some(Found::new(path, full, FileKind::Plain, &metadata)),
            Class::Pages(pages) => {
                Some(Found { pages: Some(pages), ..Found::new(path, full, FileKind::Pages, &metadata) })
            }
        })
    }

    /// Links to files (certificates) are taken as files. Of linked directories only tablespaces and those that the
    /// server knows (`pg_wal` on another disk) belong to the cluster.
    fn follows(&self, path: &str, metadata: &Metadata) -> bool {
        metadata.is_file() || is_emptied(path) || path.starts_with("pg_tblspc/")
    }
}

/// Whether the path is `pg_tblspc/<oid>/<name>`.
fn in_tablespace(path: &str) -> bool {
    path.starts_with("pg_tblspc/") && path.split('/').count() == 3
}

/// A file or directory that can't be listed.
#[derive(Debug)]
pub(super) struct WalkError {
    pub(super) path: PathBuf,
    pub(super) error: io::Error,
}

pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Names in a directory, sorted. PostgreSQL's own names are all ASCII; others that are not UTF-8 can't be named in a
/// backup.
fn names(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        match entry?.file_name().into_string() {
            Ok(name) => names.push(name),
            Err(name) => tracing::warn!(?name, "left out of the backup: its name is not UTF-8"),
        }
    }
    names.sort_unstable();
    Ok(names)
}
