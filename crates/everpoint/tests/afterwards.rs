//! What is left when a recovery has ended: nothing that would break a standby, run on, or belong to the wrong user.

// Helpers of tests fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code, reason = "shared with other scenarios")]
mod support_scenarios;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use everpoint_testkit::{PgCluster, PgInstall, Scratch, StopMode};
use serde_json::Value;
use support_scenarios::{CLUSTER, World, found, quiet};

/// Production's file of ALTER SYSTEM: Latin-1, with CRLF, and no end of its last line.
const SETTINGS: &[u8] = b"# caf\xe9\r\nwork_mem = '5MB'\r\n\r\n# the last line has no end";

/// A protected server with a backup and some log behind it.
fn world(major: u32) -> World {
    let mut source = quiet(major).wal_segsize_mb(1).create().unwrap();
    fs::write(source.data_dir().join("postgresql.auto.conf"), SETTINGS).unwrap();
    source.start().unwrap();
    let mut world = World::new(source);
    world.capture();
    world.backup(&[]);
    world.source.psql("CREATE TABLE t AS SELECT n FROM generate_series(1, 100) n").unwrap();
    world.settle(&world.source, 1);
    world
}

/// A server on a restored directory, past its recovery.
fn run_on(install: &PgInstall, place: &Path) -> PgCluster {
    let mut server =
        PgCluster::on_directory(install.clone(), Scratch::new("restored").unwrap(), place.to_owned())
            .unwrap();
    server.start().unwrap();
    wait_for("the recovery has ended", || server.psql("SELECT pg_is_in_recovery()").unwrap() == "f");
    server
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < Duration::from_secs(60), "waited in vain until {what}");
        sleep(Duration::from_millis(50));
    }
}

/// What a recovery may have left, in the directory and in that of the log.
fn left_in(place: &Path) -> Vec<PathBuf> {
    let entries = [place.to_owned(), place.join("pg_wal")]
        .into_iter()
        .flat_map(|directory| fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()));
    let ours = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.contains("everpoint") && !["everpoint.copy", "everpoint-server.log"].contains(&name.as_str())
            || ["promote", "recovery.signal"].contains(&name.as_str())
    };
    entries.filter(ours).collect()
}

/// A standby made of the server runs and follows it.
fn can_be_followed(server: &PgCluster) {
    let standby = server.standby().unwrap();
    server.psql("CREATE TABLE afterwards AS SELECT 1 AS n").unwrap();
    wait_for("the standby has it", || standby.psql("SELECT n FROM afterwards").is_ok_and(|rows| rows == "1"));
    assert_eq!(standby.psql("SELECT status FROM pg_stat_wal_receiver").unwrap(), "streaming");
}

fn restore_production(world: &World) -> PathBuf {
    let place = world.place();
    world.everpoint.run(&["restore", CLUSTER, place.to_str().unwrap(), "--replace-production"]).unwrap();
    place
}

/// The line of `check` about settings of a recovery.
fn told(world: &World, cluster: &str) -> Option<Value> {
    let ran = world.everpoint.try_run(&["--json", "check", cluster]).unwrap();
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    let lines = report.pointer("/clusters/0/lines").unwrap().as_array().unwrap().clone();
    lines.into_iter().find(|line| line["name"] == "recovery_settings")
}

#[test]
fn production_is_as_it_was_when_its_recovery_has_ended() {
    for major in [13, 15, 18].into_iter().filter(|major| found(*major)) {
        let world = world(major);
        let place = restore_production(&world);
        let server = run_on(world.source.install(), &place);
        assert_eq!(server.psql("SELECT count(*) FROM t").unwrap(), "100");
        assert_eq!(
            fs::read(place.join("postgresql.auto.conf")).unwrap(),
            SETTINGS,
            "{major}: {}",
            server.log()
        );
        assert_eq!(left_in(&place), Vec::<PathBuf>::new(), "{major}");
        can_be_followed(&server);
        if major != 15 {
            drop(server);
            leftovers_are_told(&world);
        }
    }
}

