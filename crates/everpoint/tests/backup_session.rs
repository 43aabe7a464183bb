//! What a backup asks of its server, and what it tells of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code, reason = "shared with other scenarios")]
mod support_scenarios;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::time::{Duration, Instant};

use everpoint_testkit::{Account, PgCluster, field};
use serde_json::Value;
use support_scenarios::{CLUSTER, World, configure, forget_files, found, quiet};

/// Lines of a server's log that say that something failed.
fn errors(log: &str) -> Vec<&str> {
    log.lines().filter(|line| ["ERROR:", "FATAL:", "PANIC:"].iter().any(|word| line.contains(word))).collect()
}

#[test]
fn nothing_that_is_asked_of_a_healthy_server_is_an_error_in_its_log() {
    for major in [13, 15, 18] {
        if !found(major) {
            continue;
        }
        let source = quiet(major).start().unwrap();
        let space = source.home().subdir("space").unwrap();
        source.psql(&format!("CREATE TABLESPACE s LOCATION '{}'", space.display())).unwrap();
        source.psql("CREATE TABLE t TABLESPACE s AS SELECT 1 AS n").unwrap();
        source.psql("CREATE DATABASE closed").unwrap();
        source.psql("REVOKE CONNECT ON DATABASE closed FROM PUBLIC").unwrap();
        source.psql("CREATE ROLE backup LOGIN REPLICATION").unwrap();
        let world = World::new(source);
        // Whoever started it asked before it was ready.
        let before = world.source.log().len();
        let tell = |step: &str| {
            let log = world.source.log();
            assert_eq!(errors(&log[before..]), [""; 0], "{major}, {step}");
        };
        for role in ["postgres", "backup"] {
            configure(&world, |text| text.replace("//postgres@", &format!("//{role}@")));
            for words in [
                &["capture", CLUSTER, "--once"][..],
                &["check", CLUSTER],
                &["backup", CLUSTER],
                &["status", CLUSTER],
            ] {
                let ran = world.everpoint.try_run(words).unwrap();
                assert!(ran.status.code() != Some(2), "{}{}", ran.out, ran.err);
                tell(&format!("{role}: {words:?}"));
            }
        }
        forget_files(&world);
        world.backup(&["--full"]);
        tell("over the wire");
        configure(&world, |text| text.replace("//backup@", "//postgres@"));
        let mut world = world;
        world.capture();
        world.source.psql("INSERT INTO t VALUES (2)").unwrap();
        world.settle(&world.source, 1);
        world.stop_capture();
        world.everpoint.run(&["restore-point", CLUSTER, "here"]).unwrap();
        let copy = world.restore("latest", &[]);
        assert_eq!(errors(&world.source.log()[before..]), [""; 0], "{major}, capture and restore");
        let log = fs::read_to_string(copy.place.join("everpoint-server.log")).unwrap();
        assert_eq!(errors(&log), [""; 0], "{major}, the copy");
        copy.stop_and_check(&world);
    }
}

/// The backups, newest last.
fn listed(world: &World) -> Vec<Value> {
    let list = world.everpoint.json(&["list", CLUSTER]).unwrap();
    field(&list, "/clusters/0/backups").unwrap().as_array().unwrap().clone()
}

#[test]
fn a_standby_whose_upstream_was_just_promoted_is_backed_up() {
    if !found(15) {
        return;
    }
    let primary = quiet(15).start().unwrap();
    primary.psql("CREATE TABLE t AS SELECT 1 AS n").unwrap();
    let upstream = primary.standby().unwrap();
    let world = World::new(upstream.standby().unwrap());
    let rows = |server: &PgCluster| server.psql("SELECT count(*) FROM t").unwrap_or_default();
    world.wait_for("it follows", || rows(&world.source) == "1");
    upstream.promote().unwrap();
    upstream.psql("INSERT INTO t VALUES (2)").unwrap();
    world.wait_for("it follows the promoted one", || rows(&world.source) == "2");
    // Its last restart point is of the first timeline: a backup begins there, and ends on the second.
    let restarted = "SELECT timeline_id FROM pg_control_checkpoint()";
    assert_eq!(world.source.psql(restarted).unwrap(), "1");
    for over_the_wire in [false, true] {
        if over_the_wire {
            forget_files(&world);
        }
        let label = world.backup(&["--full", "--skip-checks"]);
        upstream.psql("INSERT INTO t VALUES (3)").unwrap();
        let expected = rows(&upstream);
        world.wait_for("it has all", || rows(&world.source) == expected);
        world.everpoint.run(&["capture", CLUSTER, "--once"]).unwrap();
        let line = listed(&world).pop().unwrap();
        assert_eq!((&line["label"], &line["timeline"]), (&label.into(), &2.into()), "{line}");
        let copy = world.restore("latest", &[]);
        assert_eq!(copy.psql("SELECT count(*) FROM t"), expected, "{over_the_wire}");
        copy.stop_and_check(&world);
    }
}

