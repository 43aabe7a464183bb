//! Follows what configuration files name.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use everpoint_core::name::{escape, of_path, to_path};

use super::parse::{self, Named};
use super::source::{Missing, Source};
use super::{Outside, OutsideFile};

/// Files included by files included by ... end here, as they do in the server.
const MAX_DEPTH: usize = 10;

/// What a file is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Settings, like `postgresql.conf`.
    Settings,
    /// Access rules, like `pg_hba.conf`.
    Access,
    /// Its bytes only.
    Opaque,
    /// A directory, all files of which are taken as they are.
    Directory,
}

/// Collects files.
pub(super) struct Gather<'a, 'b> {
    source: &'a mut Source<'b>,
    directory: &'a Path,
    /// The directory without links, if it is on this machine.
    real: Option<PathBuf>,
    seen: BTreeSet<PathBuf>,
    files: BTreeMap<String, OutsideFile>,
    inside: BTreeMap<String, OutsideFile>,
    lacks: BTreeMap<String, String>,
    directories: BTreeSet<String>,
    /// Files that were read on this machine, by the name under which they were found here; nothing unless asked for.
    pub(super) here: Option<Vec<(PathBuf, Vec<u8>)>>,
    /// Directories that were read as a whole on this machine, by the name under which they were found here.
    pub(super) whole: Vec<PathBuf>,
    /// Settings that were read, the last of a name.
    pub(super) settings: BTreeMap<String, String>,
}

/// Where a file belongs.
enum Place {
    Outside(PathBuf),
    Inside(PathBuf),
}

impl<'a, 'b> Gather<'a, 'b> {
    pub(super) fn new(source: &'a mut Source<'b>, directory: &'a Path) -> Self {
        let here = source.local.as_ref().map(|local| local.here.clone());
        let real = here.map(|here| here.canonicalize().unwrap_or(here));
        Self {
            source,
            directory,
            real,
            seen: BTreeSet::new(),
            files: BTreeMap::new(),
            inside: BTreeMap::new(),
            lacks: BTreeMap::new(),
            directories: BTreeSet::new(),
            here: None,
            whole: Vec::new(),
            settings: BTreeMap::new(),
        }
    }

    /// Takes a file and what it names. `required`: it is missed where it is not.
    pub(super) fn visit(&mut self, path: &Path, kind: Kind, required: bool) {
        self.follow(path, kind, required, 0);
    }

    fn follow(&mut self, path: &Path, kind: Kind, required: bool, depth: usize) {
        if depth > MAX_DEPTH || !self.seen.insert(path.to_owned()) {
            return;
        }
        if kind == Kind::Directory {
            return self.directory(path, Kind::Opaque, |_| true, required, depth);
        }
        let read = match self.source.read(path) {
            Ok(read) => read,
            Err(Missing::NotThere) if !required => return,
            Err(missing) => {
                self.lacks.insert(of_path(path), missing.to_string());
                return;
            }
        };
        match kind {
            Kind::Settings => self.settings(path, &read.bytes, depth),
            Kind::Access => self.access(path, &read.bytes, depth),
            Kind::Opaque | Kind::Directory => {}
        }
        self.keep(path, read);
    }

    fn settings(&mut self, path: &Path, bytes: &[u8], depth: usize) {
        for line in bytes.split(|c| *c == b'\n') {
            let Some((name, value)) = parse::setting(line) else { continue };
            match name.as_str() {
                "include" | "include_if_exists" => {
                    self.follow(&beside(path, &value), Kind::Settings, name == "include", depth + 1);
                }
                "include_dir" => {
                    let is_conf = |name: &str| name.ends_with(".conf") && !name.starts_with('.');
                    self.directory(&beside(path, &value), Kind::Settings, is_conf, true, depth);
                }
                _ => drop(self.settings.insert(name, escape(&value))),
            }
        }
    }

