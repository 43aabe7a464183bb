//! Configuration and keys that lie in a data directory, as its files name them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use everpoint_core::name::{of_path, to_path};

use super::gather::{Gather, Kind};
use super::links::is_written;
use super::source::{Local, Source};
use super::{follow, runs_in};
use crate::files::BESIDE;

/// The server looks for them under these names if nothing else is set.
const USUAL_KEYS: [&str; 2] = ["server.crt", "server.key"];

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

/// The files by path relative to the directory, with what they say; without it links to directories of such files. `configs`:
/// files with which its server may have been started.
pub(crate) fn inside(data_dir: &Path, configs: &[PathBuf]) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
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
        for (path, bytes) in gather.here.take().unwrap_or_default() {
            names(&path, data_dir, &real, bytes, &mut found);
        }
    }
    found.retain(|path, _| is_configuration(path));
    found
}

/// All names in the directory that a file has, and the first link on the way to it: without one of them the server would find
/// another file, or none.
fn names(
    path: &Path,
    data_dir: &Path,
    real: &Path,
    bytes: Vec<u8>,
    found: &mut BTreeMap<PathBuf, Option<Vec<u8>>>,
) {
    let relative =
        |path: Option<PathBuf>| path.and_then(|path| Some(path.strip_prefix(real).ok()?.to_owned()));
    let parent = path.parent().and_then(|parent| fs::canonicalize(parent).ok());
    let named = parent.zip(path.file_name()).map(|(parent, name)| parent.join(name));
    if let Some(link) = path.strip_prefix(data_dir).ok().and_then(|path| first_link(data_dir, path)) {
        found.entry(link).or_insert(None);
    }
    for name in [relative(fs::canonicalize(path).ok()), relative(named)].into_iter().flatten() {
        found.insert(name, Some(bytes.clone()));
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
        let shown: Vec<(&str, bool)> =
            found.iter().map(|(path, content)| (path.to_str().unwrap(), content.is_some())).collect();
        let expected = [
            ("a.key", true),
            ("conf.d", false),
            ("keys/a.key", true),
            ("out.conf", true),
            ("pg_hba.conf", true),
            ("pg_hba.d/a.conf", true),
            ("postgresql.auto.conf", true),
            ("postgresql.conf", true),
            ("real.d/x.conf", true),
            ("server.crt", true),
        ];
        assert_eq!(shown, expected);
    }
}
