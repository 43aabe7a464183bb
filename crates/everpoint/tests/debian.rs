//! A cluster whose configuration lies outside of its data directory, as Debian's packages make it: what a backup takes
//! along, what a restore says, and that what it says works when it is typed. Where Debian's `pg_ctlcluster` is installed
//! with PostgreSQL 15 it is used, with a directory of configurations of its own; else a script stands in for it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail loudly"
)]

#[allow(dead_code, reason = "shared with other scenarios")]
mod support_debian;
#[allow(dead_code, reason = "shared with other scenarios")]
mod support_runbooks;
#[allow(dead_code, reason = "shared with other scenarios")]
mod support_scenarios;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use everpoint_testkit::{Port, RunningCopy};
use support_debian::{CLUSTER, Debian};
use support_runbooks::script;
use support_scenarios::{World, found, quiet};

const MAJOR: u32 = 15;

#[test]
fn production_comes_back_with_the_commands_that_are_printed() {
    if !found(MAJOR) {
        return;
    }
    let debian = Debian::new();
    let checked = debian.everpoint.try_run(&["check", CLUSTER]).unwrap().out;
    assert!(checked.contains("files outside of the data directory are taken along"), "{checked}");
    // An included directory that is empty must come back too, or the server does not start.
    fs::create_dir(debian.etc("empty.d")).unwrap();
    let mut text = fs::read(debian.etc("postgresql.conf")).unwrap();
    text.extend_from_slice(b"include_dir = 'empty.d'\n");
    fs::write(debian.etc("postgresql.conf"), text).unwrap();
    debian.everpoint.run(&["backup", CLUSTER]).unwrap();

    // A copy runs with configuration of its own, and has the linked key as a file that is closed.
    let copy = debian.home("copy");
    let place = copy.to_str().unwrap();
    let said = debian.everpoint.run(&["restore", CLUSTER, place, "--start"]).unwrap();
    assert!(said.contains("everpoint-external; a copy does not read it"), "{said}");
    assert!(said.contains("connect with: ") && said.contains("stop it with: "), "{said}");
    // What it says is typed: it leads to the copy.
    let connect = said.lines().find_map(|line| line.strip_prefix("connect with: ")).unwrap();
    assert_eq!(debian.shell(&format!("{connect} -Atc 'SHOW data_directory'")).trim(), place);
    let running = RunningCopy::on(&copy).unwrap();
    assert_eq!(running.session().unwrap().query("SELECT count(*) FROM lost_table").unwrap().to_string(), "3");
    let key = fs::symlink_metadata(copy.join("server.key")).unwrap();
    assert!(key.is_file() && key.mode() & 0o077 == 0, "{:o}", key.mode());
    let rules = fs::read_to_string(copy.join("pg_hba.conf")).unwrap();
    assert!(rules.lines().any(|rule| rule.starts_with("host ") && rule.ends_with(" trust")), "{rules}");
    running.stop_and_check(&debian.install).unwrap();
    fs::remove_dir_all(&copy).unwrap();

    // The machine is lost, /etc too.
    let before = debian.configuration();
    debian.ctl("stop");
    fs::remove_dir_all(debian.home("etc")).unwrap();
    fs::remove_dir_all(&debian.data).unwrap();
    let place = debian.data.to_str().unwrap();
    let refused =
        debian.everpoint.try_run(&["restore", CLUSTER, place, "--replace-production", "--start"]).unwrap();
    assert_eq!(refused.status.code(), Some(2), "{}{}", refused.out, refused.err);
    assert!(refused.err.contains("is not there") && !debian.data.exists(), "{}", refused.err);
    let said = debian.shell(&format!("everpoint restore {CLUSTER} {place} --replace-production"));
    assert!(said.contains(&format!("start it with: pg_ctlcluster 15 {} start", debian.name)), "{said}");
    let commands: Vec<&str> = said
        .lines()
        .filter_map(|line| line.strip_prefix("  ").or_else(|| line.strip_prefix("start it with: ")))
        .collect();
    debian.shell(&commands.join("\n"));
    assert_eq!(debian.sql("SELECT count(*) FROM lost_table"), "3");
    assert_eq!(debian.configuration(), before);
    assert_eq!(debian.sql("SHOW work_mem"), "7MB", "what conf.d says counts again");
    assert_eq!(debian.sql("SHOW maintenance_work_mem"), "8MB", "what lies a step up counts again");
    // The link to the key was not made, for its target was not there then; the next restore in place makes it.
    debian.ctl("stop");
    let said =
        debian.shell(&format!("everpoint restore {CLUSTER} {place} --delta --replace-production --start"));
    let line = |what: &str| said.lines().find_map(|line| line.strip_prefix(what)).unwrap_or_default();
    let (connect, stop) = (line("connect with: "), line("stop it with: "));
    assert_eq!(debian.shell(&format!("{connect} -Atc 'SHOW data_directory'")).trim(), place, "{said}");
    assert_eq!(stop, format!("pg_ctlcluster 15 {} stop", debian.name));
    assert_eq!(debian.sql("SELECT count(*) FROM lost_table"), "3");
    assert_eq!(fs::read_link(debian.data.join("server.key")).unwrap(), debian.home("etc/ssl/server.key"));
    assert_eq!(debian.sql("SHOW config_file"), debian.etc("postgresql.conf").display().to_string());
}

