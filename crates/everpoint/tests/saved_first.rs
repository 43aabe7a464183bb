//! What is written over, or replaced by another directory, is looked at first: its log is saved, or it is told that it is not.

// Helpers of tests fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code, reason = "shared with other scenarios")]
mod support_salvage;
#[allow(dead_code, reason = "shared with other scenarios")]
mod support_scenarios;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use everpoint_testkit::{Account, RunningCopy, StopMode};
use support_salvage::{
    ROWS, copy_all, data, has, in_place, insert, insert_in_segments, restore_in_place, world,
};
use support_scenarios::{CLUSTER, World, configure, forget_files, found};

const MARKER: &str = "everpoint.restore-incomplete";

/// No data_dir in the configuration: the backups know where production was.
#[test]
fn log_of_the_directory_that_only_the_backups_name_is_saved_when_another_replaces_it() {
    if !found(15) {
        return;
    }
    let mut world = world(15);
    insert_in_segments(&world, &[4, 5]);
    insert(&world, &[6]);
    world.source.stop(StopMode::Fast).unwrap();
    forget_files(&world);
    let place = world.place();
    world.everpoint.run(&["restore", CLUSTER, place.to_str().unwrap(), "--replace-production"]).unwrap();
    let copy = world.restore("latest", &[]);
    assert_eq!(copy.psql(ROWS), "1 2 3 4 5 6");
    copy.stop_and_check(&world);
}

/// Nothing says any more whose it is: a reason to restore elsewhere. That log may be lost is told, also to whoever asks for
/// nothing but the report.
#[test]
fn log_of_a_directory_without_control_file_is_told_to_stay_there() {
    if !found(15) {
        return;
    }
    let mut world = world(15);
    insert(&world, &[4]);
    world.source.stop(StopMode::Fast).unwrap();
    let control = data(&world).join("global/pg_control");
    let wal = data(&world).join("pg_wal");
    let whole = fs::read(&control).unwrap();
    let chmod = |mode: &str| assert!(Command::new("chmod").arg(mode).arg(&wal).status().unwrap().success());
    for fault in ["zeroed", "missing", "closed"] {
        match fault {
            "zeroed" => fs::write(&control, vec![0; whole.len()]).unwrap(),
            "missing" => fs::remove_file(&control).unwrap(),
            _ => {
                fs::write(&control, &whole).unwrap();
                Account::of_servers().unwrap().own(&control).unwrap();
                chmod("000");
            }
        }
        for dry in [&["--dry-run"][..], &[]] {
            let place = world.place();
            let arguments = ["-q", "restore", CLUSTER, place.to_str().unwrap(), "--replace-production"];
            let report = world.everpoint.json(&[&arguments[..], dry].concat()).unwrap();
            let told = report["warnings"].to_string();
            assert!(told.contains("keep that directory"), "{fault} {dry:?}: {report}");
            assert!(told.contains(data(&world).to_str().unwrap()), "{fault} {dry:?}: {report}");
        }
    }
    chmod("700");
    in_place(&mut world);
    has(&mut world, "1 2 3 4");
}

/// A restore into production's own directory is killed when its mark is there.
fn killed(world: &World) {
    let directory = data(world);
    let arguments = ["restore", CLUSTER, directory.to_str().unwrap(), "--delta", "--replace-production"];
    for _ in 0..5 {
        let mut running = world.everpoint.spawn(&arguments).unwrap();
        while !directory.join(MARKER).exists() && running.runs().unwrap() {
            sleep(Duration::from_millis(1));
        }
        running.kill9().unwrap();
        if directory.join(MARKER).exists() {
            return;
        }
    }
    panic!("no restore could be killed in its middle");
}

/// Whole files are copied over an unfinished restore, and their server lives there: `check` tells of the mark, and what that
/// server has written is saved before the mark is taken for leave to write over it.
#[test]
fn log_that_a_server_wrote_in_a_marked_directory_is_saved_without_delta() {
    if !found(15) {
        return;
    }
    let mut world = world(15);
    world.source.stop(StopMode::Fast).unwrap();
    let full = world.everpoint.home().path().join("full");
    copy_all(&data(&world), &full);
    killed(&world);
    copy_all(&full.join("."), &data(&world));
    for name in ["backup_label", "recovery.signal"] {
        let _absent = fs::remove_file(data(&world).join(name));
    }
    world.source.start().unwrap();
    let check = || world.everpoint.report(&["check", CLUSTER]).unwrap().to_string();
    assert!(check().contains("unfinished_restore") && check().contains(MARKER), "{}", check());
    insert(&world, &[4]);
    world.source.kill9().unwrap();
    let directory = data(&world);
    let again = ["restore", CLUSTER, directory.to_str().unwrap(), "--replace-production", "--to", "latest"];
    let ran = world.everpoint.try_run(&[&again[..], &["--server-is-stopped"]].concat()).unwrap();
    assert!(ran.status.success(), "{}", ran.err);
    world.source.start().unwrap();
    world.wait_for("the server is promoted", || {
        world.source.psql("SELECT pg_is_in_recovery()").is_ok_and(|answer| answer == "f")
    });
    assert!(!check().contains("unfinished_restore"), "{}", check());
    has(&mut world, "1 2 3 4");
}

