//! A real pg_upgrade: the upgraded server is another cluster, and nothing is restored across the change.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail loudly"
)]

#[allow(dead_code, reason = "shared with other scenarios")]
mod support_scenarios;

use std::path::Path;

use everpoint_testkit::{PgCluster, StopMode};
use serde_json::Value;
use support_scenarios::{CLUSTER, World, configure, found, quiet};

/// Exit codes.
const SHORTFALL: i32 = 3;
const DAMAGED: i32 = 4;

/// A server of the next major version with what the source has; the source is stopped.
fn upgrade(world: &mut World, to: u32) -> PgCluster {
    world.source.stop(StopMode::Fast).unwrap();
    let mut upgraded = quiet(to).create().unwrap();
    let mut command = upgraded.install().command("pg_upgrade").unwrap();
    command.current_dir(upgraded.home().path()).args(["-U", "postgres"]);
    command.arg("-b").arg(world.source.install().bin()).arg("-B").arg(upgraded.install().bin());
    command.arg("-d").arg(world.source.data_dir()).arg("-D").arg(upgraded.data_dir());
    command.arg("-s").arg(upgraded.socket_dir());
    let ran = command.output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
    upgraded.start().unwrap();
    upgraded
}

fn programs_of(server: &PgCluster) -> String {
    server.install().bin().display().to_string()
}

/// The configuration as the operator changes it after an upgrade.
fn point_to(world: &World, upgraded: &PgCluster) {
    let old = &world.source;
    let pairs = [
        (old.port().to_string(), upgraded.port().to_string()),
        (old.data_dir().display().to_string(), upgraded.data_dir().display().to_string()),
        (programs_of(old), programs_of(upgraded)),
    ];
    configure(world, |text| pairs.iter().fold(text, |text, (from, to)| text.replace(from, to)));
}

fn words(world: &World, target: &str) -> String {
    world.restore(target, &[]).psql("SELECT string_agg(word, ' ' ORDER BY word) FROM t")
}

/// The restore must be refused before anything is written; returns the error and the exit code.
fn refused(world: &World, more: &[&str]) -> (Value, Option<i32>) {
    let place = world.place();
    let arguments = [&["--json", "restore", CLUSTER, place.to_str().unwrap()], more].concat();
    let ran = world.everpoint.try_run(&arguments).unwrap();
    assert!(!ran.status.success() && !place.exists(), "{}", ran.told(&arguments));
    (serde_json::from_str::<Value>(&ran.out).unwrap()["error"].clone(), ran.status.code())
}

#[test]
fn before_and_after_an_upgrade_come_back_and_nothing_between() {
    if !found(14) || !found(16) {
        return;
    }
    let mut world = World::new(quiet(14).start().unwrap());
    let now = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
    world.source.psql("CREATE TABLE t AS SELECT 'a' AS word").unwrap();
    world.capture();
    world.backup(&[]);
    world.source.psql("INSERT INTO t VALUES ('b')").unwrap();
    world.settle(&world.source, 1);
    let before = world.source.psql(now).unwrap();
    world.source.psql("INSERT INTO t VALUES ('c')").unwrap();
    world.settle(&world.source, 1);
    let upgraded = upgrade(&mut world, 16);
    world.stop_capture();
    point_to(&world, &upgraded);
    for arguments in [&["capture", CLUSTER, "--once"][..], &["backup", CLUSTER]] {
        let ran = world.everpoint.try_run(arguments).unwrap();
        let told = ran.told(arguments);
        assert_eq!(ran.status.code(), Some(DAMAGED), "{told}");
        assert!(told.contains("system identifier") && told.contains("everpoint adopt"), "{told}");
    }
    let between = upgraded.psql(now).unwrap();
    world.everpoint.run(&["adopt", CLUSTER]).unwrap();
    // The backups that there are, however young, are of what it was before.
    for capture in [false, true] {
        if capture {
            world.everpoint.run(&["capture", CLUSTER, "--once"]).unwrap();
        }
        for command in ["status", "check"] {
            let ran = world.everpoint.try_run(&[command, CLUSTER]).unwrap();
            let told = format!("{}{}", ran.out, ran.err);
            assert_eq!(ran.status.code(), Some(1), "{command} {told}");
            assert!(told.contains("the present can't be brought back"), "{command} {told}");
        }
    }
    world.backup(&[]);
    for command in ["status", "check"] {
        let ran = world.everpoint.try_run(&[command, CLUSTER]).unwrap();
        assert!(!format!("{}{}", ran.out, ran.err).contains("the present can't"), "{}", ran.out);
    }
    upgraded.psql("INSERT INTO t VALUES ('d')").unwrap();
    world.everpoint.run(&["capture", CLUSTER, "--once"]).unwrap();
    assert_eq!(words(&world, "latest"), "a b c d");
    let (error, code) = refused(&world, &["--to", &between]);
    assert_eq!((code, &error["code"]), (Some(SHORTFALL), &"restore.shortfall".into()), "{error}");
    let hint = error["hint"].as_str().unwrap();
    assert!(hint.contains("nearest before") && hint.contains("nearest after"), "{error}");
    // The configuration names the new programs; unless the old ones are found, that is said before anything is written.
    if !Path::new("/usr/lib/postgresql/14/bin/postgres").exists() {
        let (error, _) = refused(&world, &["--to", &before, "--start"]);
        assert_eq!(error["code"], "pg.programs", "{error}");
    }
    configure(&world, |text| text.replace(&programs_of(&upgraded), &programs_of(&world.source)));
    assert_eq!(words(&world, &before), "a b");

    // The upgrade is given up: the old server is production again, and `latest` is what that has.
    let pairs = [
        (upgraded.port().to_string(), world.source.port().to_string()),
        (upgraded.data_dir().display().to_string(), world.source.data_dir().display().to_string()),
    ];
    drop(upgraded);
    configure(&world, |text| pairs.iter().fold(text, |text, (from, to)| text.replace(from, to)));
    world.source.start().unwrap();
    world.source.psql("INSERT INTO t VALUES ('e')").unwrap();
    let check = world.everpoint.report(&["check", CLUSTER]).unwrap().to_string();
    assert!(!check.contains("another cluster") && !check.contains("the present can't"), "{check}");
    world.everpoint.run(&["capture", CLUSTER, "--once"]).unwrap();
    assert_eq!(words(&world, "latest"), "a b c e");
}
