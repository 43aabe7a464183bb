//! Where a restored server's configuration lies: in its directory, or outside of it, as on Debian.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use everpoint_core::name::{of_path, to_path};
use everpoint_engine::RecoverySettings;

use crate::files::PUT_ASIDE;
use crate::outside::{CONFIG_FILE, DATA_DIRECTORY, EXTERNAL, settings_of};

/// Debian's directory of configurations, `<major>/<name>/postgresql.conf` each; its tools know this variable too.
const DEBIAN_ROOT: &str = "/etc/postgresql";
const DEBIAN_ROOT_VARIABLE: &str = "PG_CLUSTER_CONF_ROOT";

/// A fact of the backup.
pub(super) fn fact<'a>(settings: &'a RecoverySettings, name: &str) -> Option<&'a str> {
    settings.facts.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// Facts whose names begin with a word: the rest of the name, and the value.
pub(super) fn facts<'a>(
    settings: &'a RecoverySettings,
    prefix: &'a str,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    settings.facts.iter().filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?, value.as_str())))
}

/// The place of a file of production among the files put aside.
pub(super) fn put_aside(settings: &RecoverySettings, file: &Path) -> PathBuf {
    settings.directory.join(PUT_ASIDE).join(file.strip_prefix("/").unwrap_or(file))
}

/// The files outside of the data directory that came with the image, by the path that they had.
pub(super) fn came_along(settings: &RecoverySettings) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = facts(settings, EXTERNAL).map(|(path, _)| to_path(path)).collect();
    if files.is_empty() && fact(settings, CONFIG_FILE).is_none() {
        // An older backup has the files, not the facts.
        let top = settings.directory.join(PUT_ASIDE);
        walk(&top, &mut files);
        files = files
            .iter()
            .filter_map(|file| Some(Path::new("/").join(file.strip_prefix(&top).ok()?)))
            .collect();
        files.sort();
    }
    files
}

fn walk(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&entry.path(), files),
            Ok(_) => files.push(entry.path()),
            Err(_) => {}
        }
    }
}

/// Production's main configuration file, if it lies outside of its data directory.
pub(super) fn config_outside(settings: &RecoverySettings) -> Option<PathBuf> {
    if let Some(config) = fact(settings, CONFIG_FILE) {
        let inside =
            fact(settings, DATA_DIRECTORY).is_some_and(|data| to_path(config).starts_with(to_path(data)));
        return (!inside).then(|| to_path(config));
    }
    let files = came_along(settings);
    let mut configs = files.into_iter().filter(|file| file.ends_with("postgresql.conf"));
    configs.next().filter(|_| configs.next().is_none()).or_else(|| config_of(&settings.directory))
}

/// The configuration of the cluster of Debian's tools that runs on a directory, where nothing was recorded of it.
pub(super) fn config_of(directory: &Path) -> Option<PathBuf> {
    if directory.join("postgresql.conf").exists() {
        return None;
    }
    let below =
        |place: PathBuf| fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.path());
    let configs = below(debian_root()).flat_map(below).map(|cluster| cluster.join("postgresql.conf"));
    configs.into_iter().find(|config| {
        let named = settings_of(config, directory).remove(DATA_DIRECTORY);
        named.is_some_and(|named| is_same(&to_path(&named), directory))
    })
}

fn debian_root() -> PathBuf {
    env::var_os(DEBIAN_ROOT_VARIABLE).map_or_else(|| PathBuf::from(DEBIAN_ROOT), PathBuf::from)
}

/// What a configuration file says, read where it is, or where it was put aside.
pub(super) fn configured(settings: &RecoverySettings, config: &Path) -> BTreeMap<String, String> {
    let there = if config.exists() { config.to_owned() } else { put_aside(settings, config) };
    settings_of(&there, &settings.directory)
}

/// What production's configuration says on this machine, but for the file of ALTER SYSTEM.
pub(super) fn says(settings: &RecoverySettings) -> BTreeMap<String, String> {
    let inside = settings.directory.join("postgresql.conf");
    let outside =
        config_outside(settings).filter(|_| !settings.kept.iter().any(|kept| inside.ends_with(kept)));
    configured(settings, &outside.unwrap_or(inside))
}

/// Whether two names lead to one directory.
pub(super) fn is_same(one: &Path, other: &Path) -> bool {
    one == other || one.canonicalize().is_ok_and(|one| other.canonicalize().is_ok_and(|other| one == other))
}

/// Settings for the command line, so that a server on this directory reads production's configuration and nothing
/// leads it to another directory.
pub(super) fn command_line(settings: &RecoverySettings, config: &Path) -> Vec<(String, String)> {
    let says = configured(settings, config);
    let mut line = vec![(CONFIG_FILE.to_owned(), of_path(config))];
    // The file's own data_directory outranks -D: the server would start on the directory that it names.
    if says.get(DATA_DIRECTORY).is_some_and(|named| !is_same(&to_path(named), &settings.directory)) {
        line.push((DATA_DIRECTORY.to_owned(), of_path(&settings.directory)));
    }
    let recorded = fact(settings, DATA_DIRECTORY).unwrap_or("/");
    for name in ["hba_file", "ident_file"] {
        let outside = fact(settings, name).filter(|file| !to_path(file).starts_with(to_path(recorded)));
        if let Some(file) = outside.filter(|_| !says.contains_key(name)) {
            line.push((name.to_owned(), file.to_owned()));
        }
    }
    line
}

/// Settings for the command line of a server that replaces production, where its configuration lies outside.
#[must_use]
pub fn start_settings(settings: &RecoverySettings) -> Vec<(String, String)> {
    let config = settings.keep_configuration.then(|| config_outside(settings)).flatten();
    config.map_or_else(Vec::new, |config| command_line(settings, &config))
}

/// Whether a file is at its place; one that we may not look at counts as there.
pub(super) fn is_there(file: &Path) -> bool {
    !matches!(file.try_exists(), Ok(false))
}

/// Major version and name of a cluster of Debian's tools, by its configuration file.
pub(super) fn debian_cluster(config: &Path) -> Option<(String, String)> {
    let inside = config.strip_prefix(debian_root()).ok()?.to_str()?;
    let parts: Vec<&str> = inside.split('/').collect();
    match parts.as_slice() {
        [version, name, "postgresql.conf"] if version.bytes().all(|c| c.is_ascii_digit()) => {
            Some(((*version).to_owned(), (*name).to_owned()))
        }
        _ => None,
    }
}
