//! Log of a server that was set back, or of a clone, is never mixed with what is stored.

// Helpers of tests fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code, reason = "shared with other scenarios")]
mod support_salvage;
#[allow(dead_code, reason = "shared with other scenarios")]
mod support_scenarios;

use std::fs;
use std::path::Path;

use everpoint_testkit::StopMode;
use serde_json::Value;
use support_salvage::{
    ROWS, copy_all, data, goes_on, insert, promote_in_place, restore_in_place, set_back, world,
};
use support_scenarios::{CLUSTER, World, found};

/// What lies behind a switch of segments is empty, and says nothing: what lies before it is compared.
#[test]
fn salvage_and_capture_refuse_a_server_that_was_set_back_before_a_switch() {
    if !found(15) {
        return;
    }
    let mut world = world(15);
    set_back(&mut world, &[11, 12, 13], true);
    insert(&world, &[21, 22, 23]);
    world.source.psql("SELECT pg_switch_wal()").unwrap();
    insert(&world, &[24, 25, 26, 27, 28]);
    let captured = world.everpoint.try_run(&["capture", CLUSTER, "--once"]).unwrap();
    assert_eq!(captured.status.code(), Some(4), "{}", captured.err);
    world.source.stop(StopMode::Fast).unwrap();
    let refused = restore_in_place(&world, &[]);
    assert_eq!(refused.status.code(), Some(4), "{}", refused.err);
}

#[test]
fn salvage_refuses_a_server_that_was_set_back_and_wrote_less_than_is_stored() {
    if !found(15) {
        return;
    }
    let mut world = world(15);
    set_back(&mut world, &[11, 12, 13, 14, 15, 16, 17, 18, 19], false);
    insert(&world, &[21, 22, 23, 24]);
    world.source.stop(StopMode::Fast).unwrap();
    let refused = restore_in_place(&world, &["--server-is-stopped"]);
    assert_eq!(refused.status.code(), Some(4), "{}", refused.err);
    assert!(refused.err.contains(".aside") && refused.err.contains("promote"), "{}", refused.err);
    world.source.start().unwrap();
    assert_eq!(world.source.psql(ROWS).unwrap(), "1 2 3 21 22 23 24");
}

/// A machine that was set back to a snapshot.
#[test]
fn salvage_capture_and_push_refuse_a_server_that_was_set_back() {
    if !found(15) {
        return;
    }
    let mut world = world(15);
    let place = data(&world);
    set_back(&mut world, &[11, 12, 13], false);
    insert(&world, &[21, 22, 23, 24, 25, 26, 27, 28]);
    let said = |ran: &everpoint_testkit::Ran| {
        assert_eq!(ran.status.code(), Some(4), "{}", ran.err);
        ran.err.clone()
    };
    let before = latest(&world);
    tells(&world, "promote");
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
    let check = world.everpoint.report(&["check", CLUSTER]).unwrap();
    assert!(!check.to_string().contains("beside"), "{check}");
}

/// `check` and `status` name a server that goes on beside what is stored, with the way out.
fn tells(world: &World, way_out: &str) {
    for command in ["check", "status"] {
        let said = world.everpoint.try_run(&[command, CLUSTER]).unwrap();
        let text = format!("{}{}", said.out, said.err);
        assert_eq!(said.status.code(), Some(1), "{command}: {text}");
        assert!(text.contains(way_out) && text.contains("was set back"), "{command}: {text}");
        assert!(!text.contains("keep this running"), "{command}: {text}");
    }
    let log = world.source.log();
    // What a capture asks for names its slot.
    assert!(!log.contains("START_REPLICATION PHYSICAL"), "asked for what is gone: {log}");
}

/// The server that was set back has not yet written as much as is stored.
#[test]
fn check_tells_of_a_server_that_ends_before_what_is_stored() {
    if !found(15) {
        return;
    }
    let mut world = world(15);
    set_back(&mut world, &[11, 12, 13, 14, 15, 16, 17, 18, 19], false);
    tells(&world, "promote");
}

/// All that is stored was archived, nothing is captured and no slot holds the log; then the segment was switched.
#[test]
fn check_tells_of_a_server_that_was_set_back_before_a_switch_and_lets_others_be() {
    if !found(15) {
        return;
    }
    let mut world = world(15);
    let well = world.everpoint.report(&["check", CLUSTER]).unwrap();
    assert!(!well.to_string().contains("was set back"), "{well}");
    set_back(&mut world, &[11, 12, 13], true);
    insert(&world, &[21, 22, 23]);
    world.source.psql("SELECT pg_switch_wal()").unwrap();
    insert(&world, &[24, 25, 26, 27, 28]);
    tells(&world, "promote");
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

/// A staging server that was a standby, with production's archive_command.
#[test]
fn a_promoted_clone_that_archives_does_not_become_production() {
    if !found(15) {
        return;
    }
    let mut world = world(15);
    world.capture();
    let clone = world.source.standby().unwrap();
    clone.promote().unwrap();
    clone.psql("INSERT INTO t VALUES (100)").unwrap();
    let segment = clone.psql("SELECT pg_walfile_name(pg_current_wal_lsn())").unwrap();
    clone.psql("SELECT pg_switch_wal()").unwrap();
    for name in ["00000002.history", &segment] {
        let path = clone.data_dir().join("pg_wal").join(name);
        world.everpoint.run(&["archive-push", CLUSTER, path.to_str().unwrap()]).unwrap();
    }
    insert(&world, &[4, 5]);
    world.settle(&world.source, 1);

    let place = world.place();
    let refused =
        world.everpoint.try_run(&["restore", CLUSTER, place.to_str().unwrap(), "--dry-run"]).unwrap();
    assert_eq!(refused.status.code(), Some(3), "{}", refused.err);
    for branch in ["--timeline 00000001-0000000000000000", "--timeline 00000002-"] {
        assert!(
            refused.err.contains(branch) || refused.out.contains(branch),
            "{} {}",
            refused.err,
            refused.out
        );
    }
    let status = world.everpoint.try_run(&["status", CLUSTER]).unwrap();
    assert!(status.out.contains("another one archives log of timeline 2"), "{}", status.out);
    // The look at the server tells, and says it once more.
    let checked = world.everpoint.try_run(&["check", CLUSTER]).unwrap();
    assert!(checked.out.contains("another one archives log of timeline 2"), "{}", checked.out);
    world.stop_capture();
    goes_on(&mut world, "1 2 3 4 5");
}