#[test]
fn a_restore_elsewhere_never_starts_the_server_of_the_old_directory() {
    if !found(MAJOR) {
        return;
    }
    let debian = Debian::new();
    debian.everpoint.run(&["backup", CLUSTER]).unwrap();
    debian.ctl("stop");
    let new = debian.home("new");
    let place = new.to_str().unwrap();
    let said = debian.shell(&format!("everpoint restore {CLUSTER} {place} --replace-production"));
    let start = said.lines().find_map(|line| line.strip_prefix("start it with: ")).unwrap();
    assert!(start.contains("config_file=") && said.contains("set data_directory = "), "{said}");
    debian.shell(start);
    assert_eq!(debian.sql("SHOW data_directory"), place);
    assert_eq!(debian.sql("SELECT count(*) FROM lost_table"), "3");
    debian.shell(&format!("pg_ctl -D {place} stop"));
}

#[test]
fn over_the_wire_what_is_missing_is_said_until_it_is_granted() {
    if !found(MAJOR) {
        return;
    }
    let debian = Debian::new();
    debian.sql("CREATE ROLE saver LOGIN REPLICATION");
    debian.configure(|text| {
        let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with("data_dir")).collect();
        kept.join("\n").replace("postgres://postgres@", "postgres://saver@")
    });
    let checked = debian.everpoint.try_run(&["check", CLUSTER]).unwrap().out;
    assert!(checked.contains("can't be seen by this role"), "{checked}");
    let grants = "GRANT pg_read_all_settings, pg_read_server_files TO \"saver\"; GRANT EXECUTE ON FUNCTION \
                  pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean), \
                  pg_catalog.pg_ls_dir(text, boolean, boolean) TO \"saver\"";
    assert!(checked.contains(grants), "{checked}");
    let told = debian.everpoint.try_run(&["backup", CLUSTER]).unwrap();
    assert!(
        told.status.success() && told.err.contains("the image lacks ") && told.err.contains(grants),
        "{}",
        told.err
    );

    // Half of it: the role sees which files there are, and may not read them.
    debian.sql("GRANT pg_read_all_settings TO saver");
    let checked = debian.everpoint.try_run(&["check", CLUSTER]).unwrap().out;
    assert!(checked.contains("a backup would lack ") && checked.contains("postgresql.conf"), "{checked}");

    debian.sql(grants);
    let checked = debian.everpoint.try_run(&["check", CLUSTER]).unwrap().out;
    assert!(checked.contains("are taken along") && !checked.contains("would lack"), "{checked}");
    let told = debian.everpoint.try_run(&["backup", CLUSTER, "--json"]).unwrap();
    assert!(told.status.success() && !told.err.contains("lacks"), "{}", told.err);
    let report: serde_json::Value = serde_json::from_str(&told.out).unwrap();
    let copy = debian.home("copy");
    let said = debian.everpoint.run(&["restore", CLUSTER, copy.to_str().unwrap()]).unwrap();
    assert!(said.contains("pg_ctl -D"), "{said}");
    let aside = copy.join("everpoint-external").join(debian.etc("").strip_prefix("/").unwrap());
    for name in ["postgresql.conf", "pg_hba.conf", "people", "conf.d/local.conf"] {
        assert_eq!(fs::read(aside.join(name)).unwrap(), fs::read(debian.etc(name)).unwrap());
    }
    assert!(aside.with_file_name("shared.conf").exists());
    // A base backup passes over the link; the image has the key all the same, closed.
    let key = fs::metadata(copy.join("server.key")).unwrap();
    assert!(key.len() > 0 && key.permissions().mode() & 0o077 == 0);

    // In place the links stay, also those of which the image knows nothing, and what they lead to is not changed.
    let (data, notes) = (&debian.data, debian.home("notes"));
    fs::write(&notes, "of the operator").unwrap();
    let links =
        [("server.key", fs::read_link(data.join("server.key")).unwrap()), ("sub/notes", notes.clone())];
    fs::create_dir(data.join("sub")).unwrap();
    let owner = fs::metadata(data).unwrap();
    std::os::unix::fs::chown(data.join("sub"), Some(owner.uid()), Some(owner.gid())).unwrap();
    std::os::unix::fs::symlink(&notes, data.join("sub/notes")).unwrap();
    debian.sql("DELETE FROM lost_table");
    debian.ctl("stop");
    let before = fs::read(&links[0].1).unwrap();
    let wanted = format!("backup:{}", report["label"].as_str().unwrap());
    let restore =
        ["restore", CLUSTER, data.to_str().unwrap(), "--delta", "--replace-production", "--to", &wanted];
    let dry = debian.everpoint.run(&[&restore[..], &["--dry-run"]].concat()).unwrap();
    let told = debian.everpoint.try_run(&restore).unwrap();
    assert!(told.status.success(), "{}", told.err);
    for said in [&dry, &told.err] {
        assert!(said.contains("server.key -> ") && said.contains("sub/notes -> "), "{said}");
    }
    for (name, target) in &links {
        assert_eq!(&fs::read_link(data.join(name)).unwrap(), target, "{name}");
    }
    assert_eq!(fs::read(&links[0].1).unwrap(), before);
    debian.ctl("start");
    assert_eq!(debian.sql("SELECT count(*) FROM lost_table"), "3");
}

