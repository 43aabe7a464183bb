//! Configuration and keys that lie outside of the data directory, as on Debian: what the settings name, what those files
//! include, and links inside of the directory that lead out of it.
//!
//! [`look`] gathers them with their bytes, over the file system, the server's own functions, or both. What can't be read
//! never fails a backup: it is named instead, with the right that was missing ([`grants`]).

mod gather;
mod inside;
mod links;
mod owner;
mod parse;
mod source;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use everpoint_core::Micros;
use everpoint_core::name::{escape, of_path, to_path};
use everpoint_engine::{FileKind, FileMeta};

use crate::client::{Connection, quote_identifier};
use gather::{Gather, Kind};
pub(crate) use inside::inside;
use links::links;
pub(crate) use links::{is_own_place, links_out};
use source::{Local, Source};

/// Settings whose value is the path of a file (or directory) that the server reads, beside those of the configuration
/// itself; relative ones are relative to the data directory.
const KEYS: [&str; 7] = [
    "ssl_cert_file",
    "ssl_key_file",
    "ssl_ca_file",
    "ssl_crl_file",
    "ssl_crl_dir",
    "ssl_dh_params_file",
    "krb_server_keyfile",
];

/// Files that Debian's tools read beside a cluster's `postgresql.conf`.
const DEBIAN: [&str; 3] = ["environment", "pg_ctl.conf", "start.conf"];

/// Fact: where the server's own directory is. The settings' facts have their own names.
pub(crate) const DATA_DIRECTORY: &str = "data_directory";
/// Fact: the main configuration file.
pub(crate) const CONFIG_FILE: &str = "config_file";
/// Facts that begin so tell of a file outside, by its path: owner, group and mode.
pub(crate) const EXTERNAL: &str = "external ";
/// Facts that begin so name a directory outside.
pub(crate) const DIRECTORY: &str = "external_directory ";
/// Facts that begin so tell where a link leads, by its path inside of the data directory.
pub(crate) const LINK: &str = "link ";
/// Facts that begin so name a file that the image lacks, and say why.
pub(crate) const LACKS: &str = "lacks ";

/// A file with all its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutsideFile {
    /// Outside of the data directory: the absolute path. Inside: relative to it.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group by name, `user:group`; empty if that is not known.
    pub owner: String,
    /// Last modification; 0 if that is not known.
    pub modified: Micros,
    /// Content.
    pub bytes: Vec<u8>,
}

impl OutsideFile {
    /// How an image lists it.
    pub(crate) fn meta(&self, kind: FileKind) -> FileMeta {
        FileMeta {
            path: self.path.trim_start_matches('/').to_owned(),
            kind,
            mode: self.mode,
            modified: self.modified,
            size_hint: self.bytes.len() as u64,
        }
    }
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Outside {
    /// Files outside of the data directory.
    pub(crate) files: Vec<OutsideFile>,
    /// Files inside of it that were read by the server's functions: those that its base backup leaves out are links.
    pub(crate) inside: Vec<OutsideFile>,
    /// Paths that were named and not read, with the reason.
    pub(crate) lacks: BTreeMap<String, String>,
    /// Directories outside of it that configuration names, empty ones too.
    directories: Vec<String>,
    /// Links inside of the directory that lead out of it: path and target.
    links: Vec<(String, String)>,
    settings: BTreeMap<String, String>,
    /// Whether it is known at all where the configuration lies.
    pub(crate) known: bool,
}

impl Outside {
    /// Facts of the backup.
    pub(crate) fn facts(&self) -> Vec<(String, String)> {
        let settings = self.settings.iter().map(|(name, value)| (name.clone(), value.clone()));
        let files = self.files.iter().map(|file| {
            let owner = if file.owner.is_empty() { "-" } else { &file.owner };
            (format!("{EXTERNAL}{}", file.path), format!("{owner} {:04o}", file.mode))
        });
        let directories = self.directories.iter().map(|path| (format!("{DIRECTORY}{path}"), String::new()));
        let links = self.links.iter().map(|(path, target)| (format!("{LINK}{path}"), target.clone()));
        let lacks = self.lacks.iter().map(|(path, reason)| (format!("{LACKS}{path}"), reason.clone()));
        settings.chain(files).chain(directories).chain(links).chain(lacks).collect()
    }

