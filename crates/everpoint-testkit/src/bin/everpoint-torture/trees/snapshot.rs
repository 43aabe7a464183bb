//! What lies where, byte by byte: seen before and after, by eyes that share nothing with the program.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// One file, link, directory or whatever else has a name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    kind: char,
    mode: u32,
    owner: (u32, u32),
    size: u64,
    modified: (i64, i64),
    inode: u64,
    links: u64,
    /// Hash of a file's content.
    content: u64,
    /// Where a link leads.
    leads: PathBuf,
}

/// All that lies below some directories.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot(BTreeMap<PathBuf, Entry>);

/// A difference between two snapshots.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) path: PathBuf,
    pub(crate) what: String,
    /// A directory of which only the time differs: something came or went in it.
    pub(crate) only_time: bool,
    /// It was not there before.
    pub(crate) is_new: bool,
    /// It is (or was) a directory.
    pub(crate) is_directory: bool,
}

/// Device, inode, time of the last change to the inode, size: as long as they stay, so does the content.
type Known = (u64, u64, i64, i64, u64);

/// Reads trees; remembers the hashes of contents that can't have changed.
#[derive(Debug, Default)]
pub(crate) struct Eye {
    known: HashMap<Known, u64>,
}

impl Eye {
    /// All that lies below `roots`, mounts included, links not followed.
    pub(crate) fn look(&mut self, roots: &[PathBuf]) -> Result<Snapshot> {
        let mut seen = BTreeMap::new();
        let mut known = HashMap::new();
        for root in roots {
            self.below(root, &mut seen, &mut known)?;
        }
        self.known = known;
        Ok(Snapshot(seen))
    }

    fn below(
        &self,
        path: &Path,
        seen: &mut BTreeMap<PathBuf, Entry>,
        known: &mut HashMap<Known, u64>,
    ) -> Result<()> {
        let meta = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => other.with_context(|| format!("cannot look at {}", path.display()))?,
        };
        let kind = meta.file_type();
        let letter = match () {
            () if kind.is_dir() => 'd',
            () if kind.is_symlink() => 'l',
            () if kind.is_file() => 'f',
            () if kind.is_fifo() => 'p',
            () if kind.is_socket() => 's',
            () => '?',
        };
        let mut entry = Entry {
            kind: letter,
            mode: meta.mode() & 0o7777,
            owner: (meta.uid(), meta.gid()),
            size: if kind.is_dir() { 0 } else { meta.size() },
            modified: (meta.mtime(), meta.mtime_nsec()),
            inode: meta.ino(),
            links: if kind.is_dir() { 0 } else { meta.nlink() },
            content: 0,
            leads: PathBuf::new(),
        };
        if kind.is_symlink() {
            entry.leads = fs::read_link(path).with_context(|| format!("cannot read {}", path.display()))?;
        }
        if kind.is_file() {
            let key = (meta.dev(), meta.ino(), meta.ctime(), meta.ctime_nsec(), meta.size());
            entry.content = match self.known.get(&key) {
                Some(hash) => *hash,
                None => content(path)?,
            };
            known.insert(key, entry.content);
        }
        seen.insert(path.to_owned(), entry);
        if kind.is_dir() {
            for found in fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))? {
                self.below(&found?.path(), seen, known)?;
            }
        }
        Ok(())
    }
}

impl Snapshot {
    /// What differs in `after`.
    pub(crate) fn differences(&self, after: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (path, old) in &self.0 {
            let is_directory = old.kind == 'd';
            let mut change = |what: String, only_time: bool| {
                changes.push(Change { path: path.clone(), what, only_time, is_new: false, is_directory });
            };
            match after.0.get(path) {
                None => change("gone".to_owned(), false),
                Some(new) => {
                    let words = words(old, new);
                    if !words.is_empty() {
                        let only_time = is_directory && words == ["time"];
                        change(words.join(", "), only_time);
                    }
                }
            }
        }
        for (path, new) in self.missing_from(after) {
            changes.push(Change {
                path: path.clone(),
                what: "new".to_owned(),
                only_time: false,
                is_new: true,
                is_directory: new.kind == 'd',
            });
        }
        changes
    }