#[test]
fn a_warning_is_seen_and_stays_with_the_backup() {
    if !found(15) {
        return;
    }
    let world = World::new(quiet(15).start().unwrap());
    let elsewhere = world.source.home().path().join("no-data");
    configure(&world, |text| {
        text.replace(&world.source.data_dir().display().to_string(), &elsewhere.display().to_string())
    });
    let ran = world.everpoint.try_run(&["backup", CLUSTER]).unwrap();
    let told = "files are copied over the network";
    assert!(
        ran.status.success() && ran.err.contains(told) && ran.out.contains(told),
        "{}{}",
        ran.out,
        ran.err
    );
    // A file that the configuration names, and nobody may read: the image lacks it.
    let hidden = world.source.home().path().join("keytab");
    fs::create_dir(&hidden).unwrap();
    let file = hidden.join("file");
    fs::write(&file, "x").unwrap();
    fs::set_permissions(&hidden, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    world.source.psql(&format!("ALTER SYSTEM SET krb_server_keyfile = '{}'", file.display())).unwrap();
    world.source.psql("SELECT pg_reload_conf()").unwrap();
    let report = world.everpoint.json(&["backup", CLUSTER]).unwrap();
    let holds = |value: &Value, words: &str| {
        let all = value["warnings"].as_array().unwrap();
        assert!(all.iter().any(|warning| warning.as_str().unwrap().contains(words)), "{value}");
    };
    holds(&report, told);
    holds(&report, "the image lacks");
    let lines = listed(&world);
    assert_eq!((&lines[0]["incomplete"], &lines[1]["incomplete"]), (&false.into(), &true.into()));
    holds(&lines[0], told);
    holds(&lines[1], "the image lacks");
    let shown = world.everpoint.run(&["list", CLUSTER]).unwrap();
    assert!(shown.contains("warning: the image lacks"), "{shown}");
    // Nobody captures it, which is an error of its own.
    let status = world.everpoint.try_run(&["status", CLUSTER]).unwrap().out;
    let checked = world.everpoint.try_run(&["check", CLUSTER]).unwrap().out;
    for said in [status, checked] {
        assert!(said.contains("is less than whole: the image lacks"), "{said}");
    }
}

#[test]
fn a_backup_whose_session_was_ended_has_failed_and_does_not_run() {
    if !found(15) {
        return;
    }
    let source = quiet(15).start().unwrap();
    source.psql("CREATE TABLE t AS SELECT n FROM generate_series(1, 300000) n").unwrap();
    let world = World::new(source);
    configure(&world, |text| text + "\n[limits]\nread_rate = \"1MB\"\n");
    let running = world.everpoint.spawn(&["backup", CLUSTER]).unwrap();
    world.wait_for("it runs", || listed(&world).first().is_some_and(|line| line["status"] == "running"));
    let session =
        "FROM pg_stat_activity WHERE application_name LIKE 'everpoint%' AND backend_type = 'client backend'";
    world.wait_for("its session began", || {
        world.source.psql(&format!("SELECT query {session}")).unwrap().contains("datconnlimit <> -2")
    });
    std::thread::sleep(Duration::from_secs(1));
    let since = Instant::now();
    world.source.psql(&format!("SELECT pg_terminate_backend(pid) {session}")).unwrap();
    let ran = running.wait(Duration::from_secs(30)).unwrap();
    assert!(
        ran.status.code() == Some(1) && ran.err.contains("its session on the server is gone"),
        "{}",
        ran.err
    );
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    let line = listed(&world).pop().unwrap();
    assert_eq!(line["status"], "failed", "{line}");
    assert!(line["reason"].as_str().unwrap().contains("session"), "{line}");
}

/// Names that no encoding takes, of a database, a tablespace's place, a role, and the encodings that check them.
#[test]
fn check_of_odd_names_is_no_error_in_the_servers_log() {
    for major in [13, 18] {
        if !found(major) {
            continue;
        }
        let source = quiet(major).start().unwrap();
        let home = source.home().path().to_owned();
        let inside = source.data_dir().join(OsStr::from_bytes(b"in\xe9"));
        let outside = home.join(OsStr::from_bytes(b"sp\xe9ce"));
        for directory in [&inside, &outside] {
            fs::create_dir(directory).unwrap();
        }
        Account::of_servers().unwrap().own(&home).unwrap();
        let template = "TEMPLATE template0 LOCALE 'C' ENCODING";
        for encoding in ["SQL_ASCII", "LATIN1", "EUC_JP", "UTF8"] {
            source.psql(&format!("CREATE DATABASE \"d-{encoding}\" {template} '{encoding}'")).unwrap();
        }
        source.psql("CREATE DATABASE x").unwrap();
        let mut raw = source.session_to("d-SQL_ASCII").unwrap();
        for (name, at) in [("in\\xe9", source.data_dir()), ("sp\\xe9ce", home.as_path())] {
            let place = at.display();
            raw.query(&format!("CREATE TABLESPACE \"t{}\" LOCATION E'{place}/{name}'", &name[..2])).unwrap();
        }
        raw.query("UPDATE pg_tablespace SET spcname = E'sp\\xe9ce' WHERE spcname = 'tin'").unwrap();
        raw.query("UPDATE pg_database SET datname = E'caf\\xe9' WHERE datname = 'x'").unwrap();
        for (role, words) in [("o'd", "LOGIN SUPERUSER"), ("r\u{e9}p", "LOGIN REPLICATION")] {
            source.psql(&format!("CREATE ROLE \"{role}\" {words}")).unwrap();
            source.psql(&format!("ALTER ROLE \"{role}\" SET client_encoding = 'UTF8'")).unwrap();
        }
        let world = World::new(source);
        let before = world.source.log().len();
        let mut last = format!("//postgres@127.0.0.1:{}/postgres", world.source.port());
        for role in ["postgres", "o%27d", "r%C3%A9p"] {
            for database in ["postgres", "d-SQL_ASCII", "d-LATIN1", "d-EUC_JP", "d-UTF8"] {
                let next = format!("//{role}@127.0.0.1:{}/{database}", world.source.port());
                configure(&world, |text| text.replace(&last, &next));
                last = next;
                let ran = world.everpoint.try_run(&["check", CLUSTER]).unwrap();
                let log = world.source.log();
                assert_eq!(errors(&log[before..]), [""; 0], "{major}, {role} {database}");
                // Whoever may not see where the data directory is can't know.
                let told = ran.out.contains("tablespaces lie inside") || role.starts_with('r');
                assert!(told, "{}{}", ran.out, ran.err);
            }
        }
    }
}
