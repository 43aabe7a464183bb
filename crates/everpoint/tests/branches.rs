//! Life goes on after a restore in place: capture follows by itself, `latest` is what production has, and nothing that a
//! copy wrote is ever taken for production's.

// Helpers of tests fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code, reason = "shared with other scenarios")]
mod support_scenarios;

use std::fs;
use std::path::Path;

use everpoint_testkit::StopMode;
use serde_json::Value;
use support_scenarios::{CLUSTER, Copy, World, ask, found, quiet};

const ROWS: &str = "SELECT string_agg(n::text, ' ' ORDER BY n) FROM t";

/// A protected server with a table, a backup, and two restore points with rows around them.
fn world(major: u32) -> World {
    let mut world = World::new(quiet(major).start().unwrap());
    world.capture();
    world.source.psql("CREATE TABLE t (n int PRIMARY KEY)").unwrap();
    world.backup(&[]);
    for (row, point) in [(1, "first"), (2, "second")] {
        insert(&world, row);
        world.everpoint.run(&["restore-point", CLUSTER, point]).unwrap();
    }
    insert(&world, 3);
    world.settle(&world.source, 1);
    world
}

fn insert(world: &World, row: u32) {
    world.source.psql(&format!("INSERT INTO t VALUES ({row})")).unwrap();
}

/// Stops production, restores it in place, and starts it as its operator would.
fn in_place(world: &mut World, target: &str, more: &[&str]) {
    if world.source.pid().is_some() {
        world.source.stop(StopMode::Fast).unwrap();
    }
    let directory = world.source.data_dir().to_str().unwrap().to_owned();
    let arguments = ["restore", CLUSTER, &directory, "--delta", "--replace-production", "--to", target];
    world.everpoint.run(&[&arguments[..], more].concat()).unwrap();
    world.source.start().unwrap();
    world.wait_for("the server is promoted", || {
        world.source.psql("SELECT pg_is_in_recovery()").is_ok_and(|answer| answer == "f")
    });
}

fn timeline(world: &World) -> u64 {
    world.source.psql("SELECT timeline_id FROM pg_control_checkpoint()").unwrap().parse().unwrap()
}

/// What `latest` would be: its timeline.
fn latest(world: &World) -> u64 {
    let place = world.place();
    let arguments = ["restore", CLUSTER, place.to_str().unwrap(), "--dry-run"];
    let plan = world.everpoint.json(&arguments).unwrap();
    assert_eq!(plan["shortfall"], Value::Null, "{plan}");
    plan["timeline"].as_u64().unwrap()
}

/// A copy of the newest state has production's rows.
fn latest_is_production(world: &World) {
    let copy = world.restore("latest", &[]);
    assert_eq!(copy.psql(ROWS), world.source.psql(ROWS).unwrap());
    copy.stop_and_check(world);
}

fn role(world: &World, timeline: u64) -> Vec<String> {
    let list = world.everpoint.json(&["list", CLUSTER]).unwrap();
    let branches = list["clusters"][0]["branches"].as_array().unwrap().clone();
    let of = branches.iter().filter(|branch| branch["timeline"] == timeline);
    of.map(|branch| branch["role"].as_str().unwrap().to_owned()).collect()
}

fn twice_in_place(major: u32) {
    let mut world = world(major);
    in_place(&mut world, "name:second", &[]);
    assert_eq!(world.source.psql(ROWS).unwrap(), "1 2");
    insert(&world, 4);
    world.settle(&world.source, 2);
    assert_eq!((timeline(&world), latest(&world)), (2, 2));
    latest_is_production(&world);

    // Further back than the fork: the history that the server writes then has to grow.
    in_place(&mut world, "name:first", &[]);
    assert_eq!(world.source.psql(ROWS).unwrap(), "1");
    insert(&world, 5);
    world.settle(&world.source, 3);
    let history = fs::read_to_string(world.source.data_dir().join("pg_wal/00000003.history")).unwrap();
    assert!(history.starts_with("1\t") && history.trim().lines().count() == 1, "{history}");
    assert_eq!((timeline(&world), latest(&world)), (3, 3));
    latest_is_production(&world);
    assert_eq!(role(&world, 2), ["other"]);

    // Where it was before is offered by number.
    let copy = world.restore("latest", &["--timeline", "2"]);
    assert_eq!(copy.psql(ROWS), "1 2 4");
    copy.stop_and_check(&world);

    // A named timeline, as one who knows PostgreSQL would give it.
    in_place(&mut world, "name:second", &["--timeline", "1"]);
    insert(&world, 6);
    world.settle(&world.source, 4);
    assert_eq!((timeline(&world), latest(&world)), (4, 4));
    world.backup(&[]);
    latest_is_production(&world);
    let checked = world.everpoint.json(&["check", CLUSTER]).unwrap();
    assert_eq!(checked["clusters"][0]["ok"], true, "{checked}");

    // What was given up can go.
    let list = world.everpoint.json(&["list", CLUSTER]).unwrap();
    let other = list["clusters"][0]["branches"].as_array().unwrap().clone();
    let name = |timeline: u64| {
        let found = other.iter().find(|branch| branch["timeline"] == timeline).unwrap();
        found["branch"].as_str().unwrap().to_owned()
    };
    let needed = world.everpoint.try_run(&["expire", CLUSTER, "--branch", &name(1)]).unwrap();
    assert_eq!(needed.status.code(), Some(2), "{}", needed.err);
    world.everpoint.run(&["expire", CLUSTER, "--branch", &name(2)]).unwrap();
    assert!(role(&world, 2).is_empty());
    latest_is_production(&world);
}

