//! Log that is missing, or is not the cluster's: it is named, and nothing is restored across it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail loudly"
)]

#[allow(dead_code, reason = "shared with other scenarios")]
mod support_scenarios;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use everpoint_testkit::{Account, PgCluster, PgInstall, Ran, Scratch, StopMode};
use serde_json::Value;
use support_scenarios::{CLUSTER, World, forget_files};

/// Exit codes.
const SHORTFALL: i32 = 3;
const DAMAGED: i32 = 4;

fn protected(settings: &[(&str, &str)]) -> Option<World> {
    PgInstall::find_or_skip(15).unwrap()?;
    let cluster = PgCluster::builder()
        .major(15)
        .wal_segsize_mb(1)
        .setting("autovacuum", "off")
        .settings(settings.iter().copied());
    let world = World::new(cluster.start().unwrap());
    sql(&world.source, "CREATE TABLE t (word text)");
    Some(world)
}

fn sql(server: &PgCluster, text: &str) -> String {
    server.psql(text).unwrap()
}

fn say(world: &World, word: &str) {
    sql(&world.source, &format!("INSERT INTO t VALUES ('{word}')"));
}

fn capture(world: &World) {
    world.everpoint.run(&["capture", CLUSTER, "--once"]).unwrap();
}

fn restore_point(world: &World, name: &str) {
    world.everpoint.run(&["restore-point", CLUSTER, name]).unwrap();
}

/// Ends the server's segment; returns its name.
fn end_segment(server: &PgCluster) -> String {
    let name = sql(server, "SELECT pg_walfile_name(pg_current_wal_insert_lsn())");
    sql(server, "SELECT pg_switch_wal()");
    name
}

fn list(world: &World) -> Value {
    world.everpoint.json(&["list", CLUSTER]).unwrap()["clusters"][0].clone()
}

fn gaps(world: &World) -> Vec<Value> {
    list(world)["gaps"].as_array().unwrap().clone()
}

fn words(world: &World, target: &str) -> String {
    let copy = world.restore(target, &[]);
    copy.psql("SELECT string_agg(word, ' ' ORDER BY word) FROM t")
}

/// The target must be refused: exit code 3, nothing written, the nearest targets named.
fn refused(world: &World, target: &str) -> Value {
    let place = world.place();
    let arguments = ["--json", "restore", CLUSTER, place.to_str().unwrap(), "--to", target];
    let ran = world.everpoint.try_run(&arguments).unwrap();
    assert_eq!(ran.status.code(), Some(SHORTFALL), "{}", ran.told(&arguments));
    assert!(!place.exists(), "nothing may be written: {}", ran.told(&arguments));
    serde_json::from_str::<Value>(&ran.out).unwrap()["error"].clone()
}

fn push(world: &World, file: &Path) -> Ran {
    world.everpoint.try_run(&["--json", "archive-push", CLUSTER, file.to_str().unwrap()]).unwrap()
}

fn pushed(world: &World, server: &PgCluster, name: &str) -> Ran {
    push(world, &wal(server, name))
}

fn accepted(ran: &Ran) {
    assert!(ran.status.success(), "{}", ran.told(&["archive-push"]));
}

/// The push must be refused as wrong data, with this code.
fn rejected(ran: &Ran, code: &str) {
    rejected_as(ran, DAMAGED, code);
}

fn rejected_as(ran: &Ran, exit: i32, code: &str) {
    assert!(
        ran.status.code() == Some(exit) && ran.out.contains(code),
        "not refused as {code}: {}",
        ran.told(&["archive-push"])
    );
}

fn wal(server: &PgCluster, name: &str) -> PathBuf {
    server.data_dir().join("pg_wal").join(name)
}

fn repository(world: &World) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    read_tree(&world.everpoint.home().path().join("repository"), &mut found);
    found.retain(|path, _| !path.to_string_lossy().contains("/leases/"));
    found
}

fn read_tree(directory: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_tree(&path, found);
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
}

/// Removes everything that is stored of a segment, and the server's own copy.
fn lose(world: &World, name: &str) {
    let of_it =
        |path: &&PathBuf| path.components().any(|part| part.as_os_str().to_string_lossy().starts_with(name));
    let stored = repository(world);
    let objects: Vec<&PathBuf> = stored.keys().filter(of_it).collect();
    assert!(objects.len() >= 2, "a segment and its digest: {objects:?}");
    objects.iter().for_each(|path| fs::remove_file(path).unwrap());
    // The server may have removed it by itself.
    let _ = fs::remove_file(wal(&world.source, name));
}

/// A copy of the stopped server's files, not started.
fn clone(server: &PgCluster) -> PgCluster {
    let home = Scratch::new("clone").unwrap();
    let data = home.path().join("data");
    let copied = Command::new("cp").arg("-a").arg(server.data_dir()).arg(&data).status().unwrap();
    assert!(copied.success());
    Account::of_servers().unwrap().own(home.path()).unwrap();
    PgCluster::on_directory(server.install().clone(), home, data).unwrap()
}

