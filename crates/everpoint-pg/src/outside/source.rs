//! Reads files and directories: here, by the server's own functions, or by these where the file system refuses.

use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use everpoint_core::Micros;
use everpoint_core::name::escape;

use super::{OutsideFile, owner};
use crate::client::{Connection, PgError, quote_literal};

/// The longest file that counts as configuration: it is held in memory.
const MAX_BYTES: usize = 16 << 20;

/// Permissions of a file of which the server does not tell them: nobody's but its own.
const CLOSED: u32 = 0o600;

/// Why a file was not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Missing {
    NotThere,
    Refused(String),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotThere => f.write_str("it is not there"),
            Self::Refused(reason) => f.write_str(reason),
        }
    }
}

/// Ways to the files.
pub(super) struct Source<'a> {
    /// A connection for SQL.
    pub(super) sql: Option<&'a mut Connection>,
    /// What of the server's files is on this machine.
    pub(super) local: Option<Local>,
}

/// A data directory on this machine.
#[derive(Debug, Clone)]
pub(super) struct Local {
    /// Its name for the server.
    pub(super) server: PathBuf,
    /// Its name here.
    pub(super) here: PathBuf,
    /// The server sees the same files as we do. One in a container has an `/etc` of its own.
    pub(super) same: bool,
}

impl Local {
    pub(super) fn new(server: &Path, here: &Path) -> Self {
        let same = server == here
            || here.canonicalize().is_ok_and(|here| server.canonicalize().is_ok_and(|it| it == here));
        Self { server: server.to_owned(), here: here.to_owned(), same }
    }
}

impl Source<'_> {
    /// The name that a file of the server has here, if it is here.
    pub(super) fn here(&self, path: &Path) -> Option<PathBuf> {
        let local = self.local.as_ref()?;
        match path.strip_prefix(&local.server) {
            Ok(relative) => Some(local.here.join(relative)),
            Err(_) => local.same.then(|| path.to_owned()),
        }
    }

    pub(super) fn read(&mut self, path: &Path) -> Result<OutsideFile, Missing> {
        let here = self.here(path).map(|here| read(&here));
        match (here, self.sql.as_deref_mut()) {
            (Some(Err(Missing::Refused(reason))), Some(sql)) => {
                ask(sql, path).map_err(|_| Missing::Refused(reason))
            }
            (Some(read), _) => read,
            (None, Some(sql)) => ask(sql, path),
            (None, None) => Err(Missing::Refused("it can't be read here".to_owned())),
        }
    }

    /// Names of the entries of a directory, sorted; bytes that are no UTF-8 escaped.
    pub(super) fn list(&mut self, path: &Path) -> Result<Vec<String>, Missing> {
        let mut names = if let Some(here) = self.here(path) {
            let entries = fs::read_dir(here).map_err(missing)?;
            entries.flatten().map(|entry| escape(entry.file_name().as_bytes())).collect()
        } else {
            list(self.sql.as_deref_mut(), path)?
        };
        names.sort_unstable();
        Ok(names)
    }
}

fn missing(error: io::Error) -> Missing {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Missing::NotThere,
        io::ErrorKind::PermissionDenied => Missing::Refused("permission denied".to_owned()),
        _ => Missing::Refused(error.to_string()),
    }
}

fn too_long() -> Missing {
    Missing::Refused(format!("it is longer than {} MiB", MAX_BYTES >> 20))
}

