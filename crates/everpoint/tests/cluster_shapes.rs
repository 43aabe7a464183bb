//! Clusters of every shape: sizes of log segments, checksums, damage, unlogged tables.

// Helpers of tests fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code, reason = "shared with other scenarios")]
mod support_scenarios;

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use everpoint_testkit::{PgCluster, PgClusterBuilder, StopMode, field, text};
use serde_json::Value;
use support_scenarios::{CLUSTER, World, forget_files, found, quiet};

/// The listed backup of this label.
fn listed(world: &World, label: &str) -> Value {
    let list = world.everpoint.json(&["list", CLUSTER]).unwrap();
    let backups = field(&list, "/clusters/0/backups").unwrap().as_array().unwrap().clone();
    let mut with_label = backups.into_iter().filter(|backup| backup["label"] == label);
    with_label.next().unwrap_or_else(|| panic!("{label} is not in {list}"))
}

const COUNT: &str = "SELECT count(*), sum(n) FROM t";

/// Full and incremental backup, several switches of the segment, restores to the end of each and to between.
fn backed_up_and_restored(builder: PgClusterBuilder) {
    let source = builder.start().unwrap();
    source.psql("CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n").unwrap();
    let mut world = World::new(source);
    world.capture();
    let first = world.backup(&["--full"]);
    for _ in 0..3 {
        world.source.psql("INSERT INTO t SELECT n FROM generate_series(1, 10000) n").unwrap();
        world.source.psql("SELECT pg_switch_wal()").unwrap();
    }
    world.everpoint.run(&["restore-point", CLUSTER, "between"]).unwrap();
    world.source.psql("INSERT INTO t SELECT n FROM generate_series(1, 500) n").unwrap();
    let second = world.backup(&["--incremental"]);
    world.source.psql("DELETE FROM t WHERE n > 900").unwrap();
    world.settle(&world.source, 1);
    let targets = [
        (format!("backup:{first}"), "1000|500500"),
        ("name:between".to_owned(), "31000|150515500"),
        (format!("backup:{second}"), "31500|150640750"),
        ("latest".to_owned(), "4100|1747050"),
    ];
    for (target, expected) in targets {
        let copy = world.restore(&target, &[]);
        assert_eq!(copy.psql(COUNT), expected, "{target}");
        copy.psql("INSERT INTO t VALUES (0)");
        copy.stop_and_check(&world);
    }
}

#[test]
fn log_segments_of_1_mib() {
    if found(15) {
        backed_up_and_restored(quiet(15).wal_segsize_mb(1));
    }
}

#[test]
fn log_segments_of_64_mib() {
    if found(18) {
        backed_up_and_restored(
            quiet(18).wal_segsize_mb(64).setting("max_wal_size", "256MB").setting("min_wal_size", "128MB"),
        );
    }
}

#[test]
fn a_cluster_without_page_checksums() {
    if !found(15) {
        return;
    }
    let source = quiet(15).checksums(false).start().unwrap();
    source.psql("CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n").unwrap();
    let mut world = World::new(source);
    world.capture();
    world.backup(&[]);
    world.source.psql("UPDATE t SET n = n + 1").unwrap();
    world.backup(&["--incremental"]);
    world.source.psql("DELETE FROM t WHERE n <= 11").unwrap();
    world.settle(&world.source, 1);
    let copy = world.restore("latest", &[]);
    assert_eq!(copy.psql(COUNT), "990|501435");
    copy.psql("VACUUM t");
}

/// Overwrites a part of block 3 of the table `victim`, on disk; returns the path of its file.
fn damage(source: &mut PgCluster) -> String {
    let file = source.psql("SELECT pg_relation_filepath('victim')").unwrap();
    source.stop(StopMode::Fast).unwrap();
    let opened = File::options().write(true).open(source.data_dir().join(&file)).unwrap();
    opened.write_all_at(&[0x5A; 64], 3 * 8192 + 4000).unwrap();
    drop(opened);
    source.start().unwrap();
    file
}

/// A page that was broken on the server is named, kept as it is, and keeps nobody from restoring the rest.
fn damaged_page(major: u32, over_replication: bool) {
    let source = quiet(major).start().unwrap();
    source.psql("CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n").unwrap();
    source
        .psql("CREATE TABLE victim AS SELECT n, repeat('x', 500) AS filler FROM generate_series(1, 200) n")
        .unwrap();
    let mut world = World::new(source);
    if over_replication {
        forget_files(&world);
    }
    let file = damage(&mut world.source);

    let arguments = ["--json", "backup", CLUSTER];
    let ran = world.everpoint.try_run(&arguments).unwrap();
    assert_eq!(ran.status.code(), Some(4), "{}", ran.told(&arguments));
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(report["status"], "damaged", "{report}");
    assert_eq!(report["damaged"], serde_json::json!([{"file": file, "block": 3}]));
    let label = text(&report, "/label").unwrap().to_owned();
    let listed = listed(&world, &label);
    assert_eq!(listed["status"], "damaged");
    let reason = text(&listed, "/reason").unwrap();
    assert!(reason.contains("block 3") && reason.contains(&file), "{reason}");

    let checked = world.everpoint.try_run(&["check", CLUSTER]).unwrap().out;
    assert!(checked.contains("all else of it can be restored"), "{checked}");

    let copy = world.restore(&format!("backup:{label}"), &[]);
    assert_eq!(copy.psql(COUNT), "1000|500500");
    let refused = copy.server.session().unwrap().query("SELECT count(*) FROM victim").unwrap_err();
    assert!(refused.to_string().contains("invalid page in block 3"), "{refused}");
}

