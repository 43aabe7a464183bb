//! A copy that nobody has adopted is seen as one at production's address, whatever the configuration knows of its directory.

// Helpers of tests fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code, reason = "shared with other scenarios")]
mod support_scenarios;

use std::fs;
use std::path::{Path, PathBuf};

use everpoint_testkit::{PgCluster, Scratch, StopMode};
use serde_json::Value;
use support_scenarios::{CLUSTER, World, configure, forget_files, found, quiet};

const SETTING: &str = "everpoint.copy = ";

const AUTO: &str = "postgresql.auto.conf";

/// A server that is protected as the guide says: by a role that may replicate, without a data_dir.
fn world(major: u32) -> World {
    let source = quiet(major).start().unwrap();
    source.psql("CREATE ROLE backup LOGIN REPLICATION").unwrap();
    source.psql("ALTER SYSTEM SET application_name = 'caf'").unwrap();
    let mut world = World::new(source);
    configure(&world, |text| text.replace("postgres://postgres@", "postgres://backup@"));
    forget_files(&world);
    world.capture();
    world.source.psql("CREATE TABLE t AS SELECT 1 AS n").unwrap();
    world.backup(&[]);
    world.source.psql("INSERT INTO t VALUES (2)").unwrap();
    world.settle(&world.source, 1);
    world.stop_capture();
    world
}

fn lines(path: &Path, line: &str) -> usize {
    fs::read_to_string(path).unwrap().lines().filter(|it| it.starts_with(line)).count()
}

/// A copy, promoted and stopped, that has production's configuration as the runbook puts it back.
fn copy(world: &mut World) -> PathBuf {
    let copy = world.restore("latest", &[]);
    let place = copy.place.clone();
    copy.stop_and_check(world);
    for name in ["postgresql.conf", AUTO, "pg_hba.conf", "pg_ident.conf"] {
        fs::rename(place.join(format!("{name}.production")), place.join(name)).unwrap();
    }
    world.source.stop(StopMode::Fast).unwrap();
    place
}

/// It answers at production's address.
fn moves_in(world: &World, place: &Path) -> PgCluster {
    let home = Scratch::new("moved").unwrap();
    let mut server = PgCluster::on_directory(world.source.install().clone(), home, place.to_owned()).unwrap();
    server.start().unwrap();
    let (old, new) = (world.source.url(), server.url());
    let of_role = |url: &str| url.replace("postgres://postgres@", "postgres://backup@");
    configure(world, |text| text.replace(&of_role(&old), &of_role(&new)));
    server
}

fn name_data_dir(world: &World, directory: &Path) {
    forget_files(world);
    let line = format!("data_dir = \"{}\"\npg_bin", directory.display());
    configure(world, |text| text.replace("pg_bin", &line));
}

/// What `latest` would be: its timeline.
fn latest(world: &World) -> u64 {
    let place = world.place();
    let plan = world.everpoint.json(&["restore", CLUSTER, place.to_str().unwrap(), "--dry-run"]).unwrap();
    plan["timeline"].as_u64().unwrap()
}

fn production_line(world: &World) -> (String, String) {
    let checked = world.everpoint.report(&["check", CLUSTER]).unwrap();
    let all = checked["clusters"][0]["lines"].as_array().unwrap().clone();
    let line = all.iter().find(|line| line["name"] == "production").unwrap();
    let text = |field: &str| line[field].as_str().unwrap().to_owned();
    (text("state"), text("message"))
}

/// Everybody who looks calls it a copy, and `latest` stays.
fn is_called_a_copy(world: &World) {
    let status = world.everpoint.try_run(&["status", CLUSTER]).unwrap();
    assert!(!status.status.success() && status.out.contains("everpoint adopt"), "{}", status.out);
    let (state, message) = production_line(world);
    assert!(state == "error" && message.contains("latest still means"), "{message}");
    let captured = world.everpoint.try_run(&["capture", CLUSTER, "--once"]).unwrap();
    assert!(captured.status.success() && captured.err.contains("everpoint adopt"), "{}", captured.err);
    let refused = world.everpoint.try_run(&["adopt", CLUSTER]).unwrap();
    assert_eq!(refused.status.code(), Some(2), "{}", refused.err);
    assert_eq!(latest(world), 1);
}

