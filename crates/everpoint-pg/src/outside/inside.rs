//! Configuration and keys that lie in a data directory, as its files name them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use everpoint_core::name::{of_path, to_path};
use everpoint_engine::Stays;

use super::gather::{Gather, Kind};
use super::links::is_written;
use super::source::{Local, Source};
use super::{follow, runs_in};
use crate::files::BESIDE;

/// The server looks for them under these names if nothing else is set.
const USUAL_KEYS: [&str; 2] = ["server.crt", "server.key"];

/// So many directories below the data directory are looked through for names.
const NAMED_DEPTH: usize = 3;

/// Directories that the server fills: nothing in them is configuration. Others that begin so may be (`pg_hba.d`).
const SERVERS: [&str; 19] = [
    "base",
    "global",
    "pg_clog",
    "pg_commit_ts",
    "pg_dynshmem",
    "pg_log",
    "pg_logical",
    "pg_multixact",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_tblspc",
    "pg_twophase",
    "pg_wal",
    "pg_xact",
];

/// The files by path relative to the directory, the directories that are read as a whole, and links to directories of such
/// files. `configs`: files with which its server may have been started; without one, nothing says what is read, and all that has
/// the name of configuration counts.
pub(crate) fn inside(data_dir: &Path, configs: &[PathBuf]) -> BTreeMap<PathBuf, Stays> {
    let mut found = BTreeMap::new();
    let Ok(real) = fs::canonicalize(data_dir) else { return found };
    let server = to_path(&runs_in(data_dir));
    for config in configs {
        let mut source = Source { sql: None, local: Some(Local::new(&server, data_dir)) };
        let mut gather = Gather::new(&mut source, &server);
        gather.here = Some(Vec::new());
        let config =
            config.strip_prefix(data_dir).map_or_else(|_| config.clone(), |inside| server.join(inside));
        follow(&mut gather, &server, &config, &mut BTreeMap::new());
        for name in USUAL_KEYS {
            gather.visit(&server.join(name), Kind::Opaque, false);
        }
        for whole in std::mem::take(&mut gather.whole) {
            let place = fs::canonicalize(&whole).ok();
            let place = place.and_then(|place| Some(place.strip_prefix(&real).ok()?.to_owned()));
            found.extend(place.map(|place| (place, Stays::Whole)));
        }
        for (path, bytes) in gather.here.take().unwrap_or_default() {
            names(&path, data_dir, &real, bytes, &mut found);
        }
    }
    if configs.is_empty() {
        by_name(&real, &real, NAMED_DEPTH, &mut found);
    }
    found.retain(|path, _| is_configuration(path));
    found
}

/// Files that are called as configuration is, where the server keeps nothing of its own.
fn by_name(root: &Path, directory: &Path, depth: usize, found: &mut BTreeMap<PathBuf, Stays>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(name) = path.strip_prefix(root) else { continue };
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && depth > 0 && is_configuration(name) {
            by_name(root, &path, depth - 1, found);
        }
        let called = path.extension().is_some_and(|it| it == "conf")
            || USUAL_KEYS.iter().any(|key| name == Path::new(key));
        if kind.is_file()
            && called
            && let Ok(bytes) = fs::read(&path)
        {
            found.insert(name.to_owned(), Stays::File(bytes));
        }
    }
}

/// All names in the directory that a file has, and the first link on the way to it: without one of them the server would find
/// another file, or none.
fn names(path: &Path, data_dir: &Path, real: &Path, bytes: Vec<u8>, found: &mut BTreeMap<PathBuf, Stays>) {
    let relative =
        |path: Option<PathBuf>| path.and_then(|path| Some(path.strip_prefix(real).ok()?.to_owned()));
    let parent = path.parent().and_then(|parent| fs::canonicalize(parent).ok());
    let named = parent.zip(path.file_name()).map(|(parent, name)| parent.join(name));
    if let Some(link) = path.strip_prefix(data_dir).ok().and_then(|path| first_link(data_dir, path)) {
        found.entry(link).or_insert(Stays::Thing);
    }
    for name in [relative(fs::canonicalize(path).ok()), relative(named)].into_iter().flatten() {
        found.insert(name, Stays::File(bytes.clone()));
    }
}

