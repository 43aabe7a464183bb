//! Adds tables to a configuration file.

use std::fmt::Write as _;
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use everpoint_app::AppError;
use everpoint_engine::beside;

/// `[repository.NAME]` to be.
#[derive(Debug, Clone)]
pub(crate) struct NewRepository {
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) key_file: Option<PathBuf>,
}

/// `[cluster.NAME]` to be.
#[derive(Debug, Clone)]
pub(crate) struct NewCluster {
    pub(crate) name: String,
    /// Without a password.
    pub(crate) address: String,
    pub(crate) password_file: Option<PathBuf>,
    pub(crate) data_dir: Option<PathBuf>,
    /// Named only where there are several.
    pub(crate) repository: Option<String>,
}

impl NewRepository {
    pub(crate) fn table(&self) -> String {
        let mut out = format!("[repository.{}]\n", key(&self.name));
        field(&mut out, "url", &self.url);
        match &self.key_file {
            Some(path) => field(&mut out, "key_file", &path.display().to_string()),
            None => out.push_str("# not encrypted: no key_file\n"),
        }
        out
    }
}

impl NewCluster {
    pub(crate) fn table(&self) -> String {
        let mut out = format!("[cluster.{}]\n", key(&self.name));
        field(&mut out, "postgres", &self.address.replace("${", "$${"));
        let mut optional = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                field(&mut out, name, &value);
            }
        };
        optional("password_file", self.password_file.as_ref().map(|path| path.display().to_string()));
        optional("data_dir", self.data_dir.as_ref().map(|path| path.display().to_string()));
        optional("repository", self.repository.clone());
        out
    }
}

fn field(out: &mut String, name: &str, value: &str) {
    // Writing into a String can't fail.
    let _ = writeln!(out, "{name} = {}", toml::Value::String(value.to_owned()));
}

/// A name with a point must be quoted in a table's header.
fn key(name: &str) -> String {
    if name.contains('.') { format!("\"{name}\"") } else { name.to_owned() }
}

/// Adds tables at the end of the file, or makes the file: it is replaced whole, so that it is never half written.
/// It holds no secret, so others may read it. Owner and permissions stay as they are, and a link to it stays a link.
///
/// # Errors
/// If it can't be written.
pub(crate) fn append(path: &Path, tables: &[String]) -> Result<(), AppError> {
    let wrap = |error| AppError::io("write", path, error);
    let mut text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            "# Everpoint: what is protected and where it is kept. See: everpoint --help\n".to_owned()
        }
        Err(error) => return Err(wrap(error)),
    };
    for table in tables {
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text.push('\n');
        text.push_str(table);
    }
    let path = &path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let directory = beside::directory_of(path);
    let mut file = tempfile::Builder::new()
        .prefix(".everpoint-")
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(&directory)
        .map_err(wrap)?;
    match std::fs::metadata(path) {
        Ok(before) => beside::keep(file.as_file(), &before).map_err(|error| {
            wrap(error).hint("run it as the user to whom the file belongs, or as root; it was not changed")
        })?,
        Err(_) => beside::give(file.as_file(), &directory).map_err(wrap)?,
    }
    file.write_all(text.as_bytes()).map_err(wrap)?;
    file.as_file().sync_all().map_err(wrap)?;
    file.persist(path).map_err(|error| wrap(error.error))?;
    beside::sync_directory(&directory).map_err(wrap)
}