fn seen_until_adopted(major: u32) {
    if !found(major) {
        return;
    }
    let mut world = world(major);
    let place = copy(&mut world);
    let server = moves_in(&world, &place);
    is_called_a_copy(&world);
    // The directory in which production was.
    name_data_dir(&world, world.source.data_dir());
    is_called_a_copy(&world);
    // What ALTER SYSTEM writes anew says the same.
    server.psql("ALTER SYSTEM SET work_mem = '5MB'").unwrap();
    server.psql("ALTER SYSTEM RESET work_mem").unwrap();
    is_called_a_copy(&world);
    // One line, however often it is restored and refreshed.
    let first = world.place();
    for more in [&[][..], &["--delta"], &["--delta", "--start"]] {
        let arguments = [&["restore", CLUSTER, first.to_str().unwrap()], more].concat();
        world.everpoint.run(&arguments).unwrap();
        assert_eq!(lines(&first.join(AUTO), SETTING), 1, "{more:?}");
        assert_eq!(lines(&first.join(format!("{AUTO}.production")), SETTING), 1, "{more:?}");
    }
    assert_eq!(lines(&first.join(AUTO), "recovery_target"), 0);
    drop(everpoint_testkit::RunningCopy::on(&first).unwrap());
    let label = world.backup(&[]);
    for log in [server.log(), world.source.log()] {
        assert!(!log.lines().any(|line| line.contains("ERROR") && line.contains("everpoint")), "{log}");
    }

    let adopted = world.everpoint.try_run(&["adopt", CLUSTER, place.to_str().unwrap()]).unwrap();
    assert!(adopted.status.success(), "{}", adopted.err);
    assert!(adopted.err.contains(&format!("data_dir = \"{}\"", place.display())), "{}", adopted.err);
    assert_eq!(fs::read(place.join(AUTO)).unwrap(), fs::read(world.source.data_dir().join(AUTO)).unwrap());
    let shown = "SELECT coalesce(current_setting('everpoint.copy', true), '')";
    world.wait_for("the setting is gone", || server.psql(shown).unwrap().is_empty());
    forget_files(&world);
    assert_eq!((production_line(&world).0.as_str(), latest(&world)), ("ok", 2));

    // An image of the time when it was a copy.
    let anew = world.place();
    let target = format!("backup:{label}");
    let production = ["--replace-production", "--timeline", "2", "--to", &target];
    world.everpoint.run(&[&["restore", CLUSTER, anew.to_str().unwrap()], &production[..]].concat()).unwrap();
    assert_eq!(lines(&anew.join(AUTO), SETTING), 0);
}

#[test]
fn a_copy_at_productions_address_is_seen_until_it_is_adopted_13() {
    seen_until_adopted(13);
}

#[test]
fn a_copy_at_productions_address_is_seen_until_it_is_adopted_18() {
    seen_until_adopted(18);
}

/// Nothing that can be asked tells it, as after a restore of an older version.
#[test]
fn a_backup_over_the_wire_that_meets_the_mark_of_a_copy_fails_and_the_present_is_not_promised() {
    if !found(15) {
        return;
    }
    let mut world = world(15);
    let place = copy(&mut world);
    let conf = fs::read_to_string(place.join(AUTO)).unwrap();
    let kept: Vec<&str> = conf.split_inclusive('\n').filter(|line| !line.starts_with(SETTING)).collect();
    fs::write(place.join(AUTO), kept.concat()).unwrap();
    let _server = moves_in(&world, &place);
    let failed = world.everpoint.try_run(&["--json", "backup", CLUSTER]).unwrap();
    assert_eq!(failed.status.code(), Some(2), "{}", failed.err);
    assert!(failed.out.contains("pg.copy") || failed.err.contains("pg.copy"), "{failed:?}");
    let list = world.everpoint.json(&["list", CLUSTER]).unwrap();
    let backups = list["clusters"][0]["backups"].as_array().unwrap();
    let good = backups.iter().filter(|backup| backup["status"] == "ok").count();
    assert_eq!(good, 1, "{list}");

    // It was taken for production, and with the right directory it is seen.
    world.everpoint.run(&["capture", CLUSTER, "--once"]).unwrap();
    assert_eq!(latest(&world), 2);
    name_data_dir(&world, &place);
    let (state, message) = production_line(&world);
    assert!(state == "error" && !message.contains("still means"), "{message}");
    let before = message.split("--timeline ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let arguments = ["restore", CLUSTER, world.place().to_str().unwrap(), "--dry-run", "--timeline", &before]
        .map(str::to_owned);
    let plan = world.everpoint.json(&arguments.each_ref().map(String::as_str)).unwrap();
    assert_eq!(plan["timeline"], Value::from(1), "{plan}");

    // A clone that there is nothing to adopt for.
    forget_files(&world);
    fs::remove_file(place.join("everpoint.copy")).unwrap();
    world.backup(&[]);
}

/// Nobody answers, so that nothing proves which directory is meant: the configuration has to say the same.
#[test]
fn a_directory_that_the_configuration_does_not_name_is_not_adopted_unseen() {
    if !found(15) {
        return;
    }
    let mut world = world(15);
    let home = world.everpoint.home().path().to_owned();
    let daemon = format!("\n[serve]\nstate_dir = \"{}/state\"\n[api]\nlisten = \"off\"\n", home.display());
    configure(&world, |text| text + &daemon);
    let place = copy(&mut world);
    name_data_dir(&world, world.source.data_dir());
    let adopt = ["adopt", CLUSTER, place.to_str().unwrap()];
    let refused = world.everpoint.try_run(&adopt).unwrap();
    assert_eq!(refused.status.code(), Some(2), "{}", refused.err);
    assert!(refused.err.contains(&format!("data_dir = \"{}\"", place.display())), "{}", refused.err);
    assert!(place.join("everpoint.copy").exists());
    assert_eq!((lines(&place.join(AUTO), SETTING), latest(&world)), (1, 1));

    name_data_dir(&world, &place);
    let serving = world.everpoint.spawn(&["serve"]).unwrap();
    world.wait_for("the daemon serves", || serving.said().contains("serving"));
    let adopted = world.everpoint.try_run(&adopt).unwrap();
    assert!(adopted.status.success(), "{}", adopted.err);
    assert!(adopted.err.contains("the daemon takes a backup"), "{}", adopted.err);
    assert!(!adopted.err.contains("everpoint backup"), "{}", adopted.err);
    assert_eq!(lines(&place.join(AUTO), SETTING), 0);
    serving.stop().unwrap();
    let again = world.everpoint.try_run(&adopt).unwrap();
    assert!(again.status.success() && again.err.contains("everpoint backup"), "{}", again.err);
}