fn read(path: &Path) -> Result<OutsideFile, Missing> {
    let metadata = fs::metadata(path).map_err(missing)?;
    if !metadata.is_file() {
        return Err(Missing::NotThere);
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(missing)?;
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(missing)?;
    if bytes.len() > MAX_BYTES {
        return Err(too_long());
    }
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let micros = modified.and_then(|time| i64::try_from(time.as_micros()).ok()).unwrap_or_default();
    Ok(OutsideFile {
        path: String::new(),
        mode: metadata.permissions().mode() & 0o7777,
        owner: owner::names(metadata.uid(), metadata.gid()),
        modified: Micros(micros),
        bytes,
    })
}

/// Reads a file by the server's own function, which needs EXECUTE and, outside of the data directory,
/// pg_read_server_files.
fn ask(sql: &mut Connection, path: &Path) -> Result<OutsideFile, Missing> {
    let Some(name) = path.to_str() else {
        return Err(Missing::Refused("its name is not UTF-8, and SQL can't name it".to_owned()));
    };
    can_name(sql, name)?;
    may(sql, "pg_read_binary_file(text,bigint,bigint,boolean)")?;
    let query = format!(
        "SELECT pg_catalog.encode(pg_catalog.pg_read_binary_file({}, 0, {}, true), 'hex')",
        quote_literal(name),
        MAX_BYTES + 1
    );
    let rows = sql.query(&query).map_err(refused)?;
    let bytes = unhex(rows.single().ok_or(Missing::NotThere)?).ok_or(Missing::NotThere)?;
    if bytes.len() > MAX_BYTES {
        return Err(too_long());
    }
    Ok(OutsideFile { path: String::new(), mode: CLOSED, owner: String::new(), modified: Micros(0), bytes })
}

fn list(sql: Option<&mut Connection>, path: &Path) -> Result<Vec<String>, Missing> {
    let (Some(sql), Some(name)) = (sql, path.to_str()) else { return Err(Missing::NotThere) };
    can_name(sql, name)?;
    may(sql, "pg_ls_dir(text,boolean,boolean)")?;
    let query = format!("SELECT f FROM pg_catalog.pg_ls_dir({}, true, false) AS f", quote_literal(name));
    let rows = sql.query(&query).map_err(refused)?;
    Ok(rows.0.into_iter().flatten().flatten().collect())
}

/// Whether a database can take this name in a question. One that can't would have an error in its log.
fn can_name(sql: &Connection, name: &str) -> Result<(), Missing> {
    let encoding = sql.parameter("server_encoding").unwrap_or_default();
    if takes(encoding, name) {
        return Ok(());
    }
    Err(Missing::Refused(format!("a database in {encoding} can't name it: connect to one in UTF8")))
}

/// In UTF8 such a name is what it is, and an encoding of single bytes takes any.
fn takes(encoding: &str, name: &str) -> bool {
    let single = ["SQL_ASCII", "LATIN", "ISO_8859", "WIN", "KOI8"];
    name.is_ascii() || encoding == "UTF8" || single.iter().any(|kind| encoding.starts_with(kind))
}

/// Whether the role may call a function that reads the server's files. Looked up first: a refused call would be an error in the
/// server's log.
fn may(sql: &mut Connection, function: &str) -> Result<(), Missing> {
    let query = format!(
        "SELECT pg_catalog.has_function_privilege('pg_catalog.{function}', 'EXECUTE') AND \
         pg_catalog.pg_has_role('pg_read_server_files', 'USAGE')"
    );
    match sql.query(&query) {
        Ok(rows) if rows.single() == Some("t") => Ok(()),
        Ok(_) => Err(Missing::Refused("the role may not read it".to_owned())),
        Err(error) => Err(refused(error)),
    }
}

fn refused(error: PgError) -> Missing {
    Missing::Refused(match error.sqlstate() {
        Some("42501") if matches!(&error, PgError::Server(it) if it.is_of_account()) => {
            "the server's own account may not read it".to_owned()
        }
        Some("42501") => "the role may not read it".to_owned(),
        _ => error.to_string(),
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    text.as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_asked_only_for_names_that_it_can_take() {
        for encoding in ["UTF8", "SQL_ASCII", "LATIN1", "WIN1252"] {
            assert!(takes(encoding, "/etc/caf\u{e9}.conf"), "{encoding}");
        }
        assert!(!takes("EUC_JP", "/etc/\u{20ac}.conf") && takes("EUC_JP", "/etc/a.conf"));
    }

    #[test]
    fn hexadecimal_digits_are_bytes() {
        assert_eq!(unhex("00ff1a").as_deref(), Some(&[0, 255, 26][..]));
        assert_eq!(unhex("0"), None);
        assert_eq!(unhex("xx"), None);
    }
}