#[test]
fn production_is_brought_back_twice_and_goes_on_13() {
    if found(13) {
        twice_in_place(13);
    }
}

#[test]
fn production_is_brought_back_twice_and_goes_on_18() {
    if found(18) {
        twice_in_place(18);
    }
}

#[test]
fn back_to_before_a_failover_and_capture_goes_on() {
    if !found(15) {
        return;
    }
    let mut world = world(15);
    let standby = world.source.standby().unwrap();
    world.stop_capture();
    world.source.stop(StopMode::Fast).unwrap();
    standby.promote().unwrap();
    let before = (world.source.url(), world.source.data_dir().display().to_string());
    let now = (standby.url(), standby.data_dir().display().to_string());
    support_scenarios::configure(&world, |text| text.replace(&before.0, &now.0).replace(&before.1, &now.1));
    let old = std::mem::replace(&mut world.source, standby);
    world.capture();
    insert(&world, 8);
    world.settle(&world.source, 2);
    assert_eq!(latest(&world), 2);

    in_place(&mut world, "name:first", &[]);
    insert(&world, 9);
    world.settle(&world.source, 3);
    assert_eq!((latest(&world), world.source.psql(ROWS).unwrap().as_str()), (3, "1 9"));
    latest_is_production(&world);
    drop(old);
}

#[test]
fn log_that_only_the_directory_holds_is_saved_also_behind_a_switch_of_segments() {
    if !found(15) {
        return;
    }
    let mut world = world(15);
    world.stop_capture();
    // Captured up to the end of a switch, or not even that.
    for row in [4, 5, 6] {
        insert(&world, row);
        world.source.psql("SELECT pg_switch_wal()").unwrap();
    }
    insert(&world, 7);
    world.source.kill9().unwrap();
    in_place(&mut world, "latest", &["--server-is-stopped"]);
    assert_eq!(world.source.psql(ROWS).unwrap(), "1 2 3 4 5 6 7");
    world.capture();
    insert(&world, 8);
    world.settle(&world.source, 2);
    let list = world.everpoint.json(&["list", CLUSTER]).unwrap();
    assert_eq!(list["clusters"][0]["gaps"], Value::Array(Vec::new()), "{list}");
    latest_is_production(&world);

    // Never started, a restore moves nothing: what was there before it is still the latest.
    world.source.stop(StopMode::Fast).unwrap();
    let directory = world.source.data_dir().to_str().unwrap().to_owned();
    let back = ["restore", CLUSTER, &directory, "--delta", "--replace-production", "--to", "name:first"];
    world.everpoint.run(&back).unwrap();
    assert_eq!(latest(&world), 2);
    in_place(&mut world, "latest", &[]);
    assert_eq!(world.source.psql(ROWS).unwrap(), "1 2 3 4 5 6 7 8");
}