/// The server fails to tidy up: it runs all the same, everybody says so, and the SQL that is given mends it.
fn leftovers_are_told(world: &World) {
    let place = restore_production(world);
    fs::write(place.join("everpoint-recovery/end"), "exit 127\n").unwrap();
    let server = run_on(world.source.install(), &place);
    server.psql("ALTER SYSTEM SET log_min_messages = 'info'").unwrap();
    world
        .everpoint
        .configure(&format!("\n[cluster.restored]\npostgres = \"{}?sslmode=disable\"\n", server.url()))
        .unwrap();
    let line = told(world, "restored").expect("the leftovers are told");
    let warned = world.everpoint.try_run(&["backup", "restored"]).unwrap();
    assert!(
        warned.status.success() && warned.err.contains("ALTER SYSTEM RESET recovery_target_lsn"),
        "{warned:?}"
    );
    let mend = line["hint"].as_str().unwrap();
    for sql in mend.split(';').map(str::trim).filter(|sql| !sql.is_empty()) {
        server.psql(sql).unwrap();
    }
    assert_eq!(told(world, "restored"), None);
    let bytes = fs::read(place.join("postgresql.auto.conf")).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("log_min_messages = 'info'") && text.contains("work_mem = '5MB'"), "{text}");
    assert!(!text.contains("recovery_"), "{text}");
    can_be_followed(&server);
    drop(server);
    let path = world.everpoint.home().path().join("everpoint.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.split("\n[cluster.restored]").next().unwrap()).unwrap();
}

/// Processes that fetch ahead for the server of a directory.
fn fetchers(place: &Path) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let ours = processes.filter(|process| fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == place));
    let said = ours.map(|process| {
        String::from_utf8_lossy(&fs::read(process.join("cmdline")).unwrap_or_default()).replace('\0', " ")
    });
    said.filter(|line| line.contains("archive-prefetch")).collect()
}

#[test]
fn looking_ahead_ends_with_the_recovery_and_leaves_nothing() {
    if !found(15) {
        return;
    }
    let world = world(15);
    let more = || {
        for _ in 0..12 {
            world.source.psql("INSERT INTO t SELECT n FROM generate_series(1, 5000) n").unwrap();
            world.source.psql("SELECT pg_switch_wal()").unwrap();
        }
    };
    more();
    world.everpoint.run(&["restore-point", CLUSTER, "middle"]).unwrap();
    more();
    world.settle(&world.source, 1);
    let copy = world.restore("name:middle", &[]);
    let running = fetchers(&copy.place);
    assert_eq!(left_in(&copy.place), Vec::<PathBuf>::new());
    if !running.is_empty() {
        sleep(Duration::from_secs(1));
        assert_eq!(fetchers(&copy.place), Vec::<String>::new());
    }
    assert_eq!(left_in(&copy.place), Vec::<PathBuf>::new());
    // What was started by us runs the same when it is started again, and can be followed.
    let arguments = fs::read_to_string(copy.place.join("postmaster.opts")).unwrap();
    assert!(!arguments.contains("-c"), "{arguments}");
    let place = copy.place.clone();
    copy.stop_and_check(&world);
    let rules = fs::read_to_string(place.join("pg_hba.conf")).unwrap();
    fs::write(place.join("pg_hba.conf"), rules + "local replication all trust\n").unwrap();
    let mut server = run_on(world.source.install(), &place);
    can_be_followed(&server);
    server.stop(StopMode::Fast).unwrap();
}

/// Root's restore with the words of a shell before it.
fn as_root(world: &World, before: &str, place: &Path) -> std::process::Output {
    let home = world.everpoint.home().path().display().to_string();
    let script = format!(
        "{before}; exec {home}/everpoint --config {home}/everpoint.toml restore {CLUSTER} {} --stage-log",
        place.display()
    );
    everpoint_testkit::clean(&mut Command::new("sh")).args(["-c", &script]).current_dir("/").output().unwrap()
}

