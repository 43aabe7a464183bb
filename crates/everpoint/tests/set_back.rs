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
    ROWS, copy_all, data, goes_on, has, insert, promote_in_place, restore_in_place, world,
};
use support_scenarios::{CLUSTER, World, found};

/// Production is set back to a snapshot of its machine, after these rows were captured; `switches`: and its segment switched.
fn set_back(world: &mut World, rows: &[u32], switches: bool) {
    let (place, snapshot) = (data(world), world.everpoint.home().path().join("snapshot"));
    world.source.stop(StopMode::Fast).unwrap();
    copy_all(&place, &snapshot);
    world.source.start().unwrap();
    insert(world, rows);
    if switches {
        world.source.psql("SELECT pg_switch_wal()").unwrap();
    }
    world.everpoint.run(&["capture", CLUSTER, "--once"]).unwrap();
    world.source.stop(StopMode::Fast).unwrap();
    fs::remove_dir_all(&place).unwrap();
    copy_all(&snapshot, &place);
    world.source.start().unwrap();
}

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

/// Production is set back to a snapshot of its machine after rows in two segments were captured, and writes others, so that
/// its segments end where the stored ones end.
fn set_back_over_a_segment(world: &mut World) {
    let (place, snapshot) = (data(world), world.everpoint.home().path().join("snapshot"));
    world.source.stop(StopMode::Fast).unwrap();
    copy_all(&place, &snapshot);
    world.source.start().unwrap();
    insert(world, &[11, 12, 13]);
    world.source.psql("SELECT pg_switch_wal()").unwrap();
    insert(world, &(31..60).collect::<Vec<u32>>());
    world.everpoint.run(&["capture", CLUSTER, "--once"]).unwrap();
    world.source.stop(StopMode::Fast).unwrap();
    fs::remove_dir_all(&place).unwrap();
    copy_all(&snapshot, &place);
    world.source.start().unwrap();
    insert(world, &[21, 22, 23]);
    world.source.psql("SELECT pg_switch_wal()").unwrap();
}

/// Nothing holds what the server has written; what lies before its current segment goes.
fn recycle(world: &World) {
    world.source.psql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots").unwrap();
    world.source.psql("CHECKPOINT").unwrap();
    world.source.psql("CHECKPOINT").unwrap();
}

/// The newest state can't be had from the backups that there are.
fn needs_a_backup(world: &World) {
    let place = world.place();
    let ran = world
        .everpoint
        .try_run(&["restore", CLUSTER, place.to_str().unwrap(), "--dry-run", "--json"])
        .unwrap();
    let plan: Value = serde_json::from_str(&ran.out).unwrap();
    assert_ne!(plan["shortfall"], Value::Null, "{plan} {}", ran.err);
}

/// The segment that would be compared is gone from the server.
#[test]
fn log_that_cannot_be_compared_is_not_joined() {
    if !found(15) {
        return;
    }
    let mut world = world(15);
    set_back(&mut world, &[11, 12, 13], true);
    insert(&world, &[21, 22, 23]);
    world.source.psql("SELECT pg_switch_wal()").unwrap();
    recycle(&world);
    insert(&world, &[24]);
    let captured = world.everpoint.try_run(&["capture", CLUSTER, "--once"]).unwrap();
    assert!(captured.status.success() && captured.err.contains("everpoint backup"), "{}", captured.err);
    needs_a_backup(&world);
    world.backup(&[]);
    goes_on(&mut world, "1 2 3 21 22 23 24");
}

/// What capture has stored last goes from the server in good order: it has said that it was stored.
#[test]
fn log_that_was_acknowledged_needs_no_comparison() {
    if !found(15) {
        return;
    }
    let mut world = world(15);
    insert(&world, &[11]);
    world.source.psql("SELECT pg_switch_wal()").unwrap();
    world.everpoint.run(&["capture", CLUSTER, "--once"]).unwrap();
    world.source.psql("CHECKPOINT").unwrap();
    world.source.psql("CHECKPOINT").unwrap();
    let captured = world.everpoint.try_run(&["capture", CLUSTER, "--once"]).unwrap();
    assert!(captured.status.success(), "{}", captured.err);
    // Nor is the server asked for what it lists no more: it would note an error.
    assert!(!world.source.log().contains("already been removed"), "{}", world.source.log());
    has(&mut world, "1 2 3 11");
}

#[test]
fn a_branch_of_a_server_that_was_set_back_is_not_joined_by_capture() {
    if !found(15) {
        return;
    }
    for recycled in [false, true] {
        let mut world = world(15);
        set_back_over_a_segment(&mut world);
        promote_in_place(&mut world);
        if recycled {
            recycle(&world);
        }
        insert(&world, &[24]);
        let captured = world.everpoint.try_run(&["capture", CLUSTER, "--once"]).unwrap();
        assert!(captured.status.success() && captured.err.contains("everpoint backup"), "{}", captured.err);
        // Begun anew within the segment: it remembers.
        insert(&world, &[25]);
        world.everpoint.run(&["capture", CLUSTER, "--once"]).unwrap();
        needs_a_backup(&world);
        world.source.psql("SELECT pg_switch_wal()").unwrap();
        world.everpoint.run(&["capture", CLUSTER, "--once"]).unwrap();
        needs_a_backup(&world);
        world.backup(&[]);
        goes_on(&mut world, "1 2 3 21 22 23 24 25");
    }
}

