//! Log that only production's directory holds is stored before a restore in place, whatever its server went through; and
//! log of a server that was set back is never mixed with what is stored.

// Helpers of tests fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code, reason = "shared with other scenarios")]
mod support_scenarios;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use everpoint_testkit::StopMode;
use rustix::process::Signal;
use serde_json::Value;
use support_scenarios::{CLUSTER, Copy, World, ask, configure, found, quiet};

const ROWS: &str = "SELECT string_agg(n::text, ' ' ORDER BY n) FROM t";

/// A protected server with three rows that are captured; nothing captures any more.
fn world(major: u32) -> World {
    let mut world = World::new(quiet(major).start().unwrap());
    world.capture();
    world.source.psql("CREATE TABLE t (n int PRIMARY KEY)").unwrap();
    world.backup(&[]);
    insert(&world, &[1, 2, 3]);
    world.settle(&world.source, 1);
    world.stop_capture();
    world
}

fn insert(world: &World, rows: &[u32]) {
    for row in rows {
        world.source.psql(&format!("INSERT INTO t VALUES ({row})")).unwrap();
    }
}

/// Rows, each in a segment of its own.
fn insert_in_segments(world: &World, rows: &[u32]) {
    for row in rows {
        insert(world, &[*row]);
        world.source.psql("SELECT pg_switch_wal()").unwrap();
    }
}

fn data(world: &World) -> PathBuf {
    world.source.data_dir().to_owned()
}

fn restore_in_place(world: &World, more: &[&str]) -> everpoint_testkit::Ran {
    let directory = data(world);
    let arguments = ["restore", CLUSTER, directory.to_str().unwrap(), "--delta", "--replace-production"];
    world.everpoint.try_run(&[&arguments[..], more].concat()).unwrap()
}

/// Restores a stopped server in place to the newest state, and starts it.
fn in_place(world: &mut World) {
    let ran = restore_in_place(world, &["--server-is-stopped"]);
    assert!(ran.status.success(), "{}", ran.err);
    world.source.start().unwrap();
    world.wait_for("the server is promoted", || {
        world.source.psql("SELECT pg_is_in_recovery()").is_ok_and(|answer| answer == "f")
    });
}

/// Production has these rows, and so has a copy; the log has no gap.
fn has(world: &mut World, rows: &str) {
    goes_on(world, rows);
    let list = world.everpoint.json(&["list", CLUSTER]).unwrap();
    assert_eq!(list["clusters"][0]["gaps"], Value::Array(Vec::new()), "{list}");
}

fn goes_on(world: &mut World, rows: &str) {
    assert_eq!(world.source.psql(ROWS).unwrap(), rows);
    world.capture();
    insert(world, &[99]);
    let timeline = world.source.psql("SELECT timeline_id FROM pg_control_checkpoint()").unwrap();
    world.settle(&world.source, timeline.parse().unwrap());
    let copy = world.restore("latest", &[]);
    assert_eq!(copy.psql(ROWS), format!("{rows} 99"));
    copy.stop_and_check(world);
}

/// As an operator gives a server a new timeline.
fn promote_in_place(world: &mut World) {
    world.source.stop(StopMode::Fast).unwrap();
    fs::write(data(world).join("standby.signal"), "").unwrap();
    world.source.start().unwrap();
    world.source.promote().unwrap();
}