#[test]
fn segments_that_a_server_keeps_for_reuse_are_not_saved_as_its_log() {
    if !found(15) {
        return;
    }
    let mut world = world(15);
    for row in [4, 5, 6] {
        insert(&world, row);
        world.source.psql("SELECT pg_switch_wal()").unwrap();
    }
    insert(&world, 7);
    world.settle(&world.source, 1);
    in_place(&mut world, "name:first", &[]);
    insert(&world, 8);
    world.settle(&world.source, 2);
    world.source.stop(StopMode::Fast).unwrap();
    // A promotion renames what is left of the older timeline, and it may come to lie at its own place.
    let kept = world.source.data_dir().join("pg_wal/000000020000000000000006");
    let older = ["archive-get", CLUSTER, "000000010000000000000006", kept.to_str().unwrap()];
    world.everpoint.run(&older).unwrap();
    in_place(&mut world, "latest", &["--timeline", "2"]);
    assert_eq!(world.source.psql(ROWS).unwrap(), "1 8");
    insert(&world, 9);
    world.settle(&world.source, 3);
    let list = world.everpoint.json(&["list", CLUSTER]).unwrap();
    assert_eq!(list["clusters"][0]["gaps"], Value::Array(Vec::new()), "{list}");
    latest_is_production(&world);
}

/// What a restore hands out may differ from what is stored: records that name places of tablespaces are rewritten. The
/// server keeps those files, and with archive_command alone the branch would never be stored.
#[test]
fn archiving_goes_on_behind_a_segment_that_a_restore_has_rewritten() {
    if !found(15) {
        return;
    }
    // Always: what the recovery fetched is archived once more.
    let mut world = World::new(quiet(15).setting("archive_mode", "always").start().unwrap());
    let command = world.everpoint.archive_command(CLUSTER);
    world.source.psql(&format!("ALTER SYSTEM SET archive_command = '{command}'")).unwrap();
    world.source.psql("SELECT pg_reload_conf()").unwrap();
    world.source.psql("CREATE TABLE t (n int PRIMARY KEY)").unwrap();
    world.backup(&[]);
    let late = world.source.home().subdir("late").unwrap();
    world.source.psql(&format!("CREATE TABLESPACE late LOCATION '{}'", late.display())).unwrap();
    insert(&world, 1);
    let switched = world.source.psql("SELECT pg_switch_wal()").unwrap();
    insert(&world, 2);
    world.settle_at(everpoint_testkit::parse_lsn(&switched).unwrap(), 1);
    in_place(&mut world, "latest", &[]);
    assert_eq!(world.source.psql(ROWS).unwrap(), "1 2");
    insert(&world, 3);
    let switched = world.source.psql("SELECT pg_switch_wal()").unwrap();
    world.settle_at(everpoint_testkit::parse_lsn(&switched).unwrap(), 2);
    let failed = "SELECT failed_count, last_failed_wal FROM pg_stat_archiver";
    assert_eq!(world.source.psql(failed).unwrap(), "0|");
    let list = world.everpoint.json(&["list", CLUSTER]).unwrap();
    assert_eq!(list["clusters"][0]["gaps"], Value::Array(Vec::new()), "{list}");
    latest_is_production(&world);
}

/// A copy is started, written to, stopped and refreshed.
#[test]
fn what_a_copy_writes_is_never_productions() {
    if !found(15) {
        return;
    }
    let world = world(15);
    let Copy { server, place, .. } = world.restore("name:first", &[]);
    ask(&mut server.session().unwrap(), "INSERT INTO t VALUES (100)");
    ask(&mut server.session().unwrap(), "SELECT pg_switch_wal()");
    server.stop_and_check(world.source.install()).unwrap();
    // Refreshed, its log goes with it; pushed by hand, that is stored beside, and production is not there.
    let log = place.join("pg_wal");
    let of_copy =
        |name: &str| name.starts_with("00000002") && (name.len() == 24 || name.ends_with(".history"));
    let names = fs::read_dir(&log).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut pushed: Vec<String> = names.filter(|name| of_copy(name)).collect();
    // History and first segment; later ones may be kept for reuse and hold something else.
    pushed.sort();
    pushed.truncate(2);
    let kept: Vec<(String, Vec<u8>)> =
        pushed.iter().map(|name| (name.clone(), fs::read(log.join(name)).unwrap())).collect();
    let directory = place.to_str().unwrap();
    world.everpoint.run(&["restore", CLUSTER, directory, "--delta", "--to", "name:second"]).unwrap();
    assert!(role(&world, 2).is_empty(), "the copy's log is not stored");
    assert_eq!(latest(&world), 1);
    assert!(kept.len() == 2 && kept[0].0.ends_with(".history"), "{pushed:?}");
    for (name, content) in kept.iter().rev() {
        fs::write(log.join(name), content).unwrap();
    }
    for (name, _) in kept.iter().rev() {
        let push = ["archive-push", CLUSTER, log.join(name).to_str().unwrap()].map(str::to_owned);
        let push: Vec<&str> = push.iter().map(String::as_str).collect();
        let ran = world.everpoint.try_run(&push).unwrap();
        assert!(ran.status.success() && ran.err.contains("adopt"), "{}", ran.told(&push));
    }
    insert(&world, 4);
    world.settle(&world.source, 1);
    assert_eq!((latest(&world), role(&world, 2)), (1, vec!["other".to_owned()]));
    latest_is_production(&world);
}