#[test]
fn a_branch_of_a_server_that_was_set_back_is_not_joined_by_pushes() {
    if !found(15) {
        return;
    }
    let mut world = world(15);
    set_back_over_a_segment(&mut world);
    promote_in_place(&mut world);
    insert(&world, &[24]);
    let name = world.source.psql("SELECT pg_walfile_name(pg_current_wal_lsn())").unwrap();
    world.source.psql("SELECT pg_switch_wal()").unwrap();
    let path = data(&world).join("pg_wal").join(&name);
    let pushed = world.everpoint.try_run(&["archive-push", CLUSTER, path.to_str().unwrap()]).unwrap();
    assert!(pushed.status.success() && pushed.err.contains("everpoint backup"), "{}", pushed.err);
    needs_a_backup(&world);
    world.backup(&[]);
    goes_on(&mut world, "1 2 3 21 22 23 24");
}

/// The archiver is unblocked as people do it, and the segments that differ are gone: what comes next, behind a segment that
/// ends as the stored one ends, must not be taken for its continuation.
#[test]
fn an_archiving_server_that_was_set_back_is_remembered() {
    if !found(15) {
        return;
    }
    for promoted in [false, true] {
        let mut world = world(15);
        set_back_over_a_segment(&mut world);
        world.source.psql("ALTER SYSTEM SET archive_mode = on").unwrap();
        world.source.stop(StopMode::Fast).unwrap();
        world.source.start().unwrap();
        let archive = |world: &World, command: &str| {
            world
                .source
                .psql(&format!("ALTER SYSTEM SET archive_command = '{}'", command.replace('\'', "''")))
                .unwrap();
            world.source.psql("SELECT pg_reload_conf()").unwrap();
        };
        let is = |world: &World, sql: &str| world.source.psql(sql).unwrap() == "t";
        archive(&world, &world.everpoint.archive_command(CLUSTER));
        insert(&world, &[24]);
        world.source.psql("SELECT pg_switch_wal()").unwrap();
        insert(&world, &[26]);
        world.wait_for("it is refused", || is(&world, "SELECT failed_count > 0 FROM pg_stat_archiver"));
        let open = world.source.psql("SELECT pg_walfile_name(pg_current_wal_lsn())").unwrap();
        archive(&world, "/bin/true");
        world.source.psql("SELECT pg_switch_wal()").unwrap();
        let over = format!("SELECT last_archived_wal >= '{open}' FROM pg_stat_archiver");
        world.wait_for("all is thrown away", || is(&world, &over));
        if promoted {
            promote_in_place(&mut world);
        }
        recycle(&world);
        let newest = latest_stored(&world);
        archive(&world, &world.everpoint.archive_command(CLUSTER));
        insert(&world, &[25]);
        let next = world.source.psql("SELECT pg_walfile_name(pg_current_wal_lsn())").unwrap();
        world.source.psql("SELECT pg_switch_wal()").unwrap();
        if promoted {
            let over = format!("SELECT last_archived_wal >= '{next}' FROM pg_stat_archiver");
            world.wait_for("the new timeline is archived", || is(&world, &over));
            needs_a_backup(&world);
            world.backup(&[]);
            goes_on(&mut world, "1 2 3 21 22 23 24 25 26");
        } else {
            let refused = format!("SELECT last_failed_wal >= '{next}' FROM pg_stat_archiver");
            world.wait_for("it is refused again", || is(&world, &refused));
            assert_eq!(latest_stored(&world), newest);
        }
    }
}

/// The end of what is stored, of all windows.
fn latest_stored(world: &World) -> Value {
    let list = world.everpoint.json(&["list", CLUSTER]).unwrap();
    list["clusters"][0]["windows"].clone()
}

/// The archiver comes to the new timeline only when it is rid of the old one's segments.
#[test]
fn an_archiving_server_that_was_set_back_and_promoted_goes_on() {
    if !found(15) {
        return;
    }
    let mut world = world(15);
    set_back_over_a_segment(&mut world);
    let command = world.everpoint.archive_command(CLUSTER);
    world.source.psql("ALTER SYSTEM SET archive_mode = on").unwrap();
    world
        .source
        .psql(&format!("ALTER SYSTEM SET archive_command = '{}'", command.replace('\'', "''")))
        .unwrap();
    world.source.stop(StopMode::Fast).unwrap();
    world.source.start().unwrap();
    insert(&world, &[24]);
    world.source.psql("SELECT pg_switch_wal()").unwrap();
    let archived = |world: &World, sql: &str| world.source.psql(sql).unwrap();
    let failed = "SELECT failed_count > 0 AND last_failed_wal LIKE '00000001%' FROM pg_stat_archiver";
    world.wait_for("it is refused", || archived(&world, failed) == "t");
    promote_in_place(&mut world);
    insert(&world, &[25]);
    world.source.psql("SELECT pg_switch_wal()").unwrap();
    let done = "SELECT last_archived_wal LIKE '00000002%' AND last_archived_wal NOT LIKE '%history' FROM pg_stat_archiver";
    world.wait_for("the new timeline is archived", || archived(&world, done) == "t");
    let log = world.source.log();
    assert!(log.contains("is not stored, as another content has its name"), "{log}");
    needs_a_backup(&world);
    world.backup(&[]);
    goes_on(&mut world, "1 2 3 21 22 23 24 25");
}

#[test]
fn a_branch_of_a_server_that_was_set_back_is_not_joined_before_a_restore_in_place() {
    if !found(15) {
        return;
    }
    let mut world = world(15);
    set_back_over_a_segment(&mut world);
    promote_in_place(&mut world);
    insert(&world, &[24]);
    world.source.stop(StopMode::Fast).unwrap();
    let refused = restore_in_place(&world, &[]);
    assert!(!refused.status.success() && refused.err.contains("everpoint backup"), "{}", refused.err);
    needs_a_backup(&world);
    world.source.start().unwrap();
    world.backup(&[]);
    goes_on(&mut world, "1 2 3 21 22 23 24");
}
