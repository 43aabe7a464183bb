//! What must be right before a backup begins.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code, reason = "shared with other scenarios")]
mod support_scenarios;

use std::time::Duration;

use support_scenarios::{CLUSTER, World, configure, found, quiet};

/// Tries to take a backup that must be refused; returns the error.
fn refused(world: &World) -> serde_json::Value {
    let ran = world.everpoint.try_run(&["--json", "backup", CLUSTER]).unwrap();
    assert_eq!(ran.status.code(), Some(1), "{}{}", ran.out, ran.err);
    let said: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(said["error"]["code"], "backup.unhealthy", "{said}");
    said["error"].clone()
}

#[test]
fn no_backup_is_taken_from_a_standby_that_is_late_until_it_has_caught_up() {
    if !found(15) {
        return;
    }
    let primary = quiet(15).start().unwrap();
    primary.psql("CREATE TABLE t AS SELECT 1 AS n").unwrap();
    let world = World::new(primary.standby().unwrap());
    configure(&world, |text| text + "\n[limits]\nstandby_lag = \"1s\"\n");
    primary.psql("INSERT INTO t VALUES (2)").unwrap();
    let replayed = "SELECT pg_last_xact_replay_timestamp() IS NOT NULL";
    world.wait_for("a commit is replayed", || world.source.psql(replayed).unwrap() == "t");
    world.source.psql("SELECT pg_wal_replay_pause()").unwrap();
    primary.psql("INSERT INTO t SELECT generate_series(1, 1000)").unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    let error = refused(&world);
    assert!(error["message"].as_str().unwrap().contains("standby_lag"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("pg_wal_replay_resume"), "{error}");
    world.source.psql("SELECT pg_wal_replay_resume()").unwrap();
    world.backup(&[]);
}

#[test]
fn no_backup_is_taken_beside_an_archive_that_fails_unless_that_is_wanted() {
    if !found(15) {
        return;
    }
    let source =
        quiet(15).setting("archive_mode", "on").setting("archive_command", "/bin/false").start().unwrap();
    let world = World::new(source);
    world.source.psql("SELECT pg_switch_wal()").unwrap();
    let failing = "SELECT failed_count > 0 FROM pg_stat_archiver";
    world.wait_for("archiving fails", || world.source.psql(failing).unwrap() == "t");
    let error = refused(&world);
    assert!(error["message"].as_str().unwrap().contains("archiving fails"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("archive_command"), "{error}");
    world.backup(&["--skip-checks"]);
}
