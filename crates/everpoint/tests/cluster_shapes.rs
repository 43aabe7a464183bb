//! Clusters of every shape: sizes of log segments, checksums, damage, unlogged tables, what happens while a backup runs,
//! standbys and forks, a log that the server has thrown away.

// Helpers of tests fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support_scenarios;

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::thread::sleep;
use std::time::Duration;

use everpoint_testkit::{Background, PgCluster, PgClusterBuilder, PgInstall, StopMode, field, text};
use rustix::process::Signal;
use serde_json::Value;
use support_scenarios::{CLUSTER, Copy, World, ask};

fn found(major: u32) -> bool {
    PgInstall::find_or_skip(major).unwrap().is_some()
}

/// A server that changes nothing by itself.
fn quiet(major: u32) -> PgClusterBuilder {
    PgCluster::builder().major(major).setting("autovacuum", "off")
}

/// Changes the text of the configuration.
fn configure(world: &World, change: impl FnOnce(String) -> String) {
    let path = world.everpoint.home().path().join("everpoint.toml");
    fs::write(&path, change(fs::read_to_string(&path).unwrap())).unwrap();
}

/// From now on backups come over the replication protocol.
fn forget_files(world: &World) {
    configure(world, |text| {
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("data_dir")).collect();
        lines.join("\n")
    });
}

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

/// Starts a backup that reads slowly, and stops the process in the middle of its image.
fn paused_backup(world: &World) -> Background {
    configure(world, |text| text + "\n[limits]\nworkers = 1\nread_rate = \"20MB\"\n");
    let mut running = world.everpoint.spawn(&["--json", "backup", CLUSTER]).unwrap();
    // The session that holds the backup open is idle, or the server sends files.
    let copying = "SELECT (SELECT count(*) FROM pg_stat_progress_basebackup WHERE phase LIKE 'streaming%') \
        + (SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'everpoint%' \
           AND backend_type = 'client backend' AND state = 'idle' AND clock_timestamp() - state_change > '0.5 s')";
    world.wait_for("the backup copies", || world.source.psql(copying).unwrap() != "0");
    sleep(Duration::from_millis(500));
    running.signal(Signal::STOP).unwrap();
    assert!(running.runs().unwrap(), "the backup ended too early to be of use here");
    running
}

/// What happens while files are read: everything must be as it was at the end of the backup.
fn changed_while_backed_up(major: u32, over_replication: bool) {
    let source = quiet(major).start().unwrap();
    for sql in [
        "CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n",
        "CREATE TABLE cut AS SELECT n, repeat('x', 200) AS filler FROM generate_series(1, 60000) n",
        "CREATE TABLE gone AS SELECT n, repeat('x', 200) AS filler FROM generate_series(1, 60000) n",
        "CREATE TABLE shrunk AS SELECT n, repeat('x', 200) AS filler FROM generate_series(1, 30000) n",
        "CREATE DATABASE old_db",
        "CHECKPOINT",
    ] {
        source.psql(sql).unwrap();
    }
    let mut world = World::new(source);
    if over_replication {
        forget_files(&world);
    }
    world.capture();
    let running = paused_backup(&world);
    let strategies: &[&str] =
        if major >= 15 { &["a STRATEGY file_copy", "b STRATEGY wal_log"] } else { &["a"] };
    for words in strategies {
        world.source.psql(&format!("CREATE DATABASE {words}")).unwrap();
        let name = words.split(' ').next().unwrap();
        let mut session = world.source.session_to(name).unwrap();
        ask(&mut session, "CREATE TABLE here AS SELECT n FROM generate_series(1, 100) n");
    }
    for sql in [
        "TRUNCATE cut",
        "INSERT INTO cut SELECT n, 'new' FROM generate_series(1, 7) n",
        "DROP TABLE gone",
        "DELETE FROM shrunk WHERE n > 10",
        "VACUUM shrunk",
        "DROP DATABASE old_db",
        "CREATE TABLE born AS SELECT n FROM generate_series(1, 200) n",
    ] {
        world.source.psql(sql).unwrap();
    }
    running.signal(Signal::CONT).unwrap();
    let ran = running.wait(Duration::from_secs(120)).unwrap();
    assert!(ran.status.success(), "{}", ran.told(&["backup"]));
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    let label = text(&report, "/label").unwrap();

    let copy = world.restore(&format!("backup:{label}"), &[]);
    let is_right = |copy: &Copy| {
        assert_eq!(copy.psql(COUNT), "1000|500500");
        assert_eq!(copy.psql("SELECT count(*), sum(n), max(filler) FROM cut"), "7|28|new");
        assert_eq!(copy.psql("SELECT count(*), sum(n) FROM shrunk"), "10|55");
        assert_eq!(copy.psql("SELECT count(*), sum(n) FROM born"), "200|20100");
        assert_eq!(copy.psql("SELECT to_regclass('gone') IS NULL"), "t");
        let databases = copy.psql(
            "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE NOT datistemplate",
        );
        assert_eq!(databases, if major >= 15 { "a b postgres" } else { "a postgres" });
        for words in strategies {
            let mut session = copy.session_to(words.split(' ').next().unwrap());
            assert_eq!(ask(&mut session, "SELECT count(*), sum(n) FROM here"), "100|5050");
        }
    };
    is_right(&copy);
    copy.stop_and_check(&world);

    // An incremental backup on top finds nothing that it should not.
    world.source.psql("INSERT INTO t SELECT 0 FROM generate_series(1, 5)").unwrap();
    world.source.psql("DELETE FROM t WHERE n = 0").unwrap();
    configure(&world, |text| text.replace("20MB", "1GB"));
    world.backup(&["--incremental"]);
    world.settle(&world.source, 1);
    let copy = world.restore("latest", &[]);
    is_right(&copy);
    copy.stop_and_check(&world);
}