    /// What the image lacks, in words; `None` if nothing.
    pub(crate) fn lacking(&self) -> Option<String> {
        let named: Vec<String> =
            self.lacks.iter().map(|(path, reason)| format!("{path} ({reason})")).collect();
        (!named.is_empty()).then(|| named.join(", "))
    }

    /// Forgets that files inside of the directory were not read if they came otherwise.
    pub(crate) fn missed_inside(&mut self, came: impl Fn(&str) -> bool) {
        let Some(directory) = self.settings.get(DATA_DIRECTORY).cloned() else { return };
        let relative =
            |path: &str| path.strip_prefix(&directory).map(|path| path.trim_start_matches('/').to_owned());
        self.lacks.retain(|path, _| relative(path).is_none_or(|path| !came(&path)));
    }

    /// Where the configuration lies.
    pub(crate) fn config_file(&self) -> Option<&str> {
        self.settings.get(CONFIG_FILE).map(String::as_str)
    }
}

/// What a role needs so that files outside are read by the server's own functions.
pub(crate) fn grants(user: &str) -> String {
    let user = quote_identifier(user);
    format!(
        "GRANT pg_read_all_settings, pg_read_server_files TO {user}; GRANT EXECUTE ON FUNCTION \
         pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean), \
         pg_catalog.pg_ls_dir(text, boolean, boolean) TO {user}"
    )
}

/// Gathers what lies outside. `data_dir`: the server's directory, if it can be read here.
pub(crate) fn look(sql: Option<&mut Connection>, data_dir: Option<&Path>) -> Outside {
    let mut source = Source { sql, local: None };
    let mut settings = shown(&mut source);
    if let Some(data_dir) = data_dir {
        let server = settings.entry(DATA_DIRECTORY.to_owned()).or_insert_with(|| runs_in(data_dir)).clone();
        settings.entry(CONFIG_FILE.to_owned()).or_insert_with(|| started_with(data_dir, &server));
        source.local = Some(Local::new(&to_path(&server), data_dir));
    }
    let mut found = Outside::default();
    let (Some(directory), Some(config)) = (settings.get(DATA_DIRECTORY), settings.get(CONFIG_FILE)) else {
        return found;
    };
    let (directory, config) = (to_path(directory), to_path(config));
    let mut gather = Gather::new(&mut source, &directory);
    follow(&mut gather, &directory, &config, &mut settings);
    gather.give(&mut found);
    found.links = data_dir.map(links).unwrap_or_default();
    let recorded = [DATA_DIRECTORY, CONFIG_FILE, "hba_file", "ident_file", "ssl_key_file"];
    settings.retain(|name, value| recorded.contains(&name.as_str()) && !value.is_empty());
    found.settings = settings;
    found.known = true;
    found
}

/// Follows all that configuration names, from its main file on. `settings`: those that are known; what the files say is added.
fn follow(
    gather: &mut Gather<'_, '_>,
    directory: &Path,
    config: &Path,
    settings: &mut BTreeMap<String, String>,
) {
    gather.visit(config, Kind::Settings, true);
    gather.visit(&directory.join("postgresql.auto.conf"), Kind::Settings, false);
    // What the server shows outranks what its files say: they may have changed since.
    for (name, value) in std::mem::take(&mut gather.settings) {
        settings.entry(name).or_insert(value);
    }
    for name in ["hba_file", "ident_file"] {
        let usual = format!("pg_{}.conf", name.trim_end_matches("_file"));
        let path = settings.entry(name.to_owned()).or_insert(usual).clone();
        gather.visit(&directory.join(to_path(&path)), Kind::Access, true);
    }
    let encrypts = settings.get("ssl").is_some_and(|ssl| !is_off(ssl));
    for name in KEYS {
        let Some(value) = settings.get(name).filter(|value| !value.is_empty()) else { continue };
        let path =
            value.split_once(':').filter(|(scheme, _)| *scheme == "FILE").map_or(&**value, |(_, it)| it);
        let needed = matches!(name, "ssl_cert_file" | "ssl_key_file" | "ssl_ca_file" | "ssl_crl_file");
        let required = encrypts && needed;
        gather.visit(
            &directory.join(to_path(path)),
            if name == "ssl_crl_dir" { Kind::Directory } else { Kind::Opaque },
            required,
        );
    }
    if !config.starts_with(directory) {
        for name in DEBIAN {
            gather.visit(&config.with_file_name(name), Kind::Opaque, false);
        }
    }
}

/// Whether a value means no, as the server reads it: any beginning of the word that is not that of another one.
fn is_off(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    let begins = |word: &str, least: usize| value.len() >= least && word.starts_with(&value);
    value == "0" || begins("false", 1) || begins("no", 1) || begins("off", 2)
}

/// What configuration on this machine names that must be there for a server on a directory, and was not read: `true` where it is not
/// there. `known`: settings of its command line.
pub(crate) fn lacking(data_dir: &Path, config: &Path, known: &[(String, String)]) -> BTreeMap<PathBuf, bool> {
    let mut source = Source { sql: None, local: Some(Local::new(data_dir, data_dir)) };
    let mut gather = Gather::new(&mut source, data_dir);
    follow(&mut gather, data_dir, config, &mut known.iter().cloned().collect());
    let mut found = Outside::default();
    gather.give(&mut found);
    let paths = found.lacks.keys().map(|path| to_path(path));
    paths.map(|path| (path.clone(), matches!(path.try_exists(), Ok(false)))).collect()
}

/// What the server shows of the settings; less to a role that may not see all.
fn shown(source: &mut Source<'_>) -> BTreeMap<String, String> {
    let Some(sql) = source.sql.as_deref_mut() else { return BTreeMap::new() };
    let names = [DATA_DIRECTORY, CONFIG_FILE, "hba_file", "ident_file", "ssl"];
    let names: Vec<&str> = names.into_iter().chain(KEYS).collect();
    sql.settings(&names).unwrap_or_else(|error| {
        tracing::debug!(%error, "where the configuration lies was not said");
        BTreeMap::new()
    })
}

/// Whether a file beside a cluster's main one is for Debian's tools alone.
pub(crate) fn is_read_by_tools(config: &Path, file: &Path) -> bool {
    DEBIAN.iter().any(|name| config.with_file_name(name) == file)
}

/// A file's text, bytes that are no UTF-8 escaped; nothing if it can't be read.
fn text(path: &Path) -> String {
    fs::read(path).map_or_else(|_| String::new(), |bytes| escape(&bytes))
}

/// The name of its directory for a server that runs there, as it noted itself.
fn runs_in(data_dir: &Path) -> String {
    let noted = text(&data_dir.join("postmaster.pid"));
    let named = noted.lines().nth(1).filter(|line| line.starts_with('/')).map(str::to_owned);
    named.unwrap_or_else(|| of_path(data_dir))
}

/// The configuration file with which the server of a directory was started, as it noted itself.
fn started_with(data_dir: &Path, server: &str) -> String {
    let noted = text(&data_dir.join("postmaster.opts"));
    let named = noted.split('"').find_map(|word| {
        word.strip_prefix("config_file=").or_else(|| word.strip_prefix("--config_file=")).map(str::to_owned)
    });
    named.unwrap_or_else(|| format!("{server}/postgresql.conf"))
}

/// As [`started_with`], of a directory by its name here.
pub(crate) fn started_here(data_dir: &Path) -> PathBuf {
    to_path(&started_with(data_dir, &of_path(data_dir)))
}

/// The settings of a configuration file on this machine and of all that it includes; names in lower case.
pub(crate) fn settings_of(config: &Path, data_dir: &Path) -> BTreeMap<String, String> {
    let mut source = Source { sql: None, local: Some(Local::new(data_dir, data_dir)) };
    let mut gather = Gather::new(&mut source, data_dir);
    gather.visit(config, Kind::Settings, false);
    gather.settings
}

/// The settings of the text of a configuration file; names in lower case.
pub(crate) fn settings_in(text: &[u8]) -> BTreeMap<String, String> {
    let lines = text.split(|c| *c == b'\n').filter_map(parse::setting);
    lines.map(|(name, value)| (name, escape(&value))).collect()
}

#[cfg(test)]
mod tests;
