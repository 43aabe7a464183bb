//! Daily packages: everything comes back from them after the machine is lost, with everpoint and without.

// Helpers of tests fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code, reason = "shared with other scenarios")]
mod support_scenarios;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use everpoint_testkit::{Address, RunningCopy, Session, field, test_tool, text};
use support_scenarios::{CLUSTER, World, ask, found, quiet};

/// A server with rows from before and after its image, a tablespace, and a package of it.
struct Packed {
    world: World,
    package: PathBuf,
}

impl Packed {
    fn make() -> Self {
        let source = quiet(15).start().unwrap();
        let space = source.home().subdir("space").unwrap();
        let mut world = World::new(source);
        let sql = |statement: &str| world.source.psql(statement).unwrap();
        sql(&format!("CREATE TABLESPACE outside LOCATION '{}'", space.display()));
        sql("CREATE TABLE before_image TABLESPACE outside AS SELECT n FROM generate_series(1, 3000) n");
        world.capture();
        world.backup(&[]);
        world.source.psql("CREATE TABLE orders AS SELECT n FROM generate_series(1, 2000) n").unwrap();
        world.settle(&world.source, 1);
        let package = pack(&world, &[]);
        Self { world, package }
    }

    /// The machine is lost: server and repository are gone, the key and the package are elsewhere.
    fn lose_all(&mut self) {
        self.world.stop_capture();
        self.world.source.kill9().unwrap();
        fs::remove_dir_all(self.world.source.data_dir()).unwrap();
        fs::remove_dir_all(self.world.source.home().path().join("space")).unwrap();
        fs::remove_dir_all(self.world.everpoint.home().path().join("repository")).unwrap();
    }
}

fn pack(world: &World, more: &[&str]) -> PathBuf {
    let place = world.everpoint.home().path().join("packages");
    let arguments = ["offsite", "pack", "--directory", place.to_str().unwrap()];
    let report = world.everpoint.json(&[&arguments[..], more].concat()).unwrap();
    assert_eq!(*field(&report, "/shortfalls").unwrap(), serde_json::json!([]), "{report}");
    PathBuf::from(text(&report, "/file").unwrap())
}

#[test]
fn after_total_loss_a_package_and_the_key_bring_all_back() {
    if !found(15) {
        return;
    }
    let mut packed = Packed::make();
    packed.lose_all();
    let space = packed.world.place();
    let old = packed.world.source.home().path().join("space");
    let map = format!("{}={}", old.display(), space.display());
    let file = packed.package.to_str().unwrap().to_owned();
    let copy = packed.world.restore("latest", &["--package", &file, "--map", &map]);
    assert_eq!(copy.psql("SELECT count(*) FROM before_image"), "3000");
    assert_eq!(copy.psql("SELECT count(*) FROM orders"), "2000");
    copy.stop_and_check(&packed.world);
}

/// The commands of a document: its indented lines.
fn commands(document: &str) -> String {
    let lines = document.lines().filter_map(|line| line.strip_prefix("    "));
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn after_total_loss_age_tar_zstd_and_postgresql_alone_bring_all_back() {
    if !found(15) {
        return;
    }
    let Some(age) = test_tool("bin/age").unwrap() else { return };
    let mut packed = Packed::make();
    packed.lose_all();
    let (world, home) = (&packed.world, packed.world.everpoint.home().path().to_owned());
    let identity = world.everpoint.run(&["key", "age"]).unwrap();
    let identity_file = home.join("identity.txt");
    fs::write(&identity_file, identity).unwrap();
    // Nothing of ours is on the path from here on.
    let unpacked = home.join("unpacked");
    let data = home.join("by-hand");
    let port = 6900 + u16::try_from(std::process::id() % 90).unwrap();
    let variables = format!(
        "PATH={tools}:/usr/bin:/bin\npackage={}\nidentity={}\nfile={}\ndata={}\nbin={}\nport={port}\n",
        unpacked.display(),
        identity_file.display(),
        packed.package.display(),
        data.display(),
        world.source.install().bin().display(),
        tools = age.parent().unwrap().display(),
    );
    // The instructions lie inside of the package: the first commands are known to whoever opens it.
    let open = format!(
        "{variables}mkdir -p \"$package\"\nage --decrypt --identity \"$identity\" \"$file\" | tar -x -C \"$package\"\n"
    );
    run(world, &open);
    let instructions = fs::read_to_string(unpacked.join("RESTORE.md")).unwrap();
    run(world, &format!("{variables}{}", commands(&instructions)));
    let _stopped_in_the_end = RunningCopy::on(&data).unwrap();
    let mut session = Session::connect(&Address::Socket(data, port), "postgres").unwrap();
    assert_eq!(ask(&mut session, "SELECT count(*) FROM before_image"), "3000");
    assert_eq!(ask(&mut session, "SELECT count(*) FROM orders"), "2000");
    assert_eq!(ask(&mut session, "SELECT pg_is_in_recovery()"), "f");
}

fn run(world: &World, script: &str) {
    let ran = world.everpoint.shell(script, Path::new("/nowhere")).unwrap();
    let ran = ran.wait(Duration::from_secs(60)).unwrap();
    assert!(ran.status.success(), "{script}\n{}{}", ran.out, ran.err);
}

#[test]
fn several_packages_restore_to_moments_between_them() {
    if !found(15) {
        return;
    }
    let source = quiet(15).start().unwrap();
    let mut world = World::new(source);
    world.source.psql("CREATE TABLE days (n int)").unwrap();
    world.capture();
    world.backup(&[]);
    let (mut packages, mut moments) = (Vec::new(), Vec::new());
    for day in 1..=3 {
        world.source.psql(&format!("INSERT INTO days VALUES ({day})")).unwrap();
        moments.push(world.source.psql("SELECT clock_timestamp()").unwrap());
        world.source.psql(&format!("INSERT INTO days VALUES ({})", day * 10)).unwrap();
        world.source.psql("SELECT pg_switch_wal()").unwrap();
        world.source.psql("CHECKPOINT").unwrap();
        world.settle(&world.source, 1);
        packages.push(pack(&world, &[]).to_str().unwrap().to_owned());
        std::thread::sleep(Duration::from_millis(1100));
    }
    fs::rename(world.everpoint.home().path().join("repository"), world.everpoint.home().path().join("lost"))
        .unwrap();
    let all: Vec<&str> = std::iter::once("--package").chain(packages.iter().map(String::as_str)).collect();
    for (day, (moment, rows)) in moments.iter().zip(["1", "1,10,2", "1,10,2,20,3"]).enumerate() {
        let copy = world.restore(moment, &all);
        assert_eq!(copy.psql("SELECT string_agg(n::text, ',' ORDER BY ctid) FROM days"), rows, "day {day}");
    }
    // One damaged byte, and nothing of it is used.
    let mut bytes = fs::read(&packages[2]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&packages[2], bytes).unwrap();
    let place = world.place();
    let ran = world
        .everpoint
        .try_run(&["restore", CLUSTER, place.to_str().unwrap(), "--package", &packages[2]])
        .unwrap();
    assert_eq!(ran.status.code(), Some(4), "{}", ran.err);
    assert!(!place.join("PG_VERSION").exists());
}
