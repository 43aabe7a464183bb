//! A production whose directory holds log that is not stored.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use everpoint_testkit::StopMode;
use serde_json::Value;

use crate::support_scenarios::{CLUSTER, World, quiet};

pub(crate) const ROWS: &str = "SELECT string_agg(n::text, ' ' ORDER BY n) FROM t";

/// A protected server with three rows that are captured; nothing captures any more.
pub(crate) fn world(major: u32) -> World {
    let mut world = World::new(quiet(major).start().unwrap());
    world.capture();
    world.source.psql("CREATE TABLE t (n int PRIMARY KEY)").unwrap();
    world.backup(&[]);
    insert(&world, &[1, 2, 3]);
    world.settle(&world.source, 1);
    world.stop_capture();
    world
}

pub(crate) fn insert(world: &World, rows: &[u32]) {
    for row in rows {
        world.source.psql(&format!("INSERT INTO t VALUES ({row})")).unwrap();
    }
}

/// Rows, each in a segment of its own.
pub(crate) fn insert_in_segments(world: &World, rows: &[u32]) {
    for row in rows {
        insert(world, &[*row]);
        world.source.psql("SELECT pg_switch_wal()").unwrap();
    }
}

pub(crate) fn data(world: &World) -> PathBuf {
    world.source.data_dir().to_owned()
}

pub(crate) fn restore_in_place(world: &World, more: &[&str]) -> everpoint_testkit::Ran {
    let directory = data(world);
    let arguments = ["restore", CLUSTER, directory.to_str().unwrap(), "--delta", "--replace-production"];
    world.everpoint.try_run(&[&arguments[..], more].concat()).unwrap()
}

/// Restores a stopped server in place to the newest state, and starts it.
pub(crate) fn in_place(world: &mut World) {
    let ran = restore_in_place(world, &["--server-is-stopped"]);
    assert!(ran.status.success(), "{}", ran.err);
    world.source.start().unwrap();
    world.wait_for("the server is promoted", || {
        world.source.psql("SELECT pg_is_in_recovery()").is_ok_and(|answer| answer == "f")
    });
}

/// Production has these rows, and so has a copy; the log has no gap.
pub(crate) fn has(world: &mut World, rows: &str) {
    goes_on(world, rows);
    let list = world.everpoint.json(&["list", CLUSTER]).unwrap();
    assert_eq!(list["clusters"][0]["gaps"], Value::Array(Vec::new()), "{list}");
}

pub(crate) fn goes_on(world: &mut World, rows: &str) {
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
pub(crate) fn promote_in_place(world: &mut World) {
    world.source.stop(StopMode::Fast).unwrap();
    fs::write(data(world).join("standby.signal"), "").unwrap();
    world.source.start().unwrap();
    world.source.promote().unwrap();
}

pub(crate) fn copy_all(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// Production is set back to a snapshot of its machine, after these rows were captured; `switches`: and its segment switched.
pub(crate) fn set_back(world: &mut World, rows: &[u32], switches: bool) {
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

/// Production is set back to a snapshot of its machine after rows in two segments were captured, and writes others, so that
/// its segments end where the stored ones end.
pub(crate) fn set_back_over_a_segment(world: &mut World) {
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
pub(crate) fn recycle(world: &World) {
    world.source.psql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots").unwrap();
    world.source.psql("CHECKPOINT").unwrap();
    world.source.psql("CHECKPOINT").unwrap();
}

/// The newest state can't be had from the backups that there are.
pub(crate) fn needs_a_backup(world: &World) {
    let place = world.place();
    let ran = world
        .everpoint
        .try_run(&["restore", CLUSTER, place.to_str().unwrap(), "--dry-run", "--json"])
        .unwrap();
    let plan: Value = serde_json::from_str(&ran.out).unwrap();
    assert_ne!(plan["shortfall"], Value::Null, "{plan} {}", ran.err);
}
