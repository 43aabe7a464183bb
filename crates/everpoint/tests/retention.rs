//! Bundles and expiry with the compiled program and a real server: what is kept can be restored, and nothing else is there.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail loudly"
)]

#[allow(dead_code, reason = "shared with other scenarios")]
mod support_scenarios;

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use everpoint_format::keyslot::KeyText;
use everpoint_repo::Repository;
use everpoint_store::LocalStore;
use everpoint_testkit::text;
use serde_json::Value;
use support_scenarios::{CLUSTER, World, configure, found, quiet};

/// A server with small segments, captured.
fn world() -> Option<World> {
    if !found(15) {
        return None;
    }
    let mut world = World::new(quiet(15).wal_segsize_mb(1).start().unwrap());
    world.capture();
    world.source.psql("CREATE TABLE t (n int)").unwrap();
    Some(world)
}

/// Adds rows in segments of their own.
fn fill(world: &World, rows: std::ops::Range<u32>) {
    for n in rows {
        world.source.psql(&format!("INSERT INTO t VALUES ({n})")).unwrap();
        world.source.psql("SELECT pg_switch_wal()").unwrap();
    }
    world.settle(&world.source, 1);
}

fn point(world: &World, name: &str) {
    world.everpoint.run(&["restore-point", CLUSTER, name]).unwrap();
    fill(world, 1000..1001);
}

fn of_cluster(answer: &Value) -> &Value {
    &answer["clusters"][0]
}

fn list(world: &World) -> Value {
    of_cluster(&world.everpoint.json(&["list", CLUSTER]).unwrap()).clone()
}

fn expire(world: &World, more: &[&str]) -> Value {
    of_cluster(&world.everpoint.json(&[&["expire", CLUSTER], more].concat()).unwrap()).clone()
}

fn labels(lines: &Value) -> Vec<String> {
    lines.as_array().unwrap().iter().map(|line| text(line, "/label").unwrap().to_owned()).collect()
}

fn names(lines: &Value) -> Vec<String> {
    lines.as_array().unwrap().iter().map(|line| text(line, "/name").unwrap().to_owned()).collect()
}

/// Objects of the repository whose name has this part.
fn objects(world: &World, part: &str) -> usize {
    let base = world.everpoint.home().path().join("repository");
    let (mut found, mut left) = (0, vec![base]);
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else if path.to_string_lossy().contains(part) {
                found += 1;
            }
        }
    }
    found
}

fn repository(world: &World) -> Repository {
    let home = world.everpoint.home().path();
    let key = std::fs::read_to_string(home.join("key")).unwrap();
    let store = LocalStore::open(&home.join("repository")).unwrap();
    Repository::open(Arc::new(store), Some(&KeyText::parse(key.trim()).unwrap())).unwrap()
}