/// The first directory on the way that is a link.
fn first_link(data_dir: &Path, path: &Path) -> Option<PathBuf> {
    let mut way = PathBuf::new();
    for part in path.parent()?.components() {
        let Component::Normal(name) = part else { return None };
        way.push(name);
        if data_dir.join(&way).is_symlink() {
            return Some(way);
        }
    }
    None
}

fn is_configuration(path: &Path) -> bool {
    let name = of_path(path);
    let top = name.split('/').next().unwrap_or_default();
    let written = is_written(&name) && name != "postgresql.auto.conf";
    !name.is_empty() && !written && !SERVERS.contains(&top) && !name.ends_with(BESIDE)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_configuration_names_in_the_directory_is_found_by_all_its_names() {
        let scratch = tempfile::tempdir().unwrap();
        let (data, etc) = (scratch.path().join("data"), scratch.path().join("etc"));
        for directory in ["real.d", "pg_hba.d", "base", "keys"] {
            fs::create_dir_all(data.join(directory)).unwrap();
        }
        fs::create_dir(&etc).unwrap();
        symlink("real.d", data.join("conf.d")).unwrap();
        symlink("keys/a.key", data.join("a.key")).unwrap();
        symlink(etc.join("out.conf"), data.join("out.conf")).unwrap();
        let main = "include_dir 'conf.d'\ninclude 'out.conf'\ninclude 'gone.conf'\nssl_key_file = 'a.key'\n\
                    include '../etc/other.conf'\n";
        for (name, text) in [
            ("data/postgresql.conf", main),
            ("data/postgresql.auto.conf", "work_mem = 1MB\n"),
            ("data/pg_hba.conf", "include_dir pg_hba.d\nlocal all all peer\n"),
            ("data/pg_hba.d/a.conf", ""),
            ("data/real.d/x.conf", ""),
            ("data/keys/a.key", "key"),
            ("data/server.crt", "certificate"),
            ("data/real.d/x.conf.everpoint-backup", ""),
            ("data/unnamed.conf", ""),
            ("etc/out.conf", "include '../data/base/x'\n"),
            ("etc/other.conf", ""),
        ] {
            fs::write(scratch.path().join(name), text).unwrap();
        }
        let found = inside(&data, &[data.join("postgresql.conf")]);
        let shown = |found: &BTreeMap<PathBuf, Stays>| -> Vec<String> {
            let word = |stays: &Stays| match stays {
                Stays::File(_) => "file",
                Stays::Whole => "whole",
                Stays::Thing => "thing",
            };
            found.iter().map(|(path, stays)| format!("{} {}", path.display(), word(stays))).collect()
        };
        let expected = [
            "a.key file",
            "conf.d thing",
            "keys/a.key file",
            "out.conf file",
            "pg_hba.conf file",
            "pg_hba.d whole",
            "pg_hba.d/a.conf file",
            "postgresql.auto.conf file",
            "postgresql.conf file",
            "real.d whole",
            "real.d/x.conf file",
            "server.crt file",
        ];
        assert_eq!(shown(&found), expected);

        // The last file of a directory that is read as a whole; and the main file gone, so that nothing names the others.
        fs::remove_file(data.join("real.d/x.conf")).unwrap();
        let emptied = inside(&data, &[data.join("postgresql.conf")]);
        assert_eq!(emptied.get(Path::new("real.d")), Some(&Stays::Whole));
        fs::remove_file(data.join("postgresql.conf")).unwrap();
        let expected = [
            "pg_hba.conf file",
            "pg_hba.d/a.conf file",
            "postgresql.auto.conf file",
            "server.crt file",
            "unnamed.conf file",
        ];
        assert_eq!(shown(&inside(&data, &[])), expected);
    }
}