#[test]
fn roots_files_belong_to_the_servers_user_with_their_own_modes() {
    if !found(15) || fs::metadata("/proc/self").unwrap().uid() != 0 {
        return;
    }
    let world = world(15);
    // A user whom only another source than /etc/passwd knows.
    let tools = world.everpoint.home().path().join("tools");
    fs::create_dir(&tools).unwrap();
    let getent = "#!/bin/sh\n[ \"$3\" = ldap-dba ] || exit 2\necho ldap-dba:x:54321:54322:x:/:/bin/sh\n";
    fs::write(tools.join("getent"), getent).unwrap();
    fs::set_permissions(tools.join("getent"), fs::Permissions::from_mode(0o755)).unwrap();
    for umask in ["000", "077", "027"] {
        let place = world.place();
        let user = format!(
            "PATH={}:$PATH EVERPOINT_PG_USER=ldap-dba; export PATH EVERPOINT_PG_USER",
            tools.display()
        );
        let done = as_root(&world, &format!("umask {umask}; {user}"), &place);
        assert!(done.status.success(), "{done:?}");
        let mut open = vec![place.clone()];
        while let Some(path) = open.pop() {
            let found = fs::symlink_metadata(&path).unwrap();
            assert_eq!((found.uid(), found.gid()), (54321, 54322), "{}", path.display());
            let allowed = if found.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(found.mode() & 0o777, allowed, "umask {umask}: {}", path.display());
            if found.is_dir() {
                open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
    }
    let place = world.place();
    let done = as_root(&world, "EVERPOINT_PG_USER=nobody-has-this-name; export EVERPOINT_PG_USER", &place);
    assert_eq!(done.status.code(), Some(2), "{done:?}");
    assert!(String::from_utf8_lossy(&done.stderr).contains("nobody-has-this-name"), "{done:?}");
    assert!(!place.exists());
}

/// Builds the library of `custom_rmgr/records.c`; `None` where there is no compiler or the server has no headers.
fn library(install: &PgInstall, at: &Path) -> Option<()> {
    let include = install.bin().parent()?.join("include/server");
    let headers = [include, format!("/usr/include/postgresql/{}/server", install.major()).into()];
    let headers = headers.iter().find(|place| place.join("postgres.h").exists())?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/custom_rmgr/records.c");
    let mut compile = Command::new("cc");
    compile.args(["-shared", "-fPIC", "-I"]).arg(headers).arg("-o").arg(at).arg(source);
    compile.status().ok().filter(std::process::ExitStatus::success).map(drop)
}

#[test]
fn a_copy_loads_what_its_log_needs_or_is_refused_before_anything_is_written() {
    if !found(15) {
        return;
    }
    let mut source = quiet(15).create().unwrap();
    let file = source.home().path().join("records.so");
    if library(source.install(), &file).is_none() {
        everpoint_testkit::say(
            "skipped: no compiler, or no headers of the server, for an extension of its own",
        );
        return;
    }
    let name = source.home().path().join("records").display().to_string();
    let configuration = source.data_dir().join("postgresql.conf");
    let text = fs::read_to_string(&configuration).unwrap();
    fs::write(&configuration, format!("{text}shared_preload_libraries = 'auto_explain, {name}'\n")).unwrap();
    source.start().unwrap();
    let mut world = World::new(source);
    world.capture();
    let function = format!("CREATE FUNCTION write_record() RETURNS void AS '{name}' LANGUAGE C");
    for sql in [&function, "UPDATE pg_database SET datcollversion = '9.9' WHERE datname = 'postgres'"] {
        world.source.psql(sql).unwrap();
    }
    world.backup(&[]);
    world.everpoint.run(&["restore-point", CLUSTER, "before"]).unwrap();
    world.source.psql("SELECT write_record()").unwrap();
    world.source.psql("CREATE TABLE after AS SELECT 1 AS n").unwrap();
    world.settle(&world.source, 1);

    let copy = world.restore("latest", &[]);
    assert_eq!(copy.psql("SHOW shared_preload_libraries"), format!("\"{name}\""));
    assert_eq!(copy.psql("SELECT n FROM after"), "1");
    drop(copy);

    fs::rename(&file, file.with_extension("gone")).unwrap();
    let place = world.place();
    let restore = |more: &[&str]| {
        let arguments = ["restore", CLUSTER, place.to_str().unwrap()];
        world.everpoint.try_run(&[&arguments[..], more].concat()).unwrap()
    };
    for more in [&["--dry-run"][..], &["--start"], &[]] {
        let refused = restore(more);
        assert_eq!(refused.status.code(), Some(3), "{refused:?}");
        assert!(
            refused.err.contains("resource manager 128") && refused.err.contains("--exclusive"),
            "{refused:?}"
        );
        assert!(!place.exists());
    }
    // The way out, as it is printed.
    let refused = restore(&[]);
    let way: Vec<&str> = refused.err.split("--to ").nth(1).unwrap().split_whitespace().take(2).collect();
    let done = restore(&["--start", "--to", way[0], way[1]]);
    assert!(done.status.success(), "{done:?}");
    assert!(
        done.err.contains("REINDEX DATABASE \"postgres\"; ALTER DATABASE \"postgres\" REFRESH"),
        "{done:?}"
    );
    let server = everpoint_testkit::RunningCopy::on(&place).unwrap();
    let loaded = server.session().unwrap().query("SHOW shared_preload_libraries").unwrap().to_string();
    assert_eq!(loaded, "");
}
