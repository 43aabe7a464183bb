//! Configuration files outside the data directory, and the files that they include.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Files included by files included by ... end here, as they do in the server.
const MAX_DEPTH: usize = 10;

/// The configuration files that lie outside the data directory, sorted: of `named` (`config_file`, `hba_file`,
/// `ident_file` as the server shows them) and of what they include. What can't be read is passed over: it is an extra,
/// not a part of the database.
#[must_use]
pub fn external_files(data_dir: &Path, named: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = BTreeSet::new();
    for file in named {
        gather(file, 0, &mut found);
    }
    let inside = data_dir.canonicalize().unwrap_or_else(|_| data_dir.to_owned());
    found
        .into_iter()
        .filter(|file| file.is_absolute() && file.canonicalize().is_ok_and(|real| !real.starts_with(&inside)))
        .collect()
}

fn gather(file: &Path, depth: usize, found: &mut BTreeSet<PathBuf>) {
    if depth > MAX_DEPTH || found.contains(file) || !file.is_file() {
        return;
    }
    found.insert(file.to_owned());
    let Ok(text) = fs::read_to_string(file) else {
        return;
    };
    let directory = file.parent().unwrap_or(Path::new("/"));
    for line in text.lines() {
        match directive(line) {
            Some(("include" | "include_if_exists", target)) => {
                gather(&directory.join(target), depth + 1, found);
            }
            Some(("include_dir", target)) => {
                let Ok(entries) = fs::read_dir(directory.join(target)) else {
                    continue;
                };
                for path in entries.flatten().map(|entry| entry.path()) {
                    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                    if name.ends_with(".conf") && !name.starts_with('.') {
                        gather(&path, depth + 1, found);
                    }
                }
            }
            _ => {}
        }
    }
}

/// `include 'file'`, `include = file`, `@include file`: the word and the file.
fn directive(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    let end = line.find(|c: char| c.is_whitespace() || c == '=' || c == '\'' || c == '"')?;
    let (word, rest) = line.split_at_checked(end)?;
    let rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '=');
    let target = match rest.chars().next()? {
        quote @ ('\'' | '"') => rest.get(1..)?.split(quote).next()?,
        _ => rest.split(|c: char| c.is_whitespace() || c == '#').next()?,
    };
    word.starts_with("include").then_some((word, target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn includes_are_followed_and_only_what_lies_outside_is_named() {
        let scratch = tempfile::tempdir().unwrap();
        let (data, etc) = (scratch.path().join("data"), scratch.path().join("etc"));
        for directory in [&data, &etc, &etc.join("conf.d")] {
            fs::create_dir_all(directory).unwrap();
        }
        let main = "include_dir 'conf.d'\ninclude_if_exists = 'nowhere'\n  include \"more.conf\" # x\n#include 'no.conf'\n";
        fs::write(etc.join("postgresql.conf"), main).unwrap();
        fs::write(etc.join("more.conf"), "include 'postgresql.conf'\nport = 1").unwrap();
        fs::write(etc.join("no.conf"), "").unwrap();
        fs::write(etc.join("conf.d/a.conf"), "").unwrap();
        fs::write(etc.join("conf.d/a.txt"), "").unwrap();
        fs::write(data.join("pg_hba.conf"), "").unwrap();
        let named = [etc.join("postgresql.conf"), data.join("pg_hba.conf")];
        let names: Vec<_> = external_files(&data, &named)
            .iter()
            .map(|file| file.strip_prefix(&etc).unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["conf.d/a.conf", "more.conf", "postgresql.conf"]);
    }
}
