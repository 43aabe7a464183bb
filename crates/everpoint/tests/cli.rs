//! The command line as programs see it: exit codes, JSON, help, completions.

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

const COMMANDS: &[&[&str]] = &[
    &["protect"],
    &["init"],
    &["check"],
    &["capture"],
    &["archive-push"],
    &["archive-get"],
    &["backup"],
    &["list"],
    &["status"],
    &["restore"],
    &["restore-point"],
    &["adopt"],
    &["forget"],
    &["key"],
    &["key", "rotate"],
    &["key", "confirm"],
    &["help"],
    &["completion"],
    &["mock-offsite"],
    &["man"],
];

/// The program in a directory of its own, with nothing of the caller's environment that could matter.
fn everpoint(directory: &Path) -> Command {
    let mut command = Command::cargo_bin("everpoint").unwrap();
    for foreign in everpoint_testkit::foreign_variables() {
        command.env_remove(foreign);
    }
    let (system, home) = (everpoint_testkit::NO_SYSTEM_CONFIG, everpoint_testkit::NO_HOME);
    command.current_dir(directory).env(system.0, system.1).env(home.0, home.1).env("TZ", "UTC");
    command
}

fn run(directory: &Path, arguments: &[&str]) -> Output {
    everpoint(directory).args(arguments).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    let text = stdout(output);
    assert_eq!(text.trim().lines().count(), 1, "one object on one line: {text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A directory with a configuration of one encrypted repository and one cluster that no server has.
fn configured() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let config = "[repository.local]\nurl = \"repo\"\nkey_file = \"key\"\n\n\
                  [cluster.order-db]\npostgres = \"postgres://nobody@127.0.0.1:1/postgres\"\n";
    std::fs::write(directory.path().join("everpoint.toml"), config).unwrap();
    directory
}

#[test]
fn every_command_has_help_with_an_example() {
    let directory = tempfile::tempdir().unwrap();
    for command in COMMANDS {
        let output = run(directory.path(), &[command, &["--help"][..]].concat());
        assert_eq!(code(&output), 0, "{command:?}");
        let help = stdout(&output);
        assert!(help.contains("Example") && help.contains("everpoint "), "{command:?}: {help}");
    }
}

/// What users and scripts rely on changes only on purpose: then run the test with `UPDATE_SNAPSHOTS=1`.
#[test]
fn help_is_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let mut all = String::new();
    for command in std::iter::once(&[][..]).chain(COMMANDS.iter().copied()) {
        let output =
            everpoint(directory.path()).env("COLUMNS", "100").args(command).arg("-h").output().unwrap();
        all.push_str(&format!("$ everpoint {} -h\n{}\n", command.join(" "), stdout(&output)));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots/help.txt");
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, &all).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), all, "see the comment of this test");
}

#[test]
fn wrong_usage_ends_with_2() {
    let directory = tempfile::tempdir().unwrap();
    for arguments in [
        &["frobnicate"][..],
        &[],
        &["restore", "order-db"],
        &["backup", "order-db", "--full", "--incremental"],
        &["backup", "order-db", "--label", "novalue"],
        &["restore", "order-db", "/tmp/x", "--map", "relative=/x"],
        &["restore", "order-db", "/tmp/x", "--port", "5433"],
        &["restore", "order-db", "/tmp/x", "--to", "yesterday"],
        &["list"],
    ] {
        let output = run(directory.path(), arguments);
        assert_eq!(code(&output), 2, "{arguments:?}: {}", stderr(&output));
        assert!(stdout(&output).is_empty(), "{arguments:?}: {}", stdout(&output));
    }
}

#[test]
fn errors_are_one_object_with_json() {
    let directory = tempfile::tempdir().unwrap();
    for arguments in [&["frobnicate", "--json"][..], &["--json", "list"], &["list", "--json"]] {
        let output = run(directory.path(), arguments);
        assert_eq!(code(&output), 2, "{arguments:?}");
        let error = &json(&output)["error"];
        for field in ["code", "operation", "object", "message"] {
            assert!(error[field].is_string(), "{arguments:?}: {field} of {error}");
        }
        assert!(error["retryable"].is_boolean());
        assert!(error.get("cause").is_some() && error.get("hint").is_some());
    }
}