#[test]
fn production_on_debian_is_restored_as_the_runbook_says() {
    if !found(MAJOR) {
        return;
    }
    let debian = Debian::new();
    debian.everpoint.run(&["backup", CLUSTER]).unwrap();
    let table = debian.sql("CHECKPOINT; SELECT pg_relation_filepath('lost_table')");
    fs::write(debian.data.join(table.lines().last().unwrap()), [0x5a; 8192]).unwrap();
    let place = debian.data.to_str().unwrap();
    let commands = script("Some files are corrupt")
        .replace("/var/lib/postgresql/15/main", place)
        .replace("15 main", &format!("15 {}", debian.name));
    debian.shell(&commands);
    assert_eq!(debian.sql("SELECT count(*) FROM lost_table"), "3");

    debian.ctl("stop");
    fs::write(debian.data.join("global/pg_control"), [0x5a; 8192]).unwrap();
    let commands = script("pg_control is corrupt")
        .replace("/var/lib/postgresql/15/main", place)
        .replace("15 main", &format!("15 {}", debian.name));
    debian.shell(&commands);
    assert_eq!(debian.sql("SELECT count(*) FROM lost_table"), "3");

    debian.ctl("stop");
    let before = debian.configuration();
    fs::remove_dir_all(&debian.data).unwrap();
    fs::remove_dir_all(debian.home("etc/15")).unwrap();
    let etc = debian.home("etc");
    let etc = etc.to_str().unwrap();
    let commands = script("Restore production on Debian, on a new machine")
        .replace("/mnt/backup", debian.home("repository").to_str().unwrap())
        .replace("/media/usb/everpoint.key", debian.home("key").to_str().unwrap())
        // It is not root who types here.
        .replace("chown postgres: /etc/postgresql/15/main /etc/postgresql/15/main/conf.d\n", "")
        .replace("/etc/postgresql/15/main", debian.etc("").to_str().unwrap())
        .replace("/etc/postgresql", etc)
        .replace("/var/lib/postgresql/15/main", place)
        .replace("15 main", &format!("15 {}", debian.name));
    debian.shell(&commands);
    assert_eq!(debian.sql("SELECT count(*) FROM lost_table"), "3");
    assert_eq!(debian.configuration(), before);

    // What the restore put aside is no part of the next backup: it is taken from its own place.
    fs::write(debian.etc("conf.d/local.conf"), "work_mem = '9MB'\n").unwrap();
    debian.everpoint.run(&["backup", CLUSTER]).unwrap();
    let copy = debian.home("copy");
    debian.everpoint.run(&["restore", CLUSTER, copy.to_str().unwrap()]).unwrap();
    let aside =
        copy.join("everpoint-external").join(debian.etc("conf.d/local.conf").strip_prefix("/").unwrap());
    assert_eq!(fs::read_to_string(aside).unwrap(), "work_mem = '9MB'\n");
}

/// Puts production's address into its configuration: the test gave it to the server on its command line.
fn settle_address(world: &World) {
    for setting in [
        format!("port = {}", world.source.port()),
        format!("unix_socket_directories = '{}'", world.source.socket_dir().display()),
        "listen_addresses = '127.0.0.1'".to_owned(),
    ] {
        world.source.psql(&format!("ALTER SYSTEM SET {setting}")).unwrap();
    }
}

