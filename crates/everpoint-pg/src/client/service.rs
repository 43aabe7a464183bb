//! Service files: named sets of connection parameters.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::conninfo::Parameters;
use super::{Environment, PgError};

/// The parameters of a service: the user's file first, then the system's.
///
/// # Errors
/// If no file has the service, or the file is broken.
pub(super) fn load(name: &str, file: Option<&str>, environment: &Environment) -> Result<Parameters, PgError> {
    let candidates = candidates(file, environment);
    for path in &candidates {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                return Err(PgError::parameter(format!(
                    "service file {} can't be read: {error}",
                    path.display()
                )));
            }
        };
        if let Some(found) = section(&text, name, path)? {
            return Ok(found);
        }
    }
    let tried: Vec<_> = candidates.iter().map(|path| path.display().to_string()).collect();
    Err(PgError::Parameter {
        message: "the service is not defined".to_owned(),
        hint: Some(format!("looked into {}", tried.join(", "))),
    })
}

fn candidates(file: Option<&str>, environment: &Environment) -> Vec<PathBuf> {
    let own = file
        .or_else(|| environment.get("PGSERVICEFILE"))
        .map(PathBuf::from)
        .or_else(|| environment.in_home(".pg_service.conf"));
    let system = environment.get("PGSYSCONFDIR").unwrap_or("/etc/postgresql-common");
    own.into_iter().chain([Path::new(system).join("pg_service.conf")]).collect()
}

fn section(text: &str, name: &str, path: &Path) -> Result<Option<Parameters>, PgError> {
    let mut found: Option<Parameters> = None;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(title) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            if found.is_some() {
                break;
            }
            if title == name {
                found = Some(Parameters::new());
            }
            continue;
        }
        let Some(parameters) = found.as_mut() else {
            continue;
        };
        let pair = line.split_once('=').filter(|(key, _)| !matches!(key.trim(), "service" | "servicefile"));
        let Some((key, value)) = pair else {
            return Err(PgError::parameter(format!(
                "line {} of service file {} is not `name=value`, or names another service",
                number + 1,
                path.display()
            )));
        };
        parameters.entry(key.trim().to_owned()).or_insert_with(|| value.trim().to_owned());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_ends_where_the_next_begins() {
        let text = "[a]\nhost=one\n# x\n[b]\nhost=two\nport = 77\n[c]\nhost=three\n";
        let found = section(text, "b", Path::new("f")).unwrap().unwrap();
        assert_eq!(found.get("host").map(String::as_str), Some("two"));
        assert_eq!(found.get("port").map(String::as_str), Some("77"));
        assert!(section(text, "d", Path::new("f")).unwrap().is_none());
        assert!(section("[x]\nnonsense\n", "x", Path::new("f")).is_err());
        assert!(section("[x]\nservice=y\n", "x", Path::new("f")).is_err());
    }
}
