//! Adds tables to a configuration file.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use everpoint_app::AppError;

use super::rewrite;

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
            None => out.push_str("# no key_file: not encrypted, unless EVERPOINT_KEY has the key\n"),
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

/// Adds tables at the end of the file, or makes the file. It holds no secret, so others may read it.
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
    rewrite::write(path, &text, 0o644).map_err(|error| {
        let denied = error.kind() == std::io::ErrorKind::PermissionDenied;
        let error = wrap(error);
        if !denied {
            return error;
        }
        error.hint("run it as the user to whom the file belongs, or as root; it was not changed")
    })
}