    fn access(&mut self, path: &Path, bytes: &[u8], depth: usize) {
        for named in parse::access(bytes) {
            match named {
                Named::Lines(file, required) => {
                    self.follow(&beside(path, &file), Kind::Access, required, depth + 1);
                }
                Named::Names(file) => self.follow(&beside(path, &file), Kind::Access, true, depth + 1),
                Named::Directory(directory) => {
                    let is_conf = |name: &str| name.ends_with(".conf") && !name.starts_with('.');
                    self.directory(&beside(path, &directory), Kind::Access, is_conf, true, depth);
                }
            }
        }
    }

    fn directory(&mut self, path: &Path, kind: Kind, takes: fn(&str) -> bool, required: bool, depth: usize) {
        match self.source.list(path) {
            Ok(names) => {
                self.whole.extend(self.source.here(path));
                // An empty one must be there too: the server does not start without.
                if let Some(Place::Outside(place)) = self.place(path) {
                    self.directories.insert(of_path(&place));
                }
                for name in names.iter().filter(|name| takes(name)) {
                    self.follow(&path.join(to_path(name)), kind, false, depth + 1);
                }
            }
            Err(Missing::NotThere) if !required => {}
            Err(missing) => {
                self.lacks.insert(of_path(path), missing.to_string());
            }
        }
    }

    fn keep(&mut self, path: &Path, read: OutsideFile) {
        if let Some(files) = &mut self.here {
            files.extend(self.source.here(path).map(|path| (path, read.bytes)));
            return;
        }
        let (place, list) = match self.place(path) {
            Some(Place::Outside(place)) => (place, &mut self.files),
            // Read here, the directory's own files are in the image already.
            Some(Place::Inside(_)) if self.real.is_some() => return,
            Some(Place::Inside(place)) => (place, &mut self.inside),
            None => return,
        };
        let path = of_path(&place);
        list.insert(path.clone(), OutsideFile { path, ..read });
    }

    /// Where a path belongs. A link inside of the directory that leads out of it stands for what it names.
    fn place(&self, path: &Path) -> Option<Place> {
        let (Some(inside), Some(path)) = (&self.real, self.source.here(path)) else {
            let path = without_steps_up(path);
            return Some(match path.strip_prefix(self.directory) {
                Ok(relative) => Place::Inside(relative.to_owned()),
                Err(_) => Place::Outside(path),
            });
        };
        let real = path.canonicalize().ok()?;
        if let Ok(relative) = real.strip_prefix(inside) {
            return Some(Place::Inside(relative.to_owned()));
        }
        let parent = path.parent().and_then(|parent| parent.canonicalize().ok());
        let named = match parent.filter(|parent| parent.starts_with(inside)) {
            Some(_) => fs::read_link(&path).unwrap_or_else(|_| real.clone()),
            None => path,
        };
        Some(Place::Outside(if is_plain(&named) { named } else { real }))
    }

    pub(super) fn give(self, found: &mut Outside) {
        found.files = self.files.into_values().collect();
        found.inside = self.inside.into_values().collect();
        found.lacks = self.lacks;
        found.directories = self.directories.into_iter().collect();
    }
}

/// A path as a file names it: relative to the directory of the file.
fn beside(file: &Path, named: &[u8]) -> PathBuf {
    file.parent().unwrap_or(Path::new("/")).join(OsStr::from_bytes(named))
}

/// A path of another machine without `..`, by its words alone. An image with such a path could not be restored.
fn without_steps_up(path: &Path) -> PathBuf {
    let mut plain = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => drop(plain.pop()),
            _ => {}
        }
    }
    plain
}

fn is_plain(path: &Path) -> bool {
    path.is_absolute()
        && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_up_are_taken_out() {
        assert_eq!(without_steps_up(Path::new("/etc/a/../b/./c")), Path::new("/etc/b/c"));
        assert_eq!(without_steps_up(Path::new("/../../x")), Path::new("/x"));
    }
}
