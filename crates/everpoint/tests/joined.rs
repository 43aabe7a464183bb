//! Log of a server that was set back is not taken for the continuation of what is stored: not by capture, nor by
//! `archive-push`, nor before a restore in place.

// Helpers of tests fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code, reason = "shared with other scenarios")]
mod support_salvage;
#[allow(dead_code, reason = "shared with other scenarios")]
mod support_scenarios;

use everpoint_testkit::StopMode;
use serde_json::Value;
use support_salvage::{
    data, goes_on, has, insert, needs_a_backup, promote_in_place, recycle, restore_in_place, set_back,
    set_back_over_a_segment, world,
};
use support_scenarios::{CLUSTER, World, configure, found};

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
        let status = world.everpoint.try_run(&["status", CLUSTER]).unwrap();
        assert!(status.out.contains("archive_command fails, on 0000"), "{}", status.out);
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

/// A clone that was refused gets a name of its own, as the hint says.
#[test]
fn what_is_remembered_of_a_clone_counts_where_the_other_one_is_stored() {
    if !found(15) {
        return;
    }
    let mut world = world(15);
    set_back_over_a_segment(&mut world);
    insert(&world, &[24]);
    world.source.psql("SELECT pg_switch_wal()").unwrap();
    let log = data(&world).join("pg_wal");
    let segment = |number: u32| log.join(format!("0000000100000000{number:08X}"));
    let named = world.source.psql("SELECT pg_walfile_name(pg_current_wal_lsn())").unwrap();
    let last = u32::from_str_radix(&named[16..], 16).unwrap();
    let path = segment(last - 1);
    let push =
        |cluster: &str| world.everpoint.try_run(&["archive-push", cluster, path.to_str().unwrap()]).unwrap();
    let refused = push(CLUSTER);
    assert_eq!(refused.status.code(), Some(4), "{}", refused.err);
    assert!(log.join("everpoint-apart.json").exists());
    configure(&world, |text| {
        let (before, table) = text.split_once(&format!("[cluster.{CLUSTER}]")).unwrap();
        format!("{before}[cluster.clone]{table}")
    });
    let own = push("clone");
    assert!(own.status.success(), "{}", own.err);
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