/// All that is stored, but what comes and goes with each command.
fn names(world: &World) -> String {
    let repository = world.everpoint.home().path().join("repository");
    let found = Command::new("find").arg(&repository).args(["-not", "-path", "*/leases*"]).output().unwrap();
    String::from_utf8(found.stdout).unwrap()
}

/// The target lies in log that only the directory holds, and nobody said that it may be written over; or something is in the
/// way of another one.
#[test]
fn what_is_refused_saves_nothing() {
    if !found(15) {
        return;
    }
    let mut world = world(15);
    insert_in_segments(&world, &[4, 5]);
    let target = format!("lsn:{}", world.source.psql("SELECT pg_current_wal_flush_lsn()").unwrap());
    insert(&world, &[6]);
    world.source.stop(StopMode::Fast).unwrap();
    let full = world.everpoint.home().path().join("thesis");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("thesis.txt"), "x").unwrap();
    let before = names(&world);
    for place in [data(&world), full] {
        for dry in [&["--dry-run"][..], &[]] {
            let arguments =
                ["restore", CLUSTER, place.to_str().unwrap(), "--replace-production", "--to", &target];
            let ran = world.everpoint.try_run(&[&arguments[..], dry].concat()).unwrap();
            assert_eq!(ran.status.code(), Some(2), "{}", ran.told(&arguments));
            assert_eq!(names(&world), before, "{}", ran.told(&arguments));
        }
    }
    let ran = restore_in_place(&world, &["--to", &target]);
    assert!(ran.status.success(), "{}", ran.err);
    world.source.start().unwrap();
    world.wait_for("the server is promoted", || {
        world.source.psql("SELECT pg_is_in_recovery()").is_ok_and(|answer| answer == "f")
    });
    assert_eq!(world.source.psql(ROWS).unwrap(), "1 2 3 4 5");
}

/// What the directory says of its programs goes with the first byte; the mark says it from then on.
#[test]
fn a_start_in_place_that_was_killed_finds_its_programs_again() {
    let packaged = |major| Path::new(&format!("/usr/lib/postgresql/{major}/bin/postgres")).exists();
    let Some(major) = [17, 16, 14].into_iter().find(|major| !packaged(*major) && found(*major)) else {
        return;
    };
    let mut world = world(major);
    configure(&world, |text| {
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("pg_bin")).collect();
        lines.join("\n")
    });
    world.source.stop(StopMode::Fast).unwrap();
    let directory = data(&world);
    // It starts where its own configuration says, and others may use the default port.
    let port = format!("\nport = {}\n", world.source.port());
    fs::File::options()
        .append(true)
        .open(directory.join("postgresql.conf"))
        .and_then(|mut conf| conf.write_all(port.as_bytes()))
        .unwrap();
    let arguments =
        ["restore", CLUSTER, directory.to_str().unwrap(), "--delta", "--replace-production", "--start"];
    let mut running = world.everpoint.spawn(&arguments).unwrap();
    while directory.join("postmaster.opts").exists() && running.runs().unwrap() {
        sleep(Duration::from_millis(1));
    }
    running.kill9().unwrap();
    assert!(directory.join(MARKER).exists() && !directory.join("postmaster.opts").exists());
    world.everpoint.run(&arguments).unwrap();
    let opts = fs::read_to_string(directory.join("postmaster.opts")).unwrap();
    assert!(opts.starts_with(world.source.install().bin().to_str().unwrap()), "{opts}");
    let copy = RunningCopy::on(&directory).unwrap();
    copy.stop_and_check(world.source.install()).unwrap();
    world.source.start().unwrap();
    assert_eq!(world.source.psql(ROWS).unwrap(), "1 2 3");
}