#[test]
fn archive_get_never_says_not_there_unless_it_is_certain() {
    let directory = tempfile::tempdir().unwrap();
    let segment = "000000010000000000000001";
    let uncertain = [
        &["archive-get"][..],
        &["archive-get", "--frobnicate"],
        &["archive-get", "order-db", segment, "x"],
        &["--config", "/nowhere.toml", "archive-get", "order-db", segment, "x"],
        &["--repo", "/nowhere", "archive-get", "order-db", segment, "x"],
    ];
    for arguments in uncertain {
        assert_eq!(code(&run(directory.path(), arguments)), 126, "{arguments:?}");
    }
    std::fs::write(directory.path().join("recovery.signal"), "").unwrap();
    assert_eq!(code(&run(directory.path(), uncertain[2])), 126);
    std::fs::write(directory.path().join("standby.signal"), "").unwrap();
    for arguments in uncertain {
        assert_eq!(code(&run(directory.path(), arguments)), 1, "{arguments:?}");
    }
}

#[test]
fn a_repository_without_any_log_of_the_cluster_is_not_certain_either() {
    let directory = configured();
    assert_eq!(code(&run(directory.path(), &["init"])), 0);
    let output = run(directory.path(), &["archive-get", "order-db", "000000010000000000000001", "x"]);
    assert_eq!(code(&output), 126, "{}", stderr(&output));
    assert!(!directory.path().join("x").exists());
}

#[test]
fn a_mistake_in_the_configuration_is_shown_with_its_place() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("everpoint.toml"), "[repository.local]\nuri = \"/x\"\n").unwrap();
    let output = run(directory.path(), &["list"]);
    assert_eq!(code(&output), 2);
    let text = stderr(&output);
    for part in ["line 2, column 1", "uri = …", "did you mean `url`?"] {
        assert!(text.contains(part), "{text} lacks {part}");
    }
    assert_eq!(json(&run(directory.path(), &["list", "--json"]))["error"]["code"], "config.invalid");
}

#[test]
fn a_mongodb_cluster_is_recognised_and_said_to_come_later() {
    let directory = configured();
    let path = directory.path().join("everpoint.toml");
    let config = std::fs::read_to_string(&path).unwrap() + "[cluster.shop]\nmongodb = \"mongodb://db2/\"\n";
    std::fs::write(&path, config).unwrap();
    assert_eq!(code(&run(directory.path(), &["init"])), 0);
    let output = run(directory.path(), &["backup", "shop"]);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("MongoDB"), "{}", stderr(&output));
    let output = run(directory.path(), &["list"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stdout(&output).contains("order-db") && stderr(&output).contains("shop"));
}

#[test]
fn init_makes_key_and_repository_once() {
    let directory = configured();
    let output = run(directory.path(), &["init", "--json"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let first = json(&output)["repositories"][0].clone();
    assert_eq!((first["created"].as_bool(), first["encrypted"].as_bool()), (Some(true), Some(true)));
    let key = std::fs::read_to_string(directory.path().join("key")).unwrap();
    assert!(key.starts_with("everpoint-key-1-"));
    let again = json(&run(directory.path(), &["init", "--json"]))["repositories"][0].clone();
    assert_eq!(again["created"], false);
    assert_eq!(again["id"], first["id"]);
    assert_eq!(std::fs::read_to_string(directory.path().join("key")).unwrap(), key);
}

#[test]
fn a_repository_without_key_is_said_to_be_unencrypted() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("everpoint.toml"), "[repository.local]\nurl = \"repo\"\n").unwrap();
    let output = run(directory.path(), &["init"]);
    assert_eq!(code(&output), 0);
    assert!(stdout(&output).contains("NOT ENCRYPTED"), "{}", stdout(&output));
}

#[test]
fn a_wrong_key_ends_with_4_and_a_missing_one_is_usage() {
    let directory = configured();
    assert_eq!(code(&run(directory.path(), &["init"])), 0);
    let wrong = directory.path().join("wrong");
    std::fs::write(&wrong, "a passphrase that is not the key\n").unwrap();
    let output = run(directory.path(), &["--key-file", "wrong", "list"]);
    assert_eq!(code(&output), 4, "{}", stderr(&output));
    let output = run(directory.path(), &["--key-file", "nothing", "list"]);
    assert_eq!(code(&output), 2, "{}", stderr(&output));
}

#[test]
fn a_repository_by_hand_needs_no_configuration() {
    let directory = configured();
    assert_eq!(code(&run(directory.path(), &["init"])), 0);
    std::fs::write(directory.path().join("everpoint.toml"), "this is no TOML").unwrap();
    let by_hand = ["--repo", "./repo", "--key-file", "key"];
    let output = run(directory.path(), &[&by_hand[..], &["list", "order-db", "--json"]].concat());
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(json(&output)["clusters"][0]["name"], "order-db");
    let target = directory.path().join("target").display().to_string();
    let output = run(directory.path(), &[&by_hand[..], &["restore", "order-db", &target, "--json"]].concat());
    assert_eq!(code(&output), 3, "{}{}", stdout(&output), stderr(&output));
    assert!(!Path::new(&target).exists(), "nothing may be written");
}