#[test]
fn a_damaged_page_read_from_files_is_named_and_the_rest_restored() {
    if found(15) {
        damaged_page(15, false);
    }
}

#[test]
fn a_damaged_page_read_over_replication_is_named_and_the_rest_restored() {
    if found(17) {
        damaged_page(17, true);
    }
}

#[test]
fn a_backup_from_before_the_damage_is_preferred() {
    if !found(15) {
        return;
    }
    let source = quiet(15).start().unwrap();
    source
        .psql("CREATE TABLE victim AS SELECT n, repeat('x', 500) AS filler FROM generate_series(1, 200) n")
        .unwrap();
    let mut world = World::new(source);
    world.capture();
    let good = world.backup(&[]);
    damage(&mut world.source);
    let ran = world.everpoint.try_run(&["backup", CLUSTER]).unwrap();
    assert_eq!(ran.status.code(), Some(4), "{}", ran.told(&["backup"]));
    world.source.psql("CREATE TABLE later AS SELECT 1 AS n").unwrap();
    world.settle(&world.source, 1);
    let copy = world.restore("latest", &[]);
    assert_eq!(text(&copy.report, "/backup").unwrap(), good);
    assert_eq!(copy.psql("SELECT count(*), sum(n) FROM victim"), "200|20100");
    assert_eq!(copy.psql("SELECT n FROM later"), "1");
    copy.stop_and_check(&world);
}

#[test]
fn unlogged_tables_come_back_empty() {
    if !found(15) {
        return;
    }
    let source = quiet(15).start().unwrap();
    for sql in [
        "CREATE UNLOGGED TABLE cache (n int PRIMARY KEY, body text)",
        "INSERT INTO cache SELECT n, repeat('x', 100) FROM generate_series(1, 5000) n",
        "CREATE UNLOGGED TABLE promoted AS SELECT n FROM generate_series(1, 300) n",
        "CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n",
        "CREATE TABLE demoted AS SELECT n FROM generate_series(1, 50) n",
        "CHECKPOINT",
    ] {
        source.psql(sql).unwrap();
    }
    let file = source.psql("SELECT pg_relation_filepath('cache')").unwrap();
    let mut world = World::new(source);
    world.capture();
    let label = world.backup(&[]);
    world.source.psql("ALTER TABLE promoted SET LOGGED").unwrap();
    world.source.psql("ALTER TABLE demoted SET UNLOGGED").unwrap();
    world.source.psql("INSERT INTO cache VALUES (0, 'after the backup')").unwrap();
    world.settle(&world.source, 1);

    let place = world.place();
    let target = format!("backup:{label}");
    let place_text = place.to_str().unwrap();
    world.everpoint.run(&["restore", CLUSTER, place_text, "--to", &target]).unwrap();
    assert!(!place.join(&file).exists(), "an unlogged table's rows were restored");
    assert!(place.join(format!("{file}_init")).exists(), "no init fork");

    let copy = world.restore(&target, &[]);
    assert_eq!(copy.psql("SELECT count(*) FROM cache"), "0");
    copy.psql("INSERT INTO cache SELECT n, '' FROM generate_series(1, 10) n");
    assert_eq!(copy.psql("SET enable_seqscan = off; SELECT count(*) FROM cache WHERE n = 7"), "1");
    assert_eq!(copy.psql("SELECT count(*) FROM promoted"), "0");
    assert_eq!(copy.psql("SELECT count(*) FROM demoted"), "50");
    assert_eq!(copy.psql(COUNT), "1000|500500");
    drop(copy);

    let copy = world.restore("latest", &[]);
    assert_eq!(copy.psql("SELECT count(*) FROM cache"), "0");
    assert_eq!(copy.psql("SELECT count(*), sum(n) FROM promoted"), "300|45150");
    assert_eq!(copy.psql("SELECT count(*) FROM demoted"), "0");
    copy.stop_and_check(&world);
}

#[test]
fn where_an_idle_server_stands_is_a_target() {
    if !found(15) {
        return;
    }
    let source = quiet(15).start().unwrap();
    source.psql("CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n").unwrap();
    let mut world = World::new(source);
    world.capture();
    world.backup(&[]);
    for rows in 1..9 {
        // Records of many lengths: the server's position is the next multiple of 8.
        world.source.psql(&format!("CREATE TABLE t{rows} AS SELECT repeat('x', {rows}) AS filler")).unwrap();
        let stands = world.source.psql("SELECT pg_current_wal_lsn()").unwrap();
        let end = world.source.flushed().unwrap();
        world.settle_at(end, 1);
        let place = world.place();
        let target = format!("lsn:{stands}");
        let arguments = ["--json", "restore", CLUSTER, place.to_str().unwrap(), "--to", &target, "--dry-run"];
        let ran = world.everpoint.try_run(&arguments).unwrap();
        assert_eq!(ran.status.code(), Some(0), "{}", ran.told(&arguments));
    }
}