#[test]
fn databases_and_relations_come_and_go_while_files_are_read() {
    if found(15) {
        changed_while_backed_up(15, false);
    }
}

#[test]
fn databases_and_relations_come_and_go_while_files_are_sent() {
    if found(17) {
        changed_while_backed_up(17, true);
    }
}

#[test]
fn databases_and_relations_come_and_go_while_files_are_read_13() {
    if found(13) {
        changed_while_backed_up(13, false);
    }
}

#[test]
fn both_sides_of_a_fork_can_be_restored() {
    if !found(15) {
        return;
    }
    let primary = quiet(15).start().unwrap();
    primary.psql("CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n").unwrap();
    let standby = primary.standby().unwrap();
    let mut world = World::new(primary);
    forget_files(&world);
    let hosts = format!("127.0.0.1:{},127.0.0.1:{}", world.source.port(), standby.port());
    let one = format!("127.0.0.1:{}", world.source.port());
    configure(&world, |text| {
        text.replace(&one, &hosts)
            .replace("sslmode=disable", "sslmode=disable&target_session_attrs=read-write")
    });
    world.capture();
    world.backup(&[]);
    world.source.psql("INSERT INTO t VALUES (10000)").unwrap();
    let common = world.source.flushed().unwrap();
    world.wait_for("the standby has the row", || {
        standby.psql(&format!("SELECT pg_last_wal_replay_lsn() - '0/0' >= {common}")).unwrap() == "t"
    });
    // The standby is cut off; the old primary goes on.
    standby.psql("ALTER SYSTEM SET primary_conninfo = ''").unwrap();
    standby.psql("SELECT pg_reload_conf()").unwrap();
    world.wait_for("the standby has left", || {
        world
            .source
            .psql("SELECT count(*) FROM pg_stat_replication WHERE application_name = 'walreceiver'")
            .unwrap()
            == "0"
    });
    world.source.psql("INSERT INTO t VALUES (20000)").unwrap();
    world.settle(&world.source, 1);
    world.source.stop(StopMode::Immediate).unwrap();
    standby.promote().unwrap();
    standby.psql("INSERT INTO t VALUES (30000)").unwrap();
    world.settle(&standby, 2);

    let copy = world.restore("latest", &["--timeline", "1"]);
    assert_eq!(copy.psql("SELECT n FROM t WHERE n > 1000 ORDER BY 1"), "10000\n20000");
    copy.stop_and_check(&world);
    let copy = world.restore("latest", &["--timeline", "2"]);
    assert_eq!(copy.psql("SELECT n FROM t WHERE n > 1000 ORDER BY 1"), "10000\n30000");
    copy.stop_and_check(&world);

    // A backup behind the fork does not bring back what was written before it on the other side.
    let label = world.backup(&["--incremental"]);
    standby.psql("INSERT INTO t VALUES (40000)").unwrap();
    world.settle(&standby, 2);
    let copy = world.restore(&format!("backup:{label}"), &[]);
    assert_eq!(copy.psql("SELECT n FROM t WHERE n > 1000 ORDER BY 1"), "10000\n30000");
    drop(copy);
    let copy = world.restore("latest", &[]);
    assert_eq!(text(&copy.report, "/backup").unwrap(), label);
    assert_eq!(copy.psql("SELECT n FROM t WHERE n > 1000 ORDER BY 1"), "10000\n30000\n40000");
    copy.stop_and_check(&world);
}