#[test]
fn a_key_is_rotated_and_asked_for_again() {
    let directory = configured();
    assert_eq!(code(&run(directory.path(), &["init"])), 0);
    assert_eq!(code(&run(directory.path(), &["key", "confirm"])), 0);
    let old = std::fs::read_to_string(directory.path().join("key")).unwrap();
    let output = run(directory.path(), &["key", "rotate", "--json"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(json(&output)["retired"], serde_json::json!([1]));
    assert!(!stdout(&output).contains("everpoint-key-1-"), "a key must not be printed");
    let new = std::fs::read_to_string(directory.path().join("key")).unwrap();
    assert_ne!(old, new);
    assert_eq!(std::fs::read_to_string(directory.path().join("key.old")).unwrap(), old);
    assert_eq!(code(&run(directory.path(), &["list"])), 0);
    assert_eq!(code(&run(directory.path(), &["--key-file", "key.old", "list"])), 4);
    let check = json(&run(directory.path(), &["check", "--json"]));
    let lines = check["clusters"][0]["lines"].as_array().unwrap().clone();
    let escrow = lines.iter().find(|line| line["name"] == "key_escrow").unwrap();
    assert_eq!(escrow["state"], "warning", "a new key has to be stored elsewhere again");
}

#[test]
fn a_dead_server_is_an_error_of_check_and_of_status_which_tells_what_is_known() {
    let directory = configured();
    assert_eq!(code(&run(directory.path(), &["init"])), 0);
    let output = run(directory.path(), &["check", "order-db", "--json"]);
    assert_eq!(code(&output), 1);
    assert_eq!(json(&output)["clusters"][0]["ok"], false);
    let output = run(directory.path(), &["status", "--json"]);
    assert_eq!(code(&output), 1, "{}", stderr(&output));
    let status = json(&output)["clusters"][0].clone();
    assert_eq!(status["health"], "error");
    assert!(status["server"].is_null() && status["server_error"].is_string());
}

#[test]
fn completions_and_manual_pages_are_made() {
    let directory = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run(directory.path(), &["completion", shell]);
        assert_eq!(code(&output), 0, "{shell}");
        assert!(stdout(&output).contains("restore-point"), "{shell}");
    }
    let output = run(directory.path(), &["man", "pages"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    for command in COMMANDS {
        let page = directory.path().join(format!("pages/everpoint-{}.1", command.join("-")));
        let text =
            std::fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
        assert!(text.contains(".TH"), "{}", page.display());
    }
    assert!(
        !directory.path().join("pages/everpoint-archive-prefetch.1").exists(),
        "hidden commands have none"
    );
}

/// (What it writes once a server has answered, protect_first.rs tries on real ones.)
#[test]
fn protect_writes_nothing_where_no_server_answers() {
    let directory = tempfile::tempdir().unwrap();
    let protect = |arguments: &[&str]| {
        let output = run(directory.path(), &[&["protect"][..], arguments, &["--json"]].concat());
        assert_eq!(code(&output), 1, "{arguments:?}: {}", stderr(&output));
        assert_eq!(json(&output)["error"]["code"], "pg.connection", "{arguments:?}");
        let shown = stdout(&output) + &stderr(&output);
        assert!(!shown.contains("s3cret") && !shown.contains("everpoint-key-1-"), "{shown}");
    };
    protect(&["postgres://me:s3cret@127.0.0.1:1/shop", "--repo", "./repo", "--escrow", "copy/key"]);
    protect(&["host=127.0.0.1 port=1 user=me dbname=shop", "--no-encryption"]);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    let here = configured();
    let before = std::fs::read_to_string(here.path().join("everpoint.toml")).unwrap();
    let output = run(here.path(), &["protect", "postgres://x@127.0.0.1:3/y", "--name", "order-db"]);
    assert_eq!(code(&output), 2, "a taken name: {}", stderr(&output));
    let output = run(here.path(), &["protect", "mysql://x@127.0.0.1:3/y"]);
    assert_eq!(code(&output), 2, "no PostgreSQL: {}", stderr(&output));
    assert_eq!(std::fs::read_to_string(here.path().join("everpoint.toml")).unwrap(), before);
    assert_eq!(std::fs::read_dir(here.path()).unwrap().count(), 1);
}
