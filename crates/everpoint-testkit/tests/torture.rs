//! The torture programs with small counts: `make torture` runs them with large ones.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail loudly")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// The program that the tests were built with.
fn everpoint() -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_everpoint-torture")).with_file_name("everpoint");
    std::env::var_os("EVERPOINT_BINARY").map_or(beside, PathBuf::from)
}

fn torture(arguments: &[&str]) {
    let done = Command::new(env!("CARGO_BIN_EXE_everpoint-torture"))
        .args(arguments)
        .arg("--binary")
        .arg(everpoint())
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{arguments:?}\n{out}\n{err}");
}

#[test]
fn moments_of_a_stream_are_exact() {
    torture(&["exactness", "--version", "15", "--capture", "stream", "--count", "4", "--seconds", "6"]);
}

#[test]
fn moments_of_an_archive_are_exact() {
    torture(&["exactness", "--version", "18", "--capture", "archive", "--count", "4", "--seconds", "6"]);
}

#[test]
fn kills_lose_nothing() {
    torture(&["kill9", "--version", "15", "--capture", "stream", "--count", "1"]);
}

#[test]
fn backups_stand_alone_where_nothing_captures() {
    torture(&["kill9", "--version", "15", "--capture", "none", "--count", "1"]);
}

#[test]
fn a_daemon_stays_flat_and_keeps_up() {
    torture(&["serve", "--minutes", "0.2", "--rate", "20", "--scale", "1", "--lag", "10"]);
}

#[test]
fn the_call_that_failed_costs_no_second() {
    torture(&["days", "--count", "3", "--failed", "2", "--moments", "2"]);
}

#[test]
fn kills_around_a_call_never_make_two() {
    torture(&["calls", "--count", "4", "--moments", "1"]);
}

#[test]
fn only_proven_places_change_in_trees_of_all_kinds() {
    torture(&["trees", "--seed", "21", "--rows", "25"]);
}

/// A directory that only root may write into.
#[test]
fn a_tree_that_root_restored_is_open_to_its_server() {
    torture(&["trees", "--seed", "32", "--first", "275", "--count", "1"]);
}

fn life(seed: &str, version: &str, mode: &str, steps: &str) {
    torture(&[
        "life",
        "--count",
        "1",
        "--seed",
        seed,
        "--version",
        version,
        "--mode",
        mode,
        "--steps",
        steps,
    ]);
}

#[test]
fn production_is_restored_back_and_forth_and_its_copy_refreshed() {
    life("1", "15", "capture", "in-place-twice,copy-refreshed,in-place-latest");
}

#[test]
fn tablespaces_come_and_go_beside_copies_and_restores() {
    life("2", "17", "archive", "tablespace-created,seeded-copy,in-place-before-tablespace");
}

#[test]
fn a_standby_and_a_copy_become_production() {
    life("3", "18", "serve", "failover-after-crash,in-place-before-fork,adopt,new-standby");
}

#[test]
fn harm_that_is_done_by_hand_is_seen() {
    let done = Command::new(env!("CARGO_BIN_EXE_everpoint-torture"))
        .args(["life", "--seed", "1", "--count", "1", "--version", "15", "--mode", "capture"])
        .args(["--steps", "checkpoint", "--sabotage", "production-row", "--binary"])
        .arg(everpoint())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(!done.status.success() && said.contains("1 differences"), "{said}");
}
