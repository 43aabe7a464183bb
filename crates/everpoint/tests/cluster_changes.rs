//! Clusters that change: while a backup runs, over a failover, behind a standby, with a log that the server throws away.

// Helpers of tests fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code, reason = "shared with other scenarios")]
mod support_scenarios;

use std::thread::sleep;
use std::time::Duration;

use everpoint_testkit::StopMode;
use everpoint_testkit::{Background, text};
use rustix::process::Signal;
use serde_json::Value;
use support_scenarios::{CLUSTER, Copy, World, ask, configure, forget_files, found, quiet};

const COUNT: &str = "SELECT count(*), sum(n) FROM t";

/// Starts a backup that reads so many MB a second, and stops the process in the middle of its image.
fn paused_backup(world: &World, rate: u32) -> Background {
    configure(world, |text| text + &format!("\n[limits]\nworkers = 1\nread_rate = \"{rate}MB\"\n"));
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
    let rate = if over_replication { 5 } else { 20 };
    let mut running = paused_backup(&world, rate);
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
        "CREATE TABLE born AS SELECT n FROM generate_series(1, 200) n",
    ] {
        world.source.psql(sql).unwrap();
    }
    // Dropping waits until every backend has closed the files, and one that sends to nobody who reads never does.
    if over_replication {
        running.signal(Signal::CONT).unwrap();
    }
    world.source.psql("DROP DATABASE old_db").unwrap();
    assert!(running.runs().unwrap(), "the backup ended before the database was gone");
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
    configure(&world, |text| text.replace(&format!("{rate}MB"), "1GB"));
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
fn a_capture_that_begins_during_a_backup_goes_on_after_it() {
    if !found(15) {
        return;
    }
    let source = quiet(15).start().unwrap();
    source.psql("CREATE TABLE t AS SELECT n FROM generate_series(1, 200000) n").unwrap();
    let world = World::new(source);
    let backup = paused_backup(&world, 20);
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
