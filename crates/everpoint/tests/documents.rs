//! Every `everpoint` command in README, guide and runbooks is understood by the program as it stands there.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail loudly")]

use std::path::Path;
use std::process::Command;

const DOCUMENTS: [&str; 3] = ["README.md", "docs/GUIDE.md", "docs/RUNBOOKS.md"];

/// Commands that ask a server or write something without any configuration.
const FREE: [&str; 5] = ["protect", "init --new", "man", "completion", "--version"];

/// Commands in the `sh` blocks of a document, without comments.
fn commands(text: &str) -> Vec<String> {
    let (mut inside, mut found) = (false, Vec::new());
    for line in text.lines() {
        if line.starts_with("```") {
            inside = line == "```sh";
        } else if inside && line.starts_with("everpoint ") {
            let line = line.split(" #").next().unwrap_or_default();
            // Nothing is written outside of the test's directory.
            let line = line.split(" > ").next().unwrap_or_default();
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
            // These need no configuration to do something: only their words are tried.
            let only_words = FREE.iter().any(|free| command.starts_with(&format!("everpoint {free}")));
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

/// The trial on a Debian needs root and minutes; that it types all that there is needs neither.
#[test]
fn every_block_is_typed_by_the_trial_or_listed_with_its_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = Command::new(root.join("scripts/debian-trial")).arg("--check").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    // An unknown block is seen: the check is not green because it sees nothing.
    let copy = tempfile::tempdir().unwrap();
    let list = [
        "-c",
        "cp -r docs scripts \"$0\" && printf '\\n## New\\n\\n```sh\\nls\\n```\\n' >> \"$0/docs/GUIDE.md\"",
    ];
    let copied = Command::new("sh").args(list).arg(copy.path()).current_dir(&root).status().unwrap();
    assert!(copied.success());
    let output = Command::new(copy.path().join("scripts/debian-trial")).arg("--check").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && said.contains("GUIDE: New 1: neither"), "{said}");
}