/// A backup, a moment before the fault and log behind it.
fn begin(world: &World) {
    say(world, "a");
    world.backup(&[]);
    say(world, "b");
    restore_point(world, "before");
    end_segment(&world.source);
}

#[test]
fn a_hole_is_named_and_nothing_is_restored_across_it() {
    let Some(world) = protected(&[]) else { return };
    begin(&world);
    capture(&world);
    say(&world, "c");
    let lost = end_segment(&world.source);
    say(&world, "d");
    restore_point(&world, "beyond");
    end_segment(&world.source);
    capture(&world);
    assert_eq!(gaps(&world), Vec::<Value>::new());
    sql(&world.source, "CHECKPOINT");
    lose(&world, &lost);

    let named = gaps(&world);
    assert_eq!(named.len(), 1, "{named:?}");
    assert!(named[0]["reason"].as_str().unwrap().contains("hole"), "{named:?}");
    for target in ["name:beyond", "latest"] {
        let error = refused(&world, target);
        assert!(error["hint"].as_str().unwrap().contains("nearest before"), "{error}");
    }
    assert_eq!(words(&world, "name:before"), "a b");

    // What the server has no more is a known gap from then on; a new backup begins a new window.
    say(&world, "e");
    capture(&world);
    assert_eq!(gaps(&world).len(), 1, "{:?}", gaps(&world));
    refused(&world, "latest");
    world.backup(&[]);
    say(&world, "f");
    capture(&world);
    assert_eq!(words(&world, "latest"), "a b c d e f");
    let error = refused(&world, "name:beyond");
    let hint = error["hint"].as_str().unwrap();
    assert!(hint.contains("nearest before") && hint.contains("nearest after"), "{error}");
    assert_eq!(words(&world, "name:before"), "a b");
}

#[test]
fn a_slot_that_was_lost_leaves_a_gap() {
    let small = [
        ("max_slot_wal_keep_size", "4MB"),
        ("min_wal_size", "2MB"),
        ("max_wal_size", "4MB"),
        ("wal_keep_size", "0"),
    ];
    let Some(world) = protected(&small) else { return };
    capture(&world);
    begin(&world);
    capture(&world);
    assert_eq!(gaps(&world), Vec::<Value>::new());
    for _ in 0..5 {
        sql(
            &world.source,
            "INSERT INTO t SELECT '' FROM generate_series(1, 20000); DELETE FROM t WHERE word = ''",
        );
        sql(&world.source, "CHECKPOINT");
    }
    let state = sql(&world.source, "SELECT wal_status FROM pg_replication_slots");
    assert_eq!(state, "lost", "the fault did not happen");
    say(&world, "c");
    restore_point(&world, "beyond");
    let ran = world.everpoint.try_run(&["capture", CLUSTER, "--once"]).unwrap();
    assert!(ran.status.success() && ran.err.contains("lost"), "{}", ran.told(&["capture"]));
    let named = gaps(&world);
    assert_eq!(named.len(), 1, "{named:?}");
    let error = refused(&world, "name:beyond");
    assert!(error["hint"].as_str().unwrap().contains("nearest before"), "{error}");
    assert_eq!(words(&world, "name:before"), "a b");
    world.backup(&[]);
    say(&world, "d");
    capture(&world);
    assert_eq!(words(&world, "latest"), "a b c d");
    assert_eq!(gaps(&world).len(), 1);
}

#[test]
fn only_the_clusters_own_log_is_stored() {
    let Some(mut world) = protected(&[]) else { return };
    begin(&world);
    capture(&world);
    let first = end_segment(&world.source);
    world.source.stop(StopMode::Fast).unwrap();
    let mut clone = clone(&world.source);
    world.source.start().unwrap();
    clone.start().unwrap();

    // Both go on under the same names.
    say(&world, "production");
    let ours = end_segment(&world.source);
    sql(&clone, "INSERT INTO t VALUES ('elsewhere!')");
    let theirs = end_segment(&clone);
    assert_eq!(ours, theirs);
    sql(&clone, "INSERT INTO t VALUES ('elsewhere!')");
    let next = end_segment(&clone);
    accepted(&pushed(&world, &world.source, &first));
    accepted(&pushed(&world, &world.source, &ours));
    // A clone is known by its directory where production's is; else by what it pushes.
    rejected_as(&pushed(&world, &clone, &theirs), 2, "archive.clone");
    forget_files(&world);
    let before = repository(&world);
    rejected(&pushed(&world, &clone, &theirs), "archive.differs");
    assert!(repository(&world) == before, "something was changed");
    rejected(&pushed(&world, &clone, &next), "archive.differs");
    assert!(repository(&world) == before, "a clone's segment was stored as the one that follows");
    // The same again is success.
    accepted(&pushed(&world, &world.source, &ours));
    let mut bytes = fs::read(wal(&world.source, &ours)).unwrap();
    bytes[700_000] ^= 1;
    let changed = world.everpoint.home().path().join(&ours);
    fs::write(&changed, bytes).unwrap();
    rejected(&push(&world, &changed), "archive.differs");
    assert!(repository(&world) == before);

    // Another cluster that took the name.
    let stranger = PgCluster::builder().major(15).wal_segsize_mb(1).start().unwrap();
    let name = end_segment(&stranger);
    rejected(&pushed(&world, &stranger, &name), "archive.wrong_cluster");
    assert!(repository(&world) == before);
    capture(&world);
    assert_eq!(words(&world, "latest"), "a b production");
}