/// Protects the standby of a primary that goes on writing.
fn backed_up_from_a_standby(major: u32, over_replication: bool) {
    let primary = quiet(major).start().unwrap();
    primary.psql("CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n").unwrap();
    let mut world = World::new(primary.standby().unwrap());
    if over_replication {
        forget_files(&world);
    }
    primary.psql("INSERT INTO t SELECT n FROM generate_series(1, 100) n").unwrap();
    let replayed = |world: &World| {
        let end = primary.flushed().unwrap();
        world.wait_for("the standby has replayed all", || {
            world.source.psql(&format!("SELECT pg_last_wal_replay_lsn() - '0/0' >= {end}")).unwrap() == "t"
        });
    };
    replayed(&world);
    let label = world.backup(&[]);
    let copy = world.restore(&format!("backup:{label}"), &[]);
    assert_eq!(copy.psql(COUNT), "1100|505550");
    copy.stop_and_check(&world);

    world.capture();
    primary.psql("INSERT INTO t SELECT n FROM generate_series(1, 10) n").unwrap();
    replayed(&world);
    world.backup(&["--incremental"]);
    primary.psql("DELETE FROM t WHERE n <= 10").unwrap();
    let end = primary.flushed().unwrap();
    world.settle_at(end, 1);
    let copy = world.restore("latest", &[]);
    assert_eq!(copy.psql(COUNT), "1080|505440");
    copy.psql("INSERT INTO t VALUES (0)");
    copy.stop_and_check(&world);
}

#[test]
fn a_backup_from_a_standby_by_files() {
    if found(15) {
        backed_up_from_a_standby(15, false);
    }
}

#[test]
fn a_backup_from_a_standby_over_replication() {
    if found(18) {
        backed_up_from_a_standby(18, true);
    }
}

#[test]
fn a_backup_restores_by_itself_when_the_server_has_recycled_its_log() {
    if !found(15) {
        return;
    }
    let source = quiet(15)
        .wal_segsize_mb(1)
        .settings([("max_wal_size", "2MB"), ("min_wal_size", "2MB"), ("wal_keep_size", "0")])
        .start()
        .unwrap();
    source.psql("CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n").unwrap();
    let world = World::new(source);
    let label = world.backup(&[]);
    let oldest =
        || world.source.psql("SELECT min(name) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'").unwrap();
    let before = oldest();
    for _ in 0..3 {
        world.source.psql("INSERT INTO t SELECT n FROM generate_series(1, 30000) n").unwrap();
        world.source.psql("CHECKPOINT").unwrap();
    }
    assert!(oldest() > before, "the server has recycled nothing");
    let slots = world.source.psql("SELECT count(*) FROM pg_replication_slots").unwrap();
    assert_eq!(slots, "0", "a backup without capture must not hold the log back");
    for target in ["latest", &format!("backup:{label}")] {
        let copy = world.restore(target, &[]);
        assert_eq!(copy.psql(COUNT), "1000|500500", "{target}");
        copy.stop_and_check(&world);
    }
    // The next backup begins a window of its own: there is a hole between the two.
    world.source.psql("DELETE FROM t WHERE n > 5").unwrap();
    world.backup(&[]);
    let copy = world.restore("latest", &[]);
    assert_eq!(copy.psql(COUNT), "20|60");
    drop(copy);
    let copy = world.restore(&format!("backup:{label}"), &[]);
    assert_eq!(copy.psql(COUNT), "1000|500500");
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

#[test]
fn a_capture_that_begins_during_a_backup_goes_on_after_it() {
    if !found(15) {
        return;
    }
    let source = quiet(15).start().unwrap();
    source.psql("CREATE TABLE t AS SELECT n FROM generate_series(1, 200000) n").unwrap();
    let world = World::new(source);
    let backup = paused_backup(&world);
    let mut capture = world.everpoint.spawn(&["-v", "capture", CLUSTER]).unwrap();
    sleep(Duration::from_secs(1));
    backup.signal(Signal::CONT).unwrap();
    assert!(capture.runs().unwrap(), "capture gave up: {}", capture.said());
    let ran = backup.wait(Duration::from_secs(60)).unwrap();
    assert!(ran.status.success(), "{}", ran.told(&["backup"]));
    world.source.psql("DELETE FROM t WHERE n > 10").unwrap();
    world.settle(&world.source, 1);
    let copy = world.restore("latest", &[]);
    assert_eq!(copy.psql(COUNT), "10|55");
    drop(copy);
    // Of two that are to last, one is told at once.
    let ran = world.everpoint.try_run(&["capture", CLUSTER]).unwrap();
    assert_eq!(ran.status.code(), Some(6), "{}", ran.told(&["capture"]));
    assert!(capture.stop().unwrap().status.success());
}