    fn missing_from<'a>(&'a self, after: &'a Self) -> impl Iterator<Item = (&'a PathBuf, &'a Entry)> {
        after.0.iter().filter(|(path, _)| !self.0.contains_key(*path))
    }
}

fn words(old: &Entry, new: &Entry) -> Vec<String> {
    let mut words = Vec::new();
    if old.kind != new.kind {
        return vec![format!("was {} and is {}", old.kind, new.kind)];
    }
    if old.content != new.content || old.size != new.size {
        words.push(format!("content ({} and {} bytes)", old.size, new.size));
    }
    if old.leads != new.leads {
        words.push(format!("led to {} and leads to {}", old.leads.display(), new.leads.display()));
    }
    if old.mode != new.mode {
        words.push(format!("mode {:o} to {:o}", old.mode, new.mode));
    }
    if old.owner != new.owner {
        words.push(format!("owner {:?} to {:?}", old.owner, new.owner));
    }
    if old.inode != new.inode {
        words.push("another file of the same name".to_owned());
    }
    // A twin loses one of its names when that is replaced: the count is not the content of this name.
    if old.links != new.links && old.links == 1 {
        words.push("one more name".to_owned());
    }
    if old.modified != new.modified {
        words.push("time".to_owned());
    }
    words
}

/// A hash of a file's content; quick also where nothing is optimised.
fn content(path: &Path) -> Result<u64> {
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let (mut buffer, mut hash) = (vec![0_u8; 1 << 18], 0xCBF2_9CE4_8422_2325_u64);
    loop {
        let read = file.read(&mut buffer).with_context(|| format!("cannot read {}", path.display()))?;
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else {
            return Ok(hash);
        };
        let (words, rest) = part.as_chunks::<8>();
        for word in words {
            hash = (hash.rotate_left(5) ^ u64::from_le_bytes(*word)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
        for byte in rest {
            hash = (hash.rotate_left(5) ^ u64::from(*byte)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
    }
}

#[cfg(test)]
mod tests {
    use everpoint_testkit::Scratch;

    use super::*;

    #[test]
    fn each_kind_of_change_is_seen_and_rest_is_not() {
        let scratch = Scratch::new("snapshot").unwrap();
        let path = |name: &str| scratch.path().join(name);
        for name in ["same", "written", "gone", "replaced"] {
            fs::write(path(name), "x").unwrap();
        }
        std::os::unix::fs::symlink("same", path("link")).unwrap();
        let roots = [scratch.path().to_owned()];
        let mut eye = Eye::default();
        let before = eye.look(&roots).unwrap();
        assert!(before.differences(&eye.look(&roots).unwrap()).is_empty());
        fs::write(path("written"), "y").unwrap();
        fs::remove_file(path("gone")).unwrap();
        fs::write(path("fresh"), "x").unwrap();
        fs::rename(path("fresh"), path("replaced")).unwrap();
        fs::write(path("more"), "").unwrap();
        fs::remove_file(path("link")).unwrap();
        std::os::unix::fs::symlink("gone", path("link")).unwrap();
        let changes = before.differences(&eye.look(&roots).unwrap());
        let mut names: Vec<_> = changes.iter().filter_map(|change| change.path.file_name()).collect();
        names.retain(|name| path(&name.to_string_lossy()).parent() == Some(scratch.path()));
        names.sort_unstable();
        let root = scratch.path().file_name().unwrap();
        names.retain(|name| *name != root);
        assert_eq!(names, ["gone", "link", "more", "replaced", "written"]);
        assert!(changes.iter().any(|change| change.path == scratch.path() && change.only_time));
    }
}