#[test]
fn a_clone_is_not_captured_as_the_cluster() {
    let Some(mut world) = protected(&[]) else { return };
    begin(&world);
    capture(&world);
    world.source.stop(StopMode::Fast).unwrap();
    let mut clone = clone(&world.source);
    world.source.start().unwrap();
    clone.start().unwrap();
    say(&world, "production");
    end_segment(&world.source);
    capture(&world);
    sql(&clone, "INSERT INTO t SELECT 'elsewhere' FROM generate_series(1, 100)");
    end_segment(&clone);
    sql(&clone, "INSERT INTO t SELECT 'elsewhere' FROM generate_series(1, 100)");
    let before = repository(&world);
    let config = world.everpoint.home().path().join("everpoint.toml");
    let good = fs::read_to_string(&config).unwrap();
    let (ours, theirs) = (world.source.port().to_string(), clone.port().to_string());
    fs::write(&config, good.replace(&ours, &theirs)).unwrap();
    let ran = world.everpoint.try_run(&["capture", CLUSTER, "--once"]).unwrap();
    assert_eq!(ran.status.code(), Some(DAMAGED), "{}", ran.told(&["capture"]));
    let log = |all: BTreeMap<PathBuf, Vec<u8>>| -> BTreeMap<PathBuf, Vec<u8>> {
        all.into_iter().filter(|(path, _)| !path.to_string_lossy().contains("/covered/")).collect()
    };
    assert!(log(repository(&world)) == log(before), "something was changed");
    fs::write(&config, good).unwrap();
    capture(&world);
    assert_eq!(words(&world, "latest"), "a b production");
}

#[test]
fn a_reset_of_the_log_is_named() {
    let Some(mut world) = protected(&[]) else { return };
    begin(&world);
    capture(&world);
    world.source.stop(StopMode::Fast).unwrap();
    let mut copy = clone(&world.source);
    world.source.start().unwrap();
    let ran = copy.install().command("pg_resetwal").unwrap().arg("-D").arg(copy.data_dir()).output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
    copy.start().unwrap();
    sql(&copy, "INSERT INTO t VALUES ('reset')");
    let reset = end_segment(&copy);
    // The source goes on up to there, so that the names go on without a hole.
    loop {
        say(&world, "c");
        let name = end_segment(&world.source);
        accepted(&pushed(&world, &world.source, &name));
        let next = sql(&world.source, "SELECT pg_walfile_name(pg_current_wal_lsn() + 1)");
        if next >= reset {
            break;
        }
    }
    let good = gaps(&world);
    assert_eq!(good, Vec::<Value>::new());
    forget_files(&world);
    let ran = pushed(&world, &copy, &reset);
    accepted(&ran);
    let named = gaps(&world);
    assert!(
        named.iter().any(|gap| gap["reason"].as_str().unwrap().contains("reset")),
        "{named:?} {}",
        ran.told(&["archive-push"])
    );
    assert_eq!(words(&world, "name:before"), "a b");
    refused(&world, "latest");
}

#[test]
fn a_cluster_made_anew_is_not_taken_for_the_old_one() {
    let Some(mut world) = protected(&[]) else { return };
    begin(&world);
    capture(&world);
    let port = world.source.port().to_string();
    world.source.stop(StopMode::Fast).unwrap();
    let anew = PgCluster::builder().major(15).wal_segsize_mb(1).start().unwrap();
    let before = repository(&world);
    let config = world.everpoint.home().path().join("everpoint.toml");
    let good = fs::read_to_string(&config).unwrap();
    fs::write(&config, good.replace(&port, &anew.port().to_string())).unwrap();
    for arguments in [&["capture", CLUSTER, "--once"][..], &["backup", CLUSTER], &["check", CLUSTER]] {
        let ran = world.everpoint.try_run(arguments).unwrap();
        let told = ran.told(arguments);
        assert!(!ran.status.success(), "{told}");
        assert!(told.contains("system identifier"), "{told}");
        if arguments[0] != "check" {
            assert_eq!(ran.status.code(), Some(DAMAGED), "{told}");
        }
    }
    assert!(repository(&world) == before, "something was changed");
    assert_eq!(words(&world, "latest"), "a b");
}
