//! What refuses a restore for the moment: the plan is shown all the same, and what to do is said as it is typed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail loudly"
)]

#[allow(dead_code, reason = "shared with other scenarios")]
mod support_places;
#[allow(dead_code, reason = "shared with other scenarios")]
mod support_scenarios;

use std::fs;
use std::time::Duration;

use everpoint_testkit::{Port, RunningCopy, StopMode};
use support_places::{MARKER, PART, Scene};
use support_scenarios::{CLUSTER, World, found, quiet};

/// What is done in place is seen while production runs: files that go, tablespaces, configuration that stays.
#[test]
fn a_dry_run_shows_its_plan_while_production_runs() {
    if !found(15) {
        return;
    }
    let scene = Scene::new();
    let data = scene.world.source.data_dir().to_owned();
    let conf = data.join("postgresql.conf");
    let text = fs::read_to_string(&conf).unwrap();
    fs::write(&conf, format!("{text}# of now\n")).unwrap();
    fs::write(data.join("stray"), "x").unwrap();
    scene.own(&data);
    let place = data.to_str().unwrap();
    let restore = ["restore", CLUSTER, place, "--delta", "--replace-production"];
    let dry = [&restore[..], &["--dry-run"]].concat();
    let ran = scene.world.everpoint.try_run(&dry).unwrap();
    assert_eq!(ran.status.code(), Some(2), "{}", ran.told(&dry));
    let removes = format!("removes     {}", data.join("stray").display());
    let space = format!("writes to   {}", scene.space.join(PART).display());
    for part in ["backup ", "would reach ", &removes, &space, "stays as it is now", "is saved first"] {
        assert!(ran.out.contains(part), "{part}: {}", ran.told(&dry));
    }
    for part in ["a server runs on it", "hint: stop it first"] {
        assert!(ran.err.contains(part) && !ran.out.contains(part), "{part}: {}", ran.told(&dry));
    }
    // For programs: the fields of a plan, and those of an error.
    let arguments = [&["--json"], &dry[..]].concat();
    let ran = scene.world.everpoint.try_run(&arguments).unwrap();
    assert_eq!(ran.status.code(), Some(2), "{}", ran.told(&arguments));
    let plan: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(plan["error"]["code"], "restore.live_server", "{plan}");
    assert!(plan["error"]["hint"].as_str().unwrap().contains("stop it first"), "{plan}");
    assert!(plan["backup"].is_string() && plan["shortfall"].is_null(), "{plan}");
    assert!(plan["removes"].to_string().contains("stray"), "{plan}");
    // The same without --dry-run is refused at once, and nothing is there of it.
    let ran = scene.world.everpoint.try_run(&restore).unwrap();
    assert!(ran.status.code() == Some(2) && ran.out.is_empty(), "{}", ran.told(&restore));
    assert!(data.join("stray").exists() && !data.join(MARKER).exists());
    scene.world.source.psql("SELECT 1").unwrap();
}

/// The port is taken by the copy that is refreshed: that is what is in the way, not another program.
#[test]
fn a_copy_that_runs_is_stopped_as_it_is_said_and_refreshed() {
    if !found(15) {
        return;
    }
    let mut world = World::new(quiet(15).start().unwrap());
    world.capture();
    world.source.psql("CREATE TABLE rows AS SELECT generate_series(1, 3) n").unwrap();
    world.backup(&[]);
    world.settle(&world.source, 1);
    let port = Port::free().unwrap();
    let number = port.number().to_string();
    drop(port);
    let copy = world.place();
    let restore = ["restore", CLUSTER, copy.to_str().unwrap(), "--start", "--port", &number];
    world.everpoint.run(&restore).unwrap();
    let refresh = [&restore[..], &["--delta"]].concat();
    let ran = world.everpoint.try_run(&refresh).unwrap();
    assert_eq!(ran.status.code(), Some(2), "{}", ran.told(&refresh));
    assert!(ran.err.contains("a server runs on it") && !ran.err.contains("another program"), "{}", ran.err);
    let command = ran.err.split_once("stop it first: ").unwrap().1.split(';').next().unwrap();
    assert!(command.contains("pg_ctl -D ") && command.ends_with(" stop"), "{command}");
    let dry = world.everpoint.try_run(&[&refresh[..], &["--dry-run"]].concat()).unwrap();
    assert!(dry.status.code() == Some(2) && dry.out.contains("writes to "), "{}{}", dry.out, dry.err);
    assert!(dry.err.contains(command), "{}", dry.err);
    let ran = world.everpoint.shell(command, &world.source.install().bin()).unwrap();
    assert!(ran.wait(Duration::from_secs(60)).unwrap().status.success());
    world.everpoint.run(&refresh).unwrap();
    let running = RunningCopy::on(&copy).unwrap();
    assert_eq!(running.session().unwrap().query("SELECT count(*) FROM rows").unwrap().to_string(), "3");
}

#[test]
fn a_warning_of_a_dry_run_is_said_once() {
    if !found(15) {
        return;
    }
    let mut world = World::new(quiet(15).start().unwrap());
    world.capture();
    world.backup(&[]);
    for _ in 0..2 {
        world.everpoint.run(&["restore-point", CLUSTER, "before-upgrade"]).unwrap();
    }
    world.settle(&world.source, 1);
    let place = world.place();
    let named = ["--to", "name:before-upgrade", "--dry-run"];
    let elsewhere = [&["restore", CLUSTER, place.to_str().unwrap()], &named[..]].concat();
    let ran = world.everpoint.try_run(&elsewhere).unwrap();
    let said = format!("{}{}", ran.out, ran.err);
    assert_eq!(said.matches("an earlier restore point has the same name").count(), 1, "{said}");
    // In place, log that is saved first is told by the events of that, and by the plan.
    world.stop_capture();
    world.source.psql("CREATE TABLE more AS SELECT generate_series(1, 3) n").unwrap();
    world.source.stop(StopMode::Fast).unwrap();
    let data = world.source.data_dir().to_owned();
    let in_place = ["restore", CLUSTER, data.to_str().unwrap(), "--delta", "--replace-production"];
    let ran = world.everpoint.try_run(&[&in_place[..], &named].concat()).unwrap();
    let said = format!("{}{}", ran.out, ran.err);
    assert_eq!(said.matches("is saved first when this is done").count(), 1, "{said}");
    assert_eq!(said.matches("the same name").count(), 1, "{said}");
}
