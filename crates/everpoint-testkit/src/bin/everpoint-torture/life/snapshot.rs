//! Whether files are the very same as before: names, inodes, times, sizes, contents.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::hash::{DefaultHasher, Hasher as _};
use std::io::Read as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Bytes of each end of a file that are compared; between them a change shows by the time alone.
const SAMPLE: u64 = 64 * 1024;

/// What lies in some directories.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    files: BTreeMap<PathBuf, File>,
}

#[derive(Debug, PartialEq, Eq)]
struct File {
    inode: u64,
    owner: (u32, u32, u32),
    links: u64,
    modified: (i64, i64),
    size: u64,
    hash: u64,
    target: Option<PathBuf>,
}

impl Snapshot {
    /// Looks at all that lies in these directories. With `quiet`, their server is at rest but runs: what it writes by itself is
    /// left out.
    pub(super) fn of(places: &[PathBuf], quiet: bool) -> Result<Self> {
        let mut snapshot = Self::default();
        for place in places {
            snapshot.add(place, place, quiet)?;
        }
        Ok(snapshot)
    }

    fn add(&mut self, root: &Path, path: &Path, quiet: bool) -> Result<()> {
        let look = || format!("cannot look at {}", path.display());
        let name = path.strip_prefix(root).unwrap_or(path);
        if quiet && moves_by_itself(name) {
            return Ok(());
        }
        let meta = match fs::symlink_metadata(path) {
            Err(why) if quiet && why.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            meta => meta.with_context(look)?,
        };
        let file = File {
            inode: meta.ino(),
            owner: (meta.uid(), meta.gid(), meta.mode()),
            links: if meta.is_file() { meta.nlink() } else { 0 },
            modified: (meta.mtime(), meta.mtime_nsec()),
            size: meta.size(),
            hash: if meta.is_file() { hash(path, meta.size()).with_context(look)? } else { 0 },
            target: if meta.is_symlink() { Some(fs::read_link(path).with_context(look)?) } else { None },
        };
        self.files.insert(path.to_owned(), file);
        if meta.is_dir() {
            for entry in fs::read_dir(path).with_context(look)? {
                self.add(root, &entry.with_context(look)?.path(), quiet)?;
            }
        }
        Ok(())
    }

    /// How many files it knows.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// What is different now, the first of it in words.
    pub(super) fn differences(&self, now: &Self) -> Vec<String> {
        let gone = self.files.keys().filter(|path| !now.files.contains_key(*path));
        let mut told: Vec<String> = gone.map(|path| format!("{} is gone", path.display())).collect();
        for (path, file) in &now.files {
            match self.files.get(path) {
                None => told.push(format!("{} is new", path.display())),
                Some(before) if before != file => {
                    told.push(format!("{} was {before:?} and is {file:?}", path.display()));
                }
                Some(_) => {}
            }
        }
        let more = told.len().saturating_sub(10);
        told.truncate(10);
        if more > 0 {
            told.push(format!("and {more} more"));
        }
        told
    }
}

/// What a server at rest still writes: its log, its state, its statistics, what it caches, and what it says.
fn moves_by_itself(name: &Path) -> bool {
    let text = |part: &OsStr| part.to_string_lossy().into_owned();
    let first = name.components().next().map(|part| text(part.as_os_str())).unwrap_or_default();
    let last = name.file_name().map(text).unwrap_or_default();
    let directories =
        ["pg_wal", "pg_stat", "pg_stat_tmp", "pg_replslot", "pg_logical", "pg_subtrans", "pg_xact", "global"];
    directories.contains(&first.as_str())
        || first.starts_with("postmaster")
        || last.starts_with("pg_internal.init")
        || last.ends_with(".log")
}

/// Of a short file the whole, of a long one both ends.
fn hash(path: &Path, size: u64) -> std::io::Result<u64> {
    let mut file = fs::File::open(path)?;
    let mut hasher = DefaultHasher::new();
    let mut bytes = Vec::new();
    if size <= 2 * SAMPLE {
        file.read_to_end(&mut bytes)?;
        hasher.write(&bytes);
        return Ok(hasher.finish());
    }
    bytes.resize(usize::try_from(SAMPLE).unwrap_or(0), 0);
    for at in [0, size - SAMPLE] {
        let count = file.read_at(&mut bytes, at)?;
        hasher.write(bytes.get(..count).unwrap_or_default());
    }
    Ok(hasher.finish())
}
