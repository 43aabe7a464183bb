//! What is understood of what people type, and what is said where it is not: times, zones, names.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail loudly"
)]

use std::path::Path;
use std::process::Output;

use assert_cmd::Command;
use tempfile::TempDir;

/// The program in a directory of its own, with nothing of the caller's environment that could matter.
fn everpoint(directory: &Path) -> Command {
    let mut command = Command::cargo_bin("everpoint").unwrap();
    command
        .current_dir(directory)
        .env_remove("EVERPOINT_CONFIG")
        .env_remove("EVERPOINT_KEY")
        .env("TZ", "UTC");
    command
}

fn run(directory: &Path, arguments: &[&str]) -> Output {
    everpoint(directory).args(arguments).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A directory with a configuration of one repository and one cluster that no server has.
fn configured() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let config = "[repository.local]\nurl = \"repo\"\nkey_file = \"key\"\n\n\
                  [cluster.order-db]\npostgres = \"postgres://nobody@127.0.0.1:1/postgres\"\n";
    std::fs::write(directory.path().join("everpoint.toml"), config).unwrap();
    directory
}

#[test]
fn a_time_without_zone_is_refused_where_the_zone_is_not_known() {
    let directory = configured();
    assert_eq!(code(&run(directory.path(), &["init"])), 0);
    let restore = |zone: &str, to: &str| {
        let target = directory.path().join("target").display().to_string();
        let arguments = ["restore", "order-db", &target, "--to", to];
        // No database of the machine: the program has its own.
        everpoint(directory.path()).env("TZ", zone).env("TZDIR", "/nowhere").args(arguments).output().unwrap()
    };
    for (zone, to) in [("Mars/Olympus", "2026-01-29 14:30"), (":Atlantis", "yesterday 14:30")] {
        let output = restore(zone, to);
        assert_eq!(code(&output), 2, "{}", stderr(&output));
        assert!(stderr(&output).contains("time zone is not known"), "{}", stderr(&output));
    }
    // What needs no zone goes on; with a known one, what was understood is shown back.
    assert_eq!(code(&restore("Mars/Olympus", "2026-01-29 14:30+01")), 3);
    assert_eq!(code(&restore("Mars/Olympus", "-2h")), 3);
    let output = restore("Europe/Berlin", "29.01.2026 14:30");
    assert_eq!(code(&output), 3);
    assert!(stderr(&output).contains("target: 2026-01-29 14:30:00.000000 +01:00"), "{}", stderr(&output));
    let output = restore("Europe/Berlin", "tomorrow 14:30");
    assert!(stderr(&output).contains("is in the future"), "{}", stderr(&output));
    let hold = ["hold", "order-db", "20260129-143000F", "--until", "2033-01-31"];
    let output = everpoint(directory.path()).env("TZ", "Mars/Olympus").args(hold).output().unwrap();
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("time zone is not known"), "{}", stderr(&output));
}

#[test]
fn unknown_names_list_the_known_ones() {
    let directory = configured();
    assert_eq!(code(&run(directory.path(), &["init"])), 0);
    for (arguments, words) in [
        (&["list", "orderdb"][..], &["did you mean order-db?", "the clusters are: order-db"][..]),
        (&["list", "x"], &["the clusters are: order-db"]),
        (&["--repo", "lokal", "list"], &["did you mean local?", "the repositories are: local"]),
        (&["init", "cloud"], &["the repositories are: local"]),
        (&["key", "confirm", "cloud"], &["the repositories are: local"]),
        (&["hold", "order-db", "20260129-143000F"], &["there are no backups"]),
        (&["offsite", "status", "--provider", "vault"], &["there are no providers"]),
        (&["help", "restor"], &["did you mean restore?"]),
    ] {
        let output = run(directory.path(), arguments);
        assert_eq!(code(&output), 2, "{arguments:?}: {}", stderr(&output));
        for word in words {
            assert!(stderr(&output).contains(word), "{arguments:?}: {} lacks {word}", stderr(&output));
        }
    }
}

#[test]
fn before_init_that_is_named_and_the_file_that_is_looked_for_is_where_it_is_looked_for() {
    let directory = configured();
    for arguments in [&["backup", "order-db"][..], &["list"], &["check"]] {
        let output = run(directory.path(), arguments);
        let said = [output.stdout.clone(), output.stderr.clone()].concat();
        let said = String::from_utf8(said).unwrap().replace('\n', " ");
        assert!(code(&output) != 0 && said.contains("to make both: everpoint init"), "{arguments:?}: {said}");
    }
    let empty = tempfile::tempdir().unwrap();
    let system = empty.path().join("nowhere.toml");
    let output =
        everpoint(empty.path()).env("EVERPOINT_SYSTEM_CONFIG", &system).arg("list").output().unwrap();
    assert!(stderr(&output).replace('\n', " ").contains("nowhere.toml"), "{}", stderr(&output));
}

#[test]
fn a_key_that_is_none_or_elsewhere_is_told_as_what_it_is() {
    let directory = configured();
    let path = |name: &str| directory.path().join(name);
    let age = run(directory.path(), &["--key-file", "age.txt", "init", "local"]);
    assert_eq!(code(&age), 0, "{}", stderr(&age));
    std::fs::rename(path("age.txt"), path("key")).unwrap();
    // The output of `key age`, kept in a file.
    let identity = run(directory.path(), &["key", "age"]);
    std::fs::write(path("age.txt"), &identity.stdout).unwrap();
    let output = run(directory.path(), &["--key-file", "age.txt", "list"]);
    assert_eq!(code(&output), 4, "{}", stderr(&output));
    assert!(stderr(&output).contains("is an age identity") && stderr(&output).contains("everpoint-key-1-"));
    let output = run(directory.path(), &["--repo", "./new", "--key-file", "age.txt", "init"]);
    assert!(code(&output) == 2 && stderr(&output).contains("is an age identity"), "{}", stderr(&output));
    std::fs::rename(path("key"), path("key.old")).unwrap();
    for arguments in [&["list"][..], &["init"]] {
        let output = run(directory.path(), arguments);
        assert!(code(&output) == 2 && stderr(&output).contains("key.old: look"), "{}", stderr(&output));
    }
    let config = std::fs::read_to_string(path("everpoint.toml")).unwrap();
    std::fs::write(path("everpoint.toml"), config.replace("key_file", "kepe")).unwrap();
    let output = run(directory.path(), &["list"]);
    assert!(!stderr(&output).contains("did you mean"), "{}", stderr(&output));
}
