//! The image is whole, or says what is missing: links, strays, odd files and names that are no UTF-8.

// Helpers of tests fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code, reason = "shared with other scenarios")]
mod support_scenarios;

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use everpoint_testkit::{Account, PgCluster, StopMode, text};
use serde_json::Value;
use support_scenarios::{CLUSTER, World, ask, forget_files, found, quiet};

const COUNT: &str = "SELECT count(*), sum(n) FROM t";

fn own(path: &Path) {
    Account::of_servers().unwrap().own(path).unwrap();
}

/// Moves a directory of a stopped server and leaves a link in its place.
fn moved(data: &Path, name: &str, to: &Path) {
    let place = data.join(name);
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    own(to.parent().unwrap());
    fs::rename(&place, to).unwrap();
    symlink(to, &place).unwrap();
    own(&place);
}

fn make_database(source: &PgCluster, name: &str) -> String {
    source.psql(&format!("CREATE DATABASE {name}")).unwrap();
    let mut session = source.session_to(name).unwrap();
    session.query("CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n").unwrap();
    source.psql(&format!("SELECT oid FROM pg_database WHERE datname = '{name}'")).unwrap()
}

fn warnings(report: &Value) -> String {
    report["warnings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it.as_str().unwrap())
        .collect::<Vec<_>>()
        .join("\n")
}

fn line(world: &World, name: &str) -> Value {
    let ran = world.everpoint.try_run(&["--json", "check", CLUSTER]).unwrap();
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    let lines =
        report["clusters"][0]["lines"].as_array().or_else(|| report["lines"].as_array()).unwrap().clone();
    lines
        .into_iter()
        .find(|line| line["name"] == name)
        .unwrap_or_else(|| panic!("no line {name} in {report}"))
}

fn recovered(world: &World) {
    let recovers = "SELECT pg_is_in_recovery()";
    world.wait_for("the recovery has ended", || world.source.psql(recovers).is_ok_and(|it| it == "f"));
}

/// A cluster with a database and its commit log behind links, and everything odd that people leave in a data directory.
fn odd_cluster() -> (World, PathBuf, String) {
    let mut source = quiet(15).start().unwrap();
    let away = source.home().path().join("away");
    let outside = make_database(&source, "outside");
    let inside = make_database(&source, "inside");
    source.psql("CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n").unwrap();
    let table = source.psql("SELECT pg_relation_filepath('t')").unwrap();
    source.stop(StopMode::Fast).unwrap();
    let data = source.data_dir().to_owned();
    moved(&data, &format!("base/{outside}"), &away.join(&outside));
    moved(&data, &format!("base/{inside}"), &data.join(format!("put/{inside}")));
    moved(&data, "pg_xact", &away.join("pg_xact"));
    // A few bytes behind the last page, and a directory of no database with a broken map and a page that is none.
    fs::OpenOptions::new().append(true).open(data.join(&table)).unwrap().write_all(b"xyz").unwrap();
    fs::create_dir(data.join("base/99999")).unwrap();
    fs::write(data.join("base/99999/pg_filenode.map"), [7; 512]).unwrap();
    fs::write(data.join("base/99999/1259"), [7; 8192]).unwrap();
    fs::write(data.join("pg_filenode.map"), "mine").unwrap();
    own(&data.join("base/99999"));
    source.start().unwrap();
    (World::new(source), away, outside)
}

/// What people leave in a data directory.
fn litter(data: &Path, away: &Path) {
    fs::create_dir_all(away.join("log")).unwrap();
    fs::write(away.join("log/today"), "a line").unwrap();
    for (link, target) in [
        ("log", away.join("log")),
        ("loop", PathBuf::from(".")),
        ("gone", away.join("nowhere")),
        ("self", PathBuf::from("self")),
    ] {
        symlink(target, data.join(link)).unwrap();
    }
    for file in ["PG_VERSION", "global/pg_control"] {
        let file = away.join("other").join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "15").unwrap();
    }
    symlink(away.join("other"), data.join("neighbour")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, data.join("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .unwrap();
    symlink("fifo", data.join("to_fifo")).unwrap();
    fs::write(data.join(OsStr::from_bytes(b"caf\xe9.txt")), "coffee").unwrap();
    fs::write(data.join("closed"), "secret").unwrap();
    fs::create_dir(data.join("lost+found")).unwrap();
    own(data.parent().unwrap());
    for closed in ["closed", "lost+found"] {
        fs::set_permissions(data.join(closed), fs::Permissions::from_mode(0o000)).unwrap();
    }
}

#[test]
fn what_lies_behind_links_is_taken_and_strays_are_named() {
    if !found(15) {
        return;
    }
    let (world, away, outside) = odd_cluster();
    let data = world.source.data_dir().to_owned();
    litter(&data, &away);
    let checked = line(&world, "files");
    assert_eq!(checked["state"], "warning", "{checked}");
    let report = world.everpoint.json(&["backup", CLUSTER]).unwrap();
    assert_eq!(text(&report, "/status").unwrap(), "ok", "{report}");
    let told = warnings(&report);
    for lacking in ["loop", "gone", "self", "neighbour", "fifo", "to_fifo", "closed", "lost+found"] {
        assert!(told.contains(&format!("{lacking} (")), "{lacking}: {told}");
        assert!(
            checked["message"].as_str().unwrap().contains(&format!("{lacking} (")),
            "{lacking}: {checked}"
        );
    }
    assert!(told.contains("3 bytes follow its last whole page"), "{told}");
    assert!(!told.contains("99999") && !told.contains("log ("), "{told}");

    let label = text(&report, "/label").unwrap();
    let copy = world.restore(&format!("backup:{label}"), &[]);
    assert_eq!(copy.psql(COUNT), "1000|500500");
    for database in ["outside", "inside"] {
        assert_eq!(ask(&mut copy.session_to(database), COUNT), "1000|500500", "{database}");
    }
    assert!(copy.place.join(format!("base/{outside}")).symlink_metadata().unwrap().is_dir());
    assert!(copy.place.join("log").symlink_metadata().unwrap().is_dir());
    assert_eq!(fs::read_to_string(copy.place.join("log/today")).unwrap(), "a line");
    assert!(!copy.place.join("put").join("1259").exists());
    let stored_twice = fs::read_dir(copy.place.join("put")).unwrap().count();
    assert_eq!(stored_twice, 0, "what a link inside leads to is stored once");
    assert_eq!(fs::read(copy.place.join(OsStr::from_bytes(b"caf\xe9.txt"))).unwrap(), b"coffee");
    let table = world.source.psql("SELECT pg_relation_filepath('t')").unwrap();
    let bytes = |root: &Path| fs::metadata(root.join(&table)).unwrap().len();
    assert_eq!(bytes(&copy.place) % 8192, 3);
    assert_eq!(fs::read(copy.place.join("base/99999/pg_filenode.map")).unwrap(), [7; 512]);
    drop(copy);

    // In place: the server's own links become directories; what they led to is left alone.
    let mut world = world;
    world.source.stop(StopMode::Fast).unwrap();
    for closed in ["closed", "lost+found"] {
        fs::set_permissions(data.join(closed), fs::Permissions::from_mode(0o700)).unwrap();
    }
    let target = format!("backup:{label}");
    world
        .everpoint
        .run(&[
            "restore",
            CLUSTER,
            data.to_str().unwrap(),
            "--to",
            &target,
            "--delta",
            "--replace-production",
        ])
        .unwrap();
    assert!(away.join(&outside).join("PG_VERSION").exists());
    world.source.start().unwrap();
    recovered(&world);
    assert_eq!(ask(&mut world.source.session_to("outside").unwrap(), COUNT), "1000|500500");
}

#[test]
fn a_database_that_can_t_be_taken_ends_check_and_backup_by_name() {
    if !found(15) {
        return;
    }
    let (world, away, outside) = odd_cluster();
    let name = format!("base/{outside}");
    let fails = |world: &World| {
        let arguments = ["backup", CLUSTER];
        let ran = world.everpoint.try_run(&arguments).unwrap();
        assert!(!ran.status.success(), "{}", ran.told(&arguments));
        assert!(ran.err.contains(&name), "{}", ran.told(&arguments));
        let checked = line(world, "files");
        assert_eq!(checked["state"], "error", "{checked}");
        assert!(checked["message"].as_str().unwrap().contains(&name), "{checked}");
    };
    let hidden = away.join("hidden");
    fs::rename(away.join(&outside), &hidden).unwrap();
    fails(&world);
    fs::rename(&hidden, away.join(&outside)).unwrap();
    // Over the network the server passes over links, with a warning and no more.
    forget_files(&world);
    fails(&world);
    // Where the server is told to keep its warnings to itself, too.
    world.source.psql("ALTER SYSTEM SET client_min_messages = error").unwrap();
    world.source.psql("SELECT pg_reload_conf()").unwrap();
    world.wait_for("the setting holds", || {
        world.source.psql("SHOW client_min_messages").is_ok_and(|level| level == "error")
    });
    fails(&world);
}

/// Bytes that are no UTF-8 in the names of a database, a tablespace's place, a configuration file and a restore point.
#[test]
fn names_that_are_no_utf8_come_back_as_they_were() {
    if !found(15) {
        return;
    }
    let mut source = quiet(15).start().unwrap();
    let home = source.home().path().to_owned();
    let [space, conf] = [&b"sp\xe9ce"[..], b"conf\xe9"].map(|name| home.join(OsStr::from_bytes(name)));
    for directory in [&space, &conf] {
        fs::create_dir(directory).unwrap();
    }
    fs::write(conf.join(OsStr::from_bytes(b"m\xf6re.conf")), "work_mem = '7MB'\n").unwrap();
    own(&home);
    let mut settings =
        fs::OpenOptions::new().append(true).open(source.data_dir().join("postgresql.conf")).unwrap();
    settings.write_all(b"include '").unwrap();
    settings.write_all(conf.join(OsStr::from_bytes(b"m\xf6re.conf")).as_os_str().as_bytes()).unwrap();
    settings.write_all(b"'\n").unwrap();
    source.restart(StopMode::Fast).unwrap();
    let template = "TEMPLATE template0 LOCALE 'C' ENCODING";
    source.psql(&format!("CREATE DATABASE raw {template} 'SQL_ASCII'")).unwrap();
    source.psql(&format!("CREATE DATABASE latin {template} 'LATIN1'")).unwrap();
    source.psql("CREATE DATABASE x").unwrap();
    let mut raw = source.session_to("raw").unwrap();
    raw.query("UPDATE pg_database SET datname = E'caf\\xe9' WHERE datname = 'x'").unwrap();
    raw.query(&format!("CREATE TABLESPACE odd LOCATION E'{}/sp\\xe9ce'", home.display())).unwrap();
    raw.query("CREATE TABLE t TABLESPACE odd AS SELECT n FROM generate_series(1, 1000) n").unwrap();
    for files in [true, false] {
        let world = World::new(source);
        if !files {
            forget_files(&world);
        }
        let mut world = world;
        world.capture();
        let checked = line(&world, "configuration");
        assert_eq!(checked["state"], if files { "ok" } else { "warning" }, "{checked}");
        let report = world.everpoint.json(&["backup", CLUSTER]).unwrap();
        assert_eq!(text(&report, "/status").unwrap(), "ok", "{report}");
        ask(&mut world.source.session_to("latin").unwrap(), "SELECT pg_create_restore_point('pr\u{ea}t')");
        world.source.psql("CHECKPOINT").unwrap();
        world.settle(&world.source, if files { 1 } else { 2 });
        let label = text(&report, "/label").unwrap().to_owned();
        let copy = world.restore("name:pr\\xeat", &[]);
        let rows = ask(&mut copy.session_to("raw"), COUNT);
        assert_eq!(rows, "1000|500500");
        let names = "SELECT count(*) FROM pg_database WHERE datname = E'caf\\xe9'";
        assert_eq!(ask(&mut copy.session_to("raw"), names), "1");
        drop(copy);
        // Production's own place, by its bytes.
        world.stop_capture();
        world.source.stop(StopMode::Fast).unwrap();
        let data = world.source.data_dir().to_str().unwrap().to_owned();
        let target = format!("backup:{label}");
        let arguments = ["restore", CLUSTER, &data, "--to", &target, "--delta", "--replace-production"];
        world.everpoint.run(&arguments).unwrap();
        assert!(fs::read_dir(space.join("PG_15_202209061")).unwrap().count() > 0);
        world.source.start().unwrap();
        recovered(&world);
        assert_eq!(ask(&mut world.source.session_to("raw").unwrap(), COUNT), "1000|500500");
        if files {
            let put = Path::new(&data).join("everpoint-external").join(conf.strip_prefix("/").unwrap());
            assert_eq!(
                fs::read(put.join(OsStr::from_bytes(b"m\xf6re.conf"))).unwrap(),
                b"work_mem = '7MB'\n"
            );
        }
        let listed = world.everpoint.run(&["list", CLUSTER]).unwrap();
        assert!(listed.contains(&label), "{listed}");
        source = world.source;
    }
}
