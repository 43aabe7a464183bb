//! The commands of docs/RUNBOOKS.md.

use std::fs;
use std::path::Path;

/// Title and commands of each runbook; of one that has commands for systems other than Debian, these are another one.
pub(crate) fn runbooks() -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/RUNBOOKS.md");
    let (mut found, mut inside): (Vec<(String, String)>, bool) = (Vec::new(), false);
    for line in fs::read_to_string(path).unwrap().lines() {
        if let Some(title) = line.strip_prefix("## ").or_else(|| line.strip_prefix("### ")) {
            found.push((title.to_owned(), String::new()));
        } else if line.starts_with("```") {
            inside = line == "```sh";
        } else if let Some((_, script)) = found.last_mut().filter(|_| inside) {
            script.push_str(line);
            script.push('\n');
        }
    }
    found
}

/// The commands of one.
pub(crate) fn script(title: &str) -> String {
    runbooks().into_iter().find(|(known, _)| known == title).unwrap().1
}