fn copy_all(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

#[test]
fn salvage_of_a_server_that_was_promoted_in_place() {
    for major in [13, 18].into_iter().filter(|major| found(*major)) {
        let mut world = world(major);
        insert_in_segments(&world, &[4, 5]);
        insert(&world, &[6]);
        promote_in_place(&mut world);
        insert(&world, &[7]);
        world.source.stop(StopMode::Fast).unwrap();
        in_place(&mut world);
        has(&mut world, "1 2 3 4 5 6 7");
    }
}

#[test]
fn salvage_follows_pg_control_and_not_the_names_in_pg_wal() {
    if !found(15) {
        return;
    }
    let mut world = world(15);
    let Copy { server, place, .. } = world.restore("latest", &[]);
    ask(&mut server.session().unwrap(), "INSERT INTO t VALUES (100)");
    server.stop_and_check(world.source.install()).unwrap();
    insert_in_segments(&world, &[4, 5]);
    insert(&world, &[6]);
    world.source.stop(StopMode::Fast).unwrap();
    let log = data(&world).join("pg_wal");
    for entry in fs::read_dir(place.join("pg_wal")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.starts_with("00000002") {
            copy_all(&place.join("pg_wal").join(&name), &log);
        }
    }
    assert!(log.join("00000002.history").exists());
    fs::write(log.join("00000009000000000000000A"), "").unwrap();
    in_place(&mut world);
    has(&mut world, "1 2 3 4 5 6");
}

/// Until the first checkpoint after a promotion is done, `pg_control` names the timeline before.
#[test]
fn salvage_of_a_server_that_crashed_right_after_its_promotion() {
    for major in [13, 18].into_iter().filter(|major| found(*major)) {
        let mut world = world(major);
        let standby = world.source.standby().unwrap();
        world.everpoint.run(&["capture", CLUSTER, "--once"]).unwrap();
        // Much to write: the checkpoint takes minutes.
        world
            .source
            .psql("CREATE TABLE much AS SELECT n, repeat('x', 500) FROM generate_series(1, 30000) n")
            .unwrap();
        insert(&world, &[4]);
        let end = world.source.psql("SELECT pg_current_wal_flush_lsn()").unwrap();
        let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{end}'");
        world.wait_for("the standby has it", || standby.psql(&replayed).unwrap() == "t");
        world.source.stop(StopMode::Immediate).unwrap();
        standby.promote().unwrap();
        world.source = take_over(&world, standby);
        insert(&world, &[5]);
        assert_eq!(world.source.psql("SELECT timeline_id FROM pg_control_checkpoint()").unwrap(), "1");
        world.source.kill9().unwrap();
        in_place(&mut world);
        has(&mut world, "1 2 3 4 5");
    }
}

/// The standby is production's directory from now on; nobody tells everpoint more than that.
fn take_over(world: &World, standby: everpoint_testkit::PgCluster) -> everpoint_testkit::PgCluster {
    let before = (world.source.url(), world.source.data_dir().display().to_string());
    let now = (standby.url(), standby.data_dir().display().to_string());
    configure(world, |text| text.replace(&before.0, &now.0).replace(&before.1, &now.1));
    standby
}

#[test]
fn salvage_of_a_failover_that_nobody_saw_is_production() {
    if !found(15) {
        return;
    }
    let mut world = world(15);
    let standby = world.source.standby().unwrap();
    world.everpoint.run(&["capture", CLUSTER, "--once"]).unwrap();
    world.source.stop(StopMode::Fast).unwrap();
    world.everpoint.json(&["list", CLUSTER]).unwrap();
    standby.promote().unwrap();
    world.source = take_over(&world, standby);
    insert(&world, &[4, 5]);
    world.source.stop(StopMode::Fast).unwrap();
    in_place(&mut world);
    has(&mut world, "1 2 3 4 5");
}

#[test]
fn salvage_refuses_what_it_cannot_read_and_touches_nothing() {
    if !found(15) {
        return;
    }
    let mut world = world(15);
    insert_in_segments(&world, &[4, 5]);
    insert(&world, &[6]);
    world.source.stop(StopMode::Fast).unwrap();
    let log = data(&world).join("pg_wal");
    let first = "000000010000000000000004";
    let kept = fs::read(log.join(first)).unwrap();
    fs::write(log.join(first), vec![0; kept.len()]).unwrap();
    let ran = restore_in_place(&world, &[]);
    assert_eq!(ran.status.code(), Some(1), "{}", ran.err);
    assert!(ran.err.contains(".aside"), "{}", ran.err);
    fs::write(log.join(first), &kept).unwrap();
    in_place(&mut world);
    has(&mut world, "1 2 3 4 5 6");
}

/// A machine is set back to a snapshot, after these rows were captured.
fn set_back(world: &mut World, rows: &[u32]) {
    let (place, snapshot) = (data(world), world.everpoint.home().path().join("snapshot"));
    world.source.stop(StopMode::Fast).unwrap();
    copy_all(&place, &snapshot);
    world.source.start().unwrap();
    insert(world, rows);
    world.everpoint.run(&["capture", CLUSTER, "--once"]).unwrap();
    world.source.stop(StopMode::Fast).unwrap();
    fs::remove_dir_all(&place).unwrap();
    copy_all(&snapshot, &place);
    world.source.start().unwrap();
}

#[test]
fn salvage_refuses_a_server_that_was_set_back_and_wrote_less_than_is_stored() {
    if !found(15) {
        return;
    }
    let mut world = world(15);
    set_back(&mut world, &[11, 12, 13, 14, 15, 16, 17, 18, 19]);
    insert(&world, &[21, 22, 23, 24]);
    world.source.stop(StopMode::Fast).unwrap();
    let refused = restore_in_place(&world, &["--server-is-stopped"]);
    assert_eq!(refused.status.code(), Some(4), "{}", refused.err);
    assert!(refused.err.contains(".aside") && refused.err.contains("promote"), "{}", refused.err);
    world.source.start().unwrap();
    assert_eq!(world.source.psql(ROWS).unwrap(), "1 2 3 21 22 23 24");
}

#[test]
fn salvage_capture_and_push_refuse_a_server_that_was_set_back() {
    if !found(15) {
        return;
    }
    let mut world = world(15);
    let place = data(&world);
    set_back(&mut world, &[11, 12, 13]);
    insert(&world, &[21, 22, 23, 24, 25, 26, 27, 28]);
    let said = |ran: &everpoint_testkit::Ran| {
        assert_eq!(ran.status.code(), Some(4), "{}", ran.err);
        ran.err.clone()
    };
    let before = latest(&world);
    let captured = said(&world.everpoint.try_run(&["capture", CLUSTER, "--once"]).unwrap());
    assert!(captured.contains("promote") && captured.contains("everpoint backup"), "{captured}");
    let name = world.source.psql("SELECT pg_walfile_name(pg_current_wal_lsn())").unwrap();
    world.source.psql("SELECT pg_switch_wal()").unwrap();
    let path = place.join("pg_wal").join(&name);
    let pushed = said(&world.everpoint.try_run(&["archive-push", CLUSTER, path.to_str().unwrap()]).unwrap());
    assert!(pushed.contains("promote") && !pushed.contains("/bin/true"), "{pushed}");
    world.source.stop(StopMode::Fast).unwrap();
    let refused = said(&restore_in_place(&world, &[]));
    assert!(refused.contains(".aside"), "{refused}");
    assert_eq!(latest(&world), before);

    // As the hint says.
    world.source.start().unwrap();
    promote_in_place(&mut world);
    insert(&world, &[29]);
    world.backup(&[]);
    goes_on(&mut world, "1 2 3 21 22 23 24 25 26 27 28 29");
}

/// The stop of a restore to the newest state.
fn latest(world: &World) -> Value {
    let place = world.place();
    let plan = world.everpoint.json(&["restore", CLUSTER, place.to_str().unwrap(), "--dry-run"]).unwrap();
    assert_eq!(plan["shortfall"], Value::Null, "{plan}");
    plan["target"].clone()
}

/// `cp -a` of production, with its archive_command.
#[test]
fn salvage_keeps_the_log_of_a_clone_out() {
    if !found(15) {
        return;
    }
    let mut world = world(15);
    world.source.stop(StopMode::Fast).unwrap();
    let clone = world.everpoint.home().path().join("clone");
    copy_all(&data(&world), &clone);
    world.source.start().unwrap();
    let name = "pg_wal/000000010000000000000003";
    let push = |directory: &Path| {
        let path = directory.join(name);
        world.everpoint.try_run(&["archive-push", CLUSTER, path.to_str().unwrap()]).unwrap()
    };
    let refused = push(&clone);
    assert_eq!(refused.status.code(), Some(2), "{}", refused.err);
    assert!(
        refused.err.contains("data_dir") && refused.err.contains("archive_mode = off"),
        "{}",
        refused.err
    );
    // A standby of it may archive what it follows, and production its own.
    fs::write(clone.join("standby.signal"), "").unwrap();
    world.source.psql("SELECT pg_switch_wal()").unwrap();
    let own = push(&data(&world));
    assert!(own.status.success(), "{}", own.err);
    copy_all(&data(&world).join(name), &clone.join("pg_wal"));
    let followed = push(&clone);
    assert!(followed.status.success(), "{}", followed.err);
}

/// The log is kept to amid the padding behind a switch, as by a backup without a lasting capture, and then the server gives up
/// that segment.
#[test]
fn salvage_behind_a_segment_of_which_only_padding_is_missing() {
    if !found(15) {
        return;
    }
    let mut world = world(15);
    let capturing = world.everpoint.spawn(&["capture", CLUSTER]).unwrap();
    insert(&world, &[4]);
    world.settle(&world.source, 1);
    // What has been sent meanwhile is all that it gets.
    capturing.signal(Signal::STOP).unwrap();
    let switched = world.source.psql("SELECT pg_switch_wal()").unwrap();
    std::thread::sleep(Duration::from_secs(1));
    world.source.kill9().unwrap();
    capturing.signal(Signal::CONT).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    capturing.stop().unwrap();
    let list = world.everpoint.json(&["list", CLUSTER]).unwrap();
    let end = list["clusters"][0]["branches"][0]["to_lsn"].as_str().unwrap().to_owned();
    let (end, switched) =
        (everpoint_testkit::parse_lsn(&end).unwrap(), everpoint_testkit::parse_lsn(&switched).unwrap());
    assert!(end > switched + 8 && end % (16 << 20) != 0, "{end:X} {switched:X}");

    world.source.start().unwrap();
    insert(&world, &[5, 6]);
    world
        .source
        .psql("DO $$ BEGIN PERFORM pg_drop_replication_slot(slot_name) FROM pg_replication_slots; END $$")
        .unwrap();
    world.source.psql("CHECKPOINT").unwrap();
    world.source.psql("CHECKPOINT").unwrap();
    world.source.stop(StopMode::Fast).unwrap();
    let name = format!("{:08X}{:08X}{:08X}", 1, 0, end >> 24);
    assert!(!data(&world).join("pg_wal").join(&name).exists(), "{name} was not recycled");
    in_place(&mut world);
    has(&mut world, "1 2 3 4 5 6");
}

#[test]
fn salvage_goes_on_behind_what_is_stored_although_older_segments_are_gone() {
    if !found(15) {
        return;
    }
    for gone in [true, false] {
        let mut world = world(15);
        world.source.psql("SELECT pg_switch_wal()").unwrap();
        world.everpoint.run(&["capture", CLUSTER, "--once"]).unwrap();
        let first = world.source.psql("SELECT pg_walfile_name(pg_current_wal_lsn() + 1)").unwrap();
        world.source.psql("INSERT INTO t SELECT generate_series(1001, 200000)").unwrap();
        world.source.stop(StopMode::Immediate).unwrap();
        let log = fs::read_dir(data(&world).join("pg_wal")).unwrap().map(|entry| entry.unwrap());
        for old in log.filter(|it| it.file_name().len() == 24 && it.file_name() < *first) {
            match gone {
                true => fs::remove_file(old.path()).unwrap(),
                false => fs::File::options().write(true).open(old.path()).unwrap().set_len(100_000).unwrap(),
            }
        }
        in_place(&mut world);
        assert_eq!(world.source.psql("SELECT count(*) FROM t").unwrap(), "199003");
    }
}

/// Until its next restart point `pg_control` of a standby names the timeline before.
#[test]
fn salvage_of_a_standby_that_followed_a_promotion_and_crashed() {
    for major in [13, 18].into_iter().filter(|major| found(*major)) {
        let mut world = world(major);
        let mut promoted = world.source.standby().unwrap();
        let mut follower = promoted.standby().unwrap();
        world.everpoint.run(&["capture", CLUSTER, "--once"]).unwrap();
        world.source.stop(StopMode::Immediate).unwrap();
        promoted.promote().unwrap();
        promoted.psql("INSERT INTO t VALUES (4), (5)").unwrap();
        world.wait_for("it has followed", || follower.psql(ROWS).is_ok_and(|rows| rows == "1 2 3 4 5"));
        assert_eq!(follower.psql("SELECT timeline_id FROM pg_control_checkpoint()").unwrap(), "1");
        promoted.stop(StopMode::Immediate).unwrap();
        follower.stop(StopMode::Immediate).unwrap();
        world.source = take_over(&world, follower);
        in_place(&mut world);
        has(&mut world, "1 2 3 4 5");
    }
}