#[test]
fn histories_that_servers_accept_are_read_and_an_odd_one_spoils_no_other_branch() {
    if !found(15) {
        return;
    }
    let world = world(15);
    let history = world.source.data_dir().join("pg_wal/00000003.history");
    for text in ["1\t0/9000000\tx\n2\t0/5000000\ty\n", "1\t0/9000000\tx\n"] {
        fs::write(&history, text).unwrap();
        world.everpoint.run(&["archive-push", CLUSTER, history.to_str().unwrap()]).unwrap();
    }
    fs::remove_file(&history).unwrap();
    assert_eq!(latest(&world), 1);
    latest_is_production(&world);
    insert(&world, 9);
    world.settle(&world.source, 1);
}

/// The copy moves to production's address, and is adopted.
#[test]
fn a_copy_becomes_production_by_word_only() {
    if !found(15) {
        return;
    }
    let mut world = world(15);
    world.stop_capture();
    world.source.stop(StopMode::Fast).unwrap();
    let port = world.source.port().to_string();
    let copy = world.restore("name:second", &["--port", &port]);
    let socket = |text: String, place: &Path| {
        let url = format!("postgres://postgres@/postgres?host={}&port={port}", place.display());
        let line = text.lines().find(|line| line.starts_with("postgres = ")).unwrap().to_owned();
        text.replace(&line, &format!("postgres = \"{url}\""))
    };
    support_scenarios::configure(&world, |text| socket(text, &copy.place));
    ask(&mut copy.server.session().unwrap(), "INSERT INTO t VALUES (7)");

    // As long as it lets in nobody who replicates, and then.
    let checked = world.everpoint.try_run(&["--json", "check", CLUSTER]).unwrap();
    assert!(checked.out.contains("adopt"), "{}", checked.out);
    let access = copy.place.join("pg_hba.conf");
    let rules = fs::read_to_string(&access).unwrap() + "local replication all trust\n";
    fs::write(&access, rules).unwrap();
    copy.psql("SELECT pg_reload_conf()");
    let checked = world.everpoint.try_run(&["--json", "check", CLUSTER]).unwrap();
    assert!(checked.out.contains("adopt"), "{}", checked.out);
    assert_ne!(checked.status.code(), Some(0));
    world.everpoint.run(&["capture", CLUSTER, "--once"]).unwrap();
    assert_eq!((latest(&world), role(&world, 2)), (1, vec!["other".to_owned()]));

    let elsewhere = world.source.data_dir().to_str().unwrap();
    let refused = world.everpoint.try_run(&["adopt", CLUSTER, elsewhere]).unwrap();
    assert_eq!(refused.status.code(), Some(2), "{}", refused.err);
    let adopted = world.everpoint.json(&["adopt", CLUSTER, copy.place.to_str().unwrap()]).unwrap();
    assert_eq!(adopted["backup"]["status"], "ok", "{adopted}");
    assert!(!copy.place.join("everpoint.copy").exists());
    assert_eq!(latest(&world), 2);
    let again = world.restore("latest", &[]);
    assert_eq!(again.psql(ROWS), "1 2 7");
    again.stop_and_check(&world);
    let checked = world.everpoint.json(&["check", CLUSTER]).unwrap();
    assert_eq!(checked["clusters"][0]["ok"], true, "{checked}");
    copy.stop_and_check(&world);
}

#[test]
fn a_tablespace_stays_at_its_place_also_after_the_second_restore() {
    if !found(15) {
        return;
    }
    let mut world = world(15);
    let late = world.source.home().subdir("late").unwrap();
    world.source.psql(&format!("CREATE TABLESPACE late LOCATION '{}'", late.display())).unwrap();
    world.source.psql("CREATE TABLE kept (n int) TABLESPACE late").unwrap();
    insert(&world, 4);
    world.settle(&world.source, 1);
    let place = "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'late'";
    for (row, line) in [(5, 2), (6, 3), (7, 4)] {
        in_place(&mut world, "latest", &[]);
        assert_eq!(world.source.psql(place).unwrap(), late.to_str().unwrap(), "before row {row}");
        insert(&world, row);
        world.settle(&world.source, line);
    }
    assert_eq!(world.source.psql(ROWS).unwrap(), "1 2 3 4 5 6 7");
}