/// Takes a lease as another process has it, or releases it; what that wrote belongs to the user of the program.
fn with_leases<T>(world: &World, act: impl FnOnce() -> T) -> T {
    let done = act();
    let repository = world.everpoint.home().path().join("repository");
    let owner = std::fs::metadata(repository.join("config")).unwrap();
    let mut left = vec![repository.join("leases")];
    while let Some(path) = left.pop() {
        std::os::unix::fs::chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
        if path.is_dir() {
            left.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    done
}

/// Does it, and does it again if a full hour passed meanwhile: hours are what bundles are made of.
fn within_one_hour<T>(act: impl Fn() -> T) -> T {
    let hour = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 3600;
    loop {
        let begun = hour();
        let done = act();
        if hour() == begun {
            return done;
        }
    }
}

#[test]
fn bundled_log_is_listed_restored_and_captured_on_as_before() {
    let bundled = within_one_hour(|| {
        let world = world()?;
        world.backup(&[]);
        fill(&world, 0..3);
        point(&world, "middle");
        fill(&world, 3..6);
        let before = list(&world);
        let early = world.everpoint.json(&["bundle", CLUSTER]).unwrap();
        let file = world.everpoint.home().path().join("restore-points.json");
        let closing = ["bundle", CLUSTER, "--close", "--restore-points", file.to_str().unwrap()];
        let report = world.everpoint.json(&closing).unwrap();
        Some((world, before, early, file, report))
    });
    let Some((mut world, before, early, file, report)) = bundled else { return };
    assert_eq!(early["made"], Value::Array(Vec::new()), "the hour still runs");
    assert_eq!(report["made"].as_array().unwrap().len(), 1, "{report}");
    assert!(report["stored_bytes"].as_u64() < report["replaced_bytes"].as_u64(), "{report}");
    let written: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(names(&written["restore_points"]), ["middle"]);
    assert_eq!(objects(&world, ".digest"), 0, "all whole segments are bundled");
    assert_eq!(objects(&world, "/bundles/"), 2);
    // While capture went on nothing has changed for those who look.
    let after = list(&world);
    assert_eq!(after["windows"][0]["from_lsn"], before["windows"][0]["from_lsn"]);
    assert_eq!((&after["windows"][1], &after["gaps"]), (&Value::Null, &Value::Array(Vec::new())));
    assert_eq!(world.restore("name:middle", &[]).psql("SELECT count(*) FROM t"), "3");
    // A capture that begins anew goes on behind the bundle.
    world.stop_capture();
    world.everpoint.run(&["bundle", CLUSTER, "--close"]).unwrap();
    world.capture();
    fill(&world, 6..9);
    world.everpoint.run(&["bundle", CLUSTER, "--close"]).unwrap();
    let copy = world.restore("latest", &[]);
    assert_eq!(copy.psql("SELECT count(*) FROM t"), "10");
    copy.stop_and_check(&world);
    assert_eq!(list(&world)["gaps"], Value::Array(Vec::new()));
}

#[test]
fn expire_removes_what_it_said_and_nothing_that_somebody_needs() {
    let Some(world) = world() else { return };
    let few = "\n[retention]\nlast = 1\ndaily = 0\nweekly = 0\nmonthly = 0\nwindow_days = 0\n";
    configure(&world, |text| text + few);
    let held = world.backup(&["--full"]);
    fill(&world, 0..3);
    point(&world, "early");
    let gone = world.backup(&["--full"]);
    fill(&world, 3..6);
    point(&world, "late");
    let last = world.backup(&["--full"]);
    fill(&world, 6..8);
    point(&world, "newest");
    world.everpoint.run(&["hold", CLUSTER, &held]).unwrap();
    assert!(list(&world)["backups"][0]["hold"].is_object());

    let before = list(&world);
    let plan = expire(&world, &["--dry-run", "--now"]);
    assert_eq!(labels(&plan["dropped"]), [gone.as_str()]);
    assert_eq!(labels(&plan["kept"]), [held.as_str(), last.as_str()]);
    assert_eq!(names(&plan["restore_points"]), ["early", "late"]);
    assert!(plan["packs_removed"].as_u64() > Some(0) && plan["log_bytes"].as_u64() > Some(0), "{plan}");
    assert_eq!(list(&world)["backups"], before["backups"], "it was only asked");

    // Somebody reads: nothing goes. A backup runs: no pack goes.
    let opened = repository(&world);
    let lease = |id: &str, holder: &str| {
        with_leases(&world, || opened.lease(id, holder, Duration::from_secs(60)).unwrap())
    };
    let reading = lease(&format!("reading-{CLUSTER}-1-1"), "restore");
    let waits = expire(&world, &["--now"]);
    assert!(waits["waits"].as_str().unwrap().contains("restore"), "{waits}");
    assert_eq!(labels(&list(&world)["backups"]), [held.as_str(), gone.as_str(), last.as_str()]);
    with_leases(&world, || drop(reading));
    let id = opened.cluster(CLUSTER).unwrap().backup_lease_id();
    let running = lease(&id, "backup");
    let packs = objects(&world, "/packs/");
    let done = expire(&world, &["--now"]);
    assert_eq!((done["packs_removed"].as_u64(), objects(&world, "/packs/")), (Some(0), packs), "{done}");
    assert_eq!(done["log_bytes"], plan["log_bytes"]);
    with_leases(&world, || drop(running));

    let done = expire(&world, &["--now"]);
    assert_eq!(done["packs_removed"], plan["packs_removed"], "{done}");
    let after = list(&world);
    assert_eq!(labels(&after["backups"]), [held.as_str(), last.as_str()]);
    assert_eq!(after["gaps"], Value::Array(Vec::new()), "what was let go is no gap");
    let again = expire(&world, &["--now"]);
    assert_eq!((again["freed_bytes"].as_u64(), &again["dropped"]), (Some(0), &Value::Array(Vec::new())));

    // What stays can be restored, what went is told.
    let rows = |copy: support_scenarios::Copy| copy.psql("SELECT count(*) FROM t");
    assert_eq!(rows(world.restore(&format!("backup:{held}"), &[])), "0");
    assert_eq!(rows(world.restore("name:newest", &[])), "10");
    let place = world.place();
    let refused =
        world.everpoint.try_run(&["restore", CLUSTER, place.to_str().unwrap(), "--to", "name:late"]);
    assert_eq!(refused.unwrap().status.code(), Some(3));
}

#[test]
fn packs_wait_behind_a_tombstone() {
    let Some(world) = world() else { return };
    configure(&world, |text| {
        text + "\n[cluster.order-db.retention]\ndaily = 0\nweekly = 0\nmonthly = 0\nwindow_days = 0\n"
    });
    world.backup(&["--full"]);
    fill(&world, 0..1);
    world.backup(&["--full"]);
    fill(&world, 1..2);
    let packs = objects(&world, "/packs/");
    for _ in 0..2 {
        let report = expire(&world, &[]);
        assert_eq!(report["packs_removed"], 0, "{report}");
        assert!(report["packs_waiting_bytes"].as_u64() > Some(0), "{report}");
    }
    assert_eq!((objects(&world, "/packs/"), objects(&world, "/tombstones/")), (packs, 1));
    // The map of the one that went is not there; the packs go when it is said that they may.
    assert!(expire(&world, &["--now"])["packs_removed"].as_u64() > Some(0));
    assert_eq!(objects(&world, "/tombstones/"), 0);
    assert!(objects(&world, "/packs/") < packs);
    assert_eq!(world.restore("latest", &[]).psql("SELECT count(*) FROM t"), "2");
}