fn type_it(world: &World, commands: &str) -> String {
    let sockets = world.source.socket_dir().display();
    let commands = format!("export PGHOST={sockets} PGPORT={}\n{commands}", world.source.port());
    let ran = world.everpoint.shell(&commands, &world.source.install().bin()).unwrap();
    let ran = ran.wait(std::time::Duration::from_secs(120)).unwrap();
    assert!(ran.status.success(), "{commands}\n{}\n{}", ran.out, ran.err);
    ran.out
}

/// The timeline that a server writes.
const TIMELINE: &str =
    "SELECT ('x' || substring(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint";

/// Waits until the server is promoted.
const PROMOTED: &str =
    "until [ $(psql -Atd postgres -c 'SELECT pg_is_in_recovery()') = f ]; do sleep 0.1; done";

#[test]
fn a_second_restore_in_place_goes_further_back() {
    if !found(MAJOR) {
        return;
    }
    let mut world = World::new(quiet(MAJOR).start().unwrap());
    settle_address(&world);
    world.capture();
    world.backup(&[]);
    let sql = |world: &World, sql: &str| world.source.psql(sql).unwrap();
    sql(&world, "CREATE TABLE lost_table AS SELECT 1 AS n");
    let early = sql(&world, "SELECT clock_timestamp()");
    sql(&world, "INSERT INTO lost_table VALUES (2)");
    let late = sql(&world, "SELECT clock_timestamp()");
    sql(&world, "DROP TABLE lost_table");
    world.settle(&world.source, 1);
    let data = world.source.data_dir().to_owned();
    let commands = script("Wrong moment, outside of Debian")
        .replace("/var/lib/postgresql/15/main", data.to_str().unwrap())
        .replace("2026-01-29 14:29:59", &late)
        .replace("2026-01-29 14:10:00", &early)
        // As a person does, who looks a while later: both attempts have their own timeline then.
        .replace(" start\n", &format!(" start\n{PROMOTED}\n"));
    let said = type_it(&world, &commands);
    let counts: Vec<&str> = said.lines().map(str::trim).filter(|line| ["1", "2"].contains(line)).collect();
    assert_eq!(counts, ["2", "1"], "{said}");
    // Capture went on, and what is written now can be restored.
    let running = RunningCopy::on(&data).unwrap();
    let is_primary =
        || running.session().unwrap().query("SELECT pg_is_in_recovery()").unwrap().to_string() == "f";
    world.wait_for("the server is promoted", is_primary);
    running.session().unwrap().query("INSERT INTO lost_table VALUES (3)").unwrap();
    let mut session = running.session().unwrap();
    let end: u64 = session.value("SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint").unwrap();
    let timeline: u64 = session.value(TIMELINE).unwrap();
    world.settle_at(end, timeline);
    let copy = world.restore("latest", &[]);
    assert_eq!(copy.psql("SELECT string_agg(n::text, ',' ORDER BY n) FROM lost_table"), "1,3");
}

#[test]
fn a_copy_becomes_production() {
    if !found(MAJOR) {
        return;
    }
    let mut world = World::new(quiet(MAJOR).start().unwrap());
    settle_address(&world);
    world.capture();
    world.backup(&[]);
    world.source.psql("CREATE TABLE lost_table AS SELECT 1 AS n").unwrap();
    let before = world.source.psql("SELECT clock_timestamp()").unwrap();
    world.source.psql("DROP TABLE lost_table").unwrap();
    world.settle(&world.source, 1);
    let (port, new) = (Port::free().unwrap(), world.place());
    let commands = script("The copy becomes production, outside of Debian")
        .replace("/var/lib/postgresql/15/main", world.source.data_dir().to_str().unwrap())
        .replace("/srv/new", new.to_str().unwrap())
        .replace("6543", &port.number().to_string())
        .replace("2026-01-29 14:29:59", &before);
    drop(port);
    // A configuration that can't be changed ends the block before anything is started or adopted.
    let (restore, rest) = commands.split_at(commands.find("sed -i").unwrap());
    let typed =
        type_it(&world, &format!("{restore}(EVERPOINT_CONFIG=nowhere/everpoint.toml\n{rest}) || echo ended"));
    assert!(typed.trim_end().ends_with("ended") && new.join("everpoint.copy").exists(), "{typed}");
    assert!(RunningCopy::on(&new).is_err());
    type_it(&world, rest);
    let running = RunningCopy::on(&new).unwrap();
    assert!(!new.join("everpoint.copy").exists());
    let mut session = running.session().unwrap();
    session.query("INSERT INTO lost_table VALUES (2)").unwrap();
    let end: u64 = session.value("SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint").unwrap();
    world.settle_at(end, 2);
    let copy = world.restore("latest", &[]);
    assert_eq!(copy.psql("SELECT string_agg(n::text, ',' ORDER BY n) FROM lost_table"), "1,2");
}
