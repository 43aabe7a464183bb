//! Packages of a damaged repository: what can still be read goes in, and nothing is promised that is not there.

// Helpers of tests fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code, reason = "shared with other scenarios")]
mod support_scenarios;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use everpoint_testkit::text;
use support_scenarios::{CLUSTER, World, found, quiet};

/// Damages these, each for good: twice would bring them back.
fn damage<'a>(packs: impl Iterator<Item = &'a PathBuf>) {
    for pack in packs {
        let mut bytes = fs::read(pack).unwrap();
        bytes.iter_mut().skip(16).step_by(61).for_each(|byte| *byte ^= 0x55);
        fs::remove_file(pack).unwrap();
        fs::write(pack, bytes).unwrap();
    }
}

/// What the repository holds of the cluster, below this directory.
fn stored(world: &World, below: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![world.everpoint.home().path().join("repository/clusters").join(CLUSTER).join(below)];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    found
}

#[test]
fn with_a_damaged_image_the_one_before_goes_in_and_without_any_the_log_alone() {
    if !found(15) {
        return;
    }
    let mut world = World::new(quiet(15).start().unwrap());
    world.source.psql("CREATE TABLE days AS SELECT 1 AS n").unwrap();
    world.capture();
    let older = world.backup(&[]);
    let sound = stored(&world, "packs");
    world.source.psql("INSERT INTO days SELECT n FROM generate_series(2, 3000) n").unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    let newest = world.backup(&["--full"]);
    world.source.psql("INSERT INTO days VALUES (0)").unwrap();
    world.settle(&world.source, 1);
    damage(stored(&world, "packs").iter().filter(|pack| !sound.contains(pack)));
    let place = world.everpoint.home().path().join("packages");
    let arguments = ["offsite", "pack", "--directory", place.to_str().unwrap()];
    let report = world.everpoint.json(&arguments).unwrap();
    assert_eq!(report["clusters"][0]["base"], older, "{report}");
    let shortfalls = report["shortfalls"].to_string();
    let advice = format!("everpoint backup {CLUSTER} --full");
    assert!(shortfalls.contains(&newest) && shortfalls.contains(&advice), "{report}");
    let copy = world.restore("latest", &["--package", text(&report, "/file").unwrap()]);
    assert_eq!(copy.psql("SELECT count(*) FROM days"), "3001");

    std::thread::sleep(Duration::from_millis(1100));
    damage(sound.iter());
    let report = world.everpoint.json(&arguments).unwrap();
    assert!(report["clusters"][0]["base"].is_null(), "{report}");
    assert!(report["clusters"][0]["segments"].as_u64().unwrap() > 0, "{report}");
    let shortfalls = report["shortfalls"].to_string();
    assert!(shortfalls.contains(&newest) && shortfalls.contains(&older), "{report}");
}

#[test]
fn behind_log_that_can_not_be_read_no_moment_is_promised() {
    if !found(15) {
        return;
    }
    let mut world = World::new(quiet(15).start().unwrap());
    world.source.psql("CREATE TABLE days (n int)").unwrap();
    world.capture();
    world.backup(&[]);
    let segment_of = |day: u32| -> String {
        let current = world.source.psql("SELECT pg_walfile_name(pg_current_wal_lsn())").unwrap();
        world.source.psql(&format!("INSERT INTO days VALUES ({day})")).unwrap();
        world.source.psql("SELECT pg_switch_wal()").unwrap();
        world.source.psql("CHECKPOINT").unwrap();
        world.settle(&world.source, 1);
        current
    };
    let names = [1, 2, 3].map(segment_of);
    let segments = stored(&world, "log");
    let broken: Vec<&PathBuf> = segments.iter().filter(|path| path.ends_with(&names[1])).collect();
    assert_eq!(broken.len(), 1, "{segments:?}");
    damage(broken.into_iter());
    let place = world.everpoint.home().path().join("packages");
    let report = world.everpoint.json(&["offsite", "pack", "--directory", place.to_str().unwrap()]).unwrap();
    assert!(report["shortfalls"].to_string().contains("is missing"), "{report}");
    let to = text(&report, "/clusters/0/to_lsn").unwrap();
    let copy = world.restore(&format!("lsn:{to}"), &["--package", text(&report, "/file").unwrap()]);
    assert_eq!(copy.psql("SELECT string_agg(n::text, ',') FROM days"), "1");
    let ends_in = world.source.psql(&format!("SELECT pg_walfile_name('{to}')")).unwrap();
    assert!(ends_in <= names[1], "{report}");
}
