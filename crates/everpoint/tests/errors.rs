//! docs/ERRORS.md lists every code that the program can say, and none that it can't.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail loudly")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// First words of codes; other texts with a point are file names.
const AREAS: [&str; 28] = [
    "adopt",
    "alerts",
    "api",
    "archive",
    "backup",
    "branch",
    "capture",
    "check",
    "cluster",
    "config",
    "fetch",
    "forget",
    "hold",
    "key",
    "log",
    "offsite",
    "package",
    "pg",
    "protect",
    "repo",
    "restore",
    "restore_point",
    "scratch",
    "serve",
    "store",
    "upkeep",
    "verify",
    "wal",
];
/// Codes without an area.
const PLAIN: [&str; 4] = ["internal", "io", "stopped", "usage"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn is_code(text: &str) -> bool {
    let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    text.split_once('.').is_some_and(|(area, name)| AREAS.contains(&area) && word(name))
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let for_tests = matches!(name.as_str(), "tests" | "tests.rs" | "testing.rs" | "fake" | "fake.rs");
        if path.is_dir() && !for_tests {
            sources(&path, found);
        } else if name.ends_with(".rs") && !for_tests {
            found.push(path);
        }
    }
}

/// Texts in quotes, of what is not a test.
fn said() -> BTreeSet<String> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(root().join("crates")).unwrap() {
        let path = entry.unwrap().path();
        if !path.ends_with("everpoint-testkit") && path.join("src").is_dir() {
            sources(&path.join("src"), &mut files);
        }
    }
    let mut codes = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let shipped = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        codes.extend(
            shipped.split('"').filter(|text| is_code(text) || PLAIN.contains(text)).map(str::to_owned),
        );
    }
    codes
}

fn listed() -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join("docs/ERRORS.md")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next().map(str::to_owned));
    rows.collect()
}

#[test]
fn the_page_of_errors_is_complete() {
    let (said, listed) = (said(), listed());
    assert!(said.len() > 50, "the search for codes found only {said:?}");
    let missing: Vec<_> = said.difference(&listed).collect();
    let stale: Vec<_> = listed.difference(&said).collect();
    assert!(
        missing.is_empty() && stale.is_empty(),
        "docs/ERRORS.md lacks {missing:?} and has in vain {stale:?}"
    );
}
