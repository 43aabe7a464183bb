//! Every `everpoint` command in README, guide and runbooks is understood by the program as it stands there.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail loudly")]

use std::path::Path;
use std::process::Command;

const DOCUMENTS: [&str; 3] = ["README.md", "docs/GUIDE.md", "docs/RUNBOOKS.md"];

/// Commands in the `sh` blocks of a document, without comments.
fn commands(text: &str) -> Vec<String> {
    let (mut inside, mut found) = (false, Vec::new());
    for line in text.lines() {
        if line.starts_with("```") {
            inside = line == "```sh";
        } else if inside && line.starts_with("everpoint ") {
            let line = line.split(" #").next().unwrap_or_default();
            found.push(line.trim().trim_end_matches('&').trim().to_owned());
        }
    }
    found
}

#[test]
fn every_command_in_the_documents_is_understood() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let program = Path::new(env!("CARGO_BIN_EXE_everpoint"));
    let mut tried = 0;
    for document in DOCUMENTS {
        let text = std::fs::read_to_string(root.join(document)).unwrap();
        for command in commands(&text) {
            // An empty directory: what is understood then fails for want of a configuration, a repository or a server.
            let empty = tempfile::tempdir().unwrap();
            let typed = command.replacen("everpoint", "\"$EVERPOINT\" --json", 1);
            let typed = typed.replace("/mnt/backup", "./none");
            // It would make a repository and ask a server: only its words are tried.
            let only_words = command.starts_with("everpoint protect");
            let typed = if only_words { format!("{typed} --help") } else { typed };
            let output = everpoint_testkit::clean(&mut Command::new("sh"))
                .args(["-c", &typed])
                .env("EVERPOINT", program)
                .current_dir(empty.path())
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            let understood =
                !said.contains("\"code\":\"usage\"") && !said.contains("\"code\":\"restore.target\"");
            assert!(understood, "{document}: {command}\n{said}");
            let done = output.status.success();
            assert_eq!(done, only_words, "{document}: {command} did something in an empty directory");
            tried += 1;
        }
    }
    assert!(tried > 15, "only {tried} commands were found");
}
