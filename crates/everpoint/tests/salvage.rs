//! Log that only production's directory holds is stored before a restore in place, whatever its server went through; and
//! log of a server that was set back is never mixed with what is stored.

// Helpers of tests fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code, reason = "shared with other scenarios")]
mod support_salvage;
#[allow(dead_code, reason = "shared with other scenarios")]
mod support_scenarios;

use std::fs;
use std::process::Command;
use std::time::Duration;

use everpoint_testkit::StopMode;
use rustix::process::Signal;
use support_salvage::{
    ROWS, copy_all, data, has, in_place, insert, insert_in_segments, promote_in_place, restore_in_place,
    world,
};
use support_scenarios::{CLUSTER, Copy, World, ask, configure, found};

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

/// Another directory takes the place of production's, which stays where it is with rows that were never captured.
#[test]
fn salvage_of_productions_directory_when_another_one_replaces_it() {
    if !found(15) {
        return;
    }
    let mut world = world(15);
    insert_in_segments(&world, &[4, 5]);
    insert(&world, &[6]);
    world.source.stop(StopMode::Fast).unwrap();
    let place = world.place();
    world.everpoint.run(&["restore", CLUSTER, place.to_str().unwrap(), "--replace-production"]).unwrap();
    // The directory itself was not touched, and what it has said is known to whoever restores.
    let copy = world.restore("latest", &[]);
    assert_eq!(copy.psql(ROWS), "1 2 3 4 5 6");
    copy.stop_and_check(&world);
    world.source.start().unwrap();
    assert_eq!(world.source.psql(ROWS).unwrap(), "1 2 3 4 5 6");
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

/// A dry run says what would be saved, and refuses where that would be refused; a repository that can only be read ends a
/// restore only where something would be lost.
#[test]
fn salvage_is_looked_at_by_a_dry_run_and_not_done() {
    if !found(15) {
        return;
    }
    let mut world = world(15);
    insert_in_segments(&world, &[4, 5]);
    let end = world.source.psql("SELECT pg_current_wal_flush_lsn()").unwrap();
    world.source.stop(StopMode::Fast).unwrap();
    let repository = world.everpoint.home().path().join("repository");
    let chmod = |mode: &str| {
        assert!(Command::new("chmod").args(["-R", mode]).arg(&repository).status().unwrap().success());
    };
    let names = || {
        let found =
            Command::new("find").arg(&repository).args(["-not", "-path", "*/leases*"]).output().unwrap();
        String::from_utf8(found.stdout).unwrap()
    };
    let before = names();
    let dry = restore_in_place(&world, &["--dry-run"]);
    assert!(dry.status.success() && dry.out.contains("is saved first when this is done"), "{}", dry.err);
    let further = restore_in_place(&world, &["--dry-run", "--to", &format!("lsn:{end}")]);
    let said = format!("{}{}", further.out, further.err);
    assert!(further.status.code() == Some(3) && said.contains("without --dry-run restores it"), "{said}");
    assert_eq!(names(), before);

    chmod("a-w");
    for more in [&["--dry-run"][..], &[]] {
        let ran = restore_in_place(&world, more);
        assert!(ran.status.code() == Some(1) && ran.err.contains(".aside"), "{more:?} {}", ran.err);
    }
    let place = world.place();
    let told = world
        .everpoint
        .try_run(&["restore", CLUSTER, place.to_str().unwrap(), "--replace-production"])
        .unwrap();
    assert!(told.status.success(), "{}", told.err);
    for part in ["is not restored", "could not be told that production goes on"] {
        assert!(told.err.contains(part), "{part}: {}", told.err);
    }
    chmod("u+w");
    in_place(&mut world);
    has(&mut world, "1 2 3 4 5");
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

/// A server that is stopped before its recovery ends holds what a restore has handed out, in which places of tablespaces are
/// rewritten: that is no other log.
#[test]
fn salvage_takes_what_a_restore_has_handed_out_for_what_is_stored() {
    if !found(15) {
        return;
    }
    let mut world = world(15);
    let late = world.source.home().subdir("late").unwrap();
    world.source.psql(&format!("CREATE TABLESPACE late LOCATION '{}'", late.display())).unwrap();
    insert(&world, &[4]);
    let name = world.source.psql("SELECT pg_walfile_name(pg_current_wal_lsn())").unwrap();
    // A server that stops sends its last record to whoever listens.
    world.capture();
    world.settle(&world.source, 1);
    world.source.stop(StopMode::Fast).unwrap();
    world.stop_capture();
    let place = data(&world).join("pg_wal").join(&name);
    let given = ["archive-get", CLUSTER, &name, place.to_str().unwrap(), "--in-place-tablespaces"];
    world.everpoint.run(&given).unwrap();
    in_place(&mut world);
    has(&mut world, "1 2 3 4");
}

/// The end of the recovery is all that the new timeline has.
#[test]
fn salvage_of_a_server_that_crashed_right_after_a_restore_in_place() {
    for major in [15, 18] {
        if !found(major) {
            continue;
        }
        let mut world = world(major);
        world.source.stop(StopMode::Fast).unwrap();
        for _ in 0..2 {
            in_place(&mut world);
            world.source.kill9().unwrap();
        }
        in_place(&mut world);
        has(&mut world, "1 2 3");
    }
}
