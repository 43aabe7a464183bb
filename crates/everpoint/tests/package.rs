//! Daily packages: everything comes back from them after the machine is lost, with everpoint and without.

// Helpers of tests fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code, reason = "shared with other scenarios")]
mod support_scenarios;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use everpoint_testkit::{Address, RunningCopy, Session, field, server_tool, text};
use support_scenarios::{CLUSTER, World, ask, commands, found, quiet};

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
    // What is in it is seen without a repository, too.
    let listed = packed.world.everpoint.run(&["list", "--package", &file]).unwrap();
    assert!(listed.contains("order-db: backup ") && listed.contains("log of branch 00000001-"), "{listed}");
    let copy = packed.world.restore("latest", &["--package", &file, "--map", &map]);
    assert_eq!(copy.psql("SELECT count(*) FROM before_image"), "3000");
    assert_eq!(copy.psql("SELECT count(*) FROM orders"), "2000");
    copy.stop_and_check(&packed.world);
}

#[test]
fn after_total_loss_age_tar_zstd_and_postgresql_alone_bring_all_back() {
    if !found(15) {
        return;
    }
    let Some(age) = server_tool("bin/age").unwrap() else { return };
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

/// No backup was taken since the gap: what lies before it comes back from a package all the same.
#[test]
fn before_a_gap_a_package_brings_back_what_it_can() {
    if !found(15) {
        return;
    }
    let mut world = World::new(quiet(15).start().unwrap());
    world.capture();
    world.backup(&[]);
    world.source.psql("CREATE TABLE orders AS SELECT n FROM generate_series(1, 2000) n").unwrap();
    world.settle(&world.source, 1);
    world.stop_capture();
    world.source.psql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots").unwrap();
    for _ in 0..3 {
        world.source.psql("INSERT INTO orders VALUES (0); SELECT pg_switch_wal(); CHECKPOINT").unwrap();
    }
    world.everpoint.run(&["capture", CLUSTER, "--once"]).unwrap();
    let place = world.everpoint.home().path().join("packages");
    let report = world.everpoint.json(&["offsite", "pack", "--directory", place.to_str().unwrap()]).unwrap();
    let said = field(&report, "/shortfalls").unwrap().to_string();
    assert!(said.contains("the newest moment can't be restored") && said.contains("goes in"), "{report}");
    let package = text(&report, "/file").unwrap().to_owned();
    world.source.kill9().unwrap();
    fs::remove_dir_all(world.everpoint.home().path().join("repository")).unwrap();
    let directory = world.place();
    let arguments = ["--json", "restore", CLUSTER, directory.to_str().unwrap(), "--package", &package];
    let refused = world.everpoint.try_run(&arguments).unwrap();
    let error: serde_json::Value = serde_json::from_str(&refused.out).unwrap();
    assert_eq!(refused.status.code(), Some(3), "{error}");
    let hint = error["error"]["hint"].as_str().unwrap();
    let before = hint.split('\'').nth(1).unwrap_or_else(|| panic!("{hint}"));
    let copy = world.restore(before, &["--package", &package]);
    assert_eq!(copy.psql("SELECT count(*) FROM orders"), "2000");
    copy.stop_and_check(&world);
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

/// A package without the image, as a provider's limit makes it.
fn pack_log_only(world: &World) -> PathBuf {
    let whole = fs::metadata(pack(world, &[])).unwrap().len();
    std::thread::sleep(Duration::from_millis(1100));
    let place = world.everpoint.home().path().join("packages");
    let limit = (whole - 300_000).to_string();
    let arguments = ["offsite", "pack", "--directory", place.to_str().unwrap(), "--limit", &limit];
    let report = world.everpoint.json(&arguments).unwrap();
    let shortfalls = field(&report, "/shortfalls").unwrap().to_string();
    assert!(shortfalls.contains("is left out: the provider's limit"), "{report}");
    assert!(report["clusters"][0]["base"].is_null(), "{report}");
    PathBuf::from(text(&report, "/file").unwrap())
}

#[test]
fn package_and_repository_together_reach_what_neither_reaches_alone() {
    if !found(15) {
        return;
    }
    let packed = Packed::make();
    let world = &packed.world;
    world.source.psql("CREATE TABLE after_package AS SELECT n FROM generate_series(1, 500) n").unwrap();
    world.settle(&world.source, 1);
    // The repository has lost all of its backups, and still has the log.
    let cluster = world.everpoint.home().path().join("repository/clusters").join(CLUSTER);
    let lost = world.everpoint.home().path().join("lost");
    fs::create_dir(&lost).unwrap();
    for kind in ["backups", "packs"] {
        fs::rename(cluster.join(kind), lost.join(kind)).unwrap();
    }
    let map = format!("{}={}", world.source.home().path().join("space").display(), world.place().display());
    let file = packed.package.to_str().unwrap();
    let alone = world.restore("latest", &["--package", file, "--map", &map]);
    assert_eq!(alone.psql("SELECT to_regclass('after_package') IS NULL"), "t");
    let map = format!("{}={}", world.source.home().path().join("space").display(), world.place().display());
    let both = ["--package", file, "--repo", "local", "--map", &map];
    let place = world.place();
    let planned = ["restore", CLUSTER, place.to_str().unwrap(), "--dry-run"];
    let plan = world.everpoint.json(&[&planned[..], &both[..]].concat()).unwrap();
    let reasons = plan["reasons"].to_string();
    let package = packed.package.file_name().unwrap().to_str().unwrap();
    assert!(reasons.contains(&format!("comes from package {package}")), "{plan}");
    assert!(!reasons.contains("and 0 from the repository"), "{plan}");
    let copy = world.restore("latest", &["--package", file, "--repo", "local", "--map", &map]);
    assert_eq!(copy.psql("SELECT count(*) FROM before_image"), "3000");
    assert_eq!(copy.psql("SELECT count(*) FROM after_package"), "500");
    assert!(!cluster.join("backups").exists(), "nothing of the package stays in the repository");
}

#[test]
fn the_image_of_a_repository_and_the_log_of_a_package_reach_what_neither_reaches_alone() {
    if !found(15) {
        return;
    }
    let mut world = World::new(quiet(15).start().unwrap());
    world.capture();
    let label = world.backup(&[]);
    world.source.psql("CREATE TABLE orders AS SELECT n FROM generate_series(1, 2000) n").unwrap();
    world.settle(&world.source, 1);
    let package = pack_log_only(&world);
    world.stop_capture();
    let cluster = world.everpoint.home().path().join("repository/clusters").join(CLUSTER);
    fs::rename(cluster.join("log"), world.everpoint.home().path().join("lost")).unwrap();
    let arguments = ["--package", package.to_str().unwrap(), "--repo", "local"];
    let copy = world.restore("latest", &arguments);
    assert_eq!(copy.psql("SELECT count(*) FROM orders"), "2000");
    assert_eq!(text(&copy.report, "/backup").unwrap(), label);
}

#[test]
fn without_everpoint_the_image_of_one_package_goes_on_with_the_log_of_the_next() {
    if !found(15) {
        return;
    }
    let Some(age) = server_tool("bin/age").unwrap() else { return };
    let mut world = World::new(quiet(15).start().unwrap());
    world.capture();
    world.backup(&[]);
    world.settle(&world.source, 1);
    let first = pack(&world, &[]);
    world.source.psql("CREATE TABLE orders AS SELECT n FROM generate_series(1, 2000) n").unwrap();
    world.settle(&world.source, 1);
    std::thread::sleep(Duration::from_millis(1100));
    let second = pack_log_only(&world);
    let home = world.everpoint.home().path().to_owned();
    let identity = home.join("identity.txt");
    fs::write(&identity, world.everpoint.run(&["key", "age"]).unwrap()).unwrap();
    let data = home.join("by-hand");
    let port = 7000 + u16::try_from(std::process::id() % 90).unwrap();
    let variables = |file: &Path, package: &Path| {
        format!(
            "set -e\nPATH={}:/usr/bin:/bin\npackage={}\nidentity={}\nfile={}\ndata={}\nbin={}\nport={port}\n",
            age.parent().unwrap().display(),
            package.display(),
            identity.display(),
            file.display(),
            data.display(),
            world.source.install().bin().display(),
        )
    };
    let places = [home.join("unpacked-1"), home.join("unpacked-2")];
    let mut documents = Vec::new();
    for (file, place) in [&first, &second].into_iter().zip(&places) {
        let open = "mkdir -p \"$package\"\nage --decrypt --identity \"$identity\" \"$file\" | tar -x -C \"$package\"\n";
        run(&world, &(variables(file, place) + open));
        documents.push(commands(&fs::read_to_string(place.join("RESTORE.md")).unwrap()));
    }
    let start = documents[0].find("\"$bin/pg_ctl\" -D \"$data\" -l").unwrap();
    let (until_start, from_start) = documents[0].split_at(start);
    run(&world, &(variables(&first, &places[0]) + until_start));
    run(&world, &(variables(&second, &places[1]) + &documents[1]));
    run(&world, &(variables(&first, &places[0]) + from_start));
    let _stopped_in_the_end = RunningCopy::on(&data).unwrap();
    let mut session = Session::connect(&Address::Socket(data, port), "postgres").unwrap();
    assert_eq!(ask(&mut session, "SELECT count(*) FROM orders"), "2000");
}

#[test]
fn a_package_that_would_hold_nothing_is_refused_with_what_to_do() {
    if !found(15) {
        return;
    }
    let world = World::new(quiet(15).start().unwrap());
    let place = world.everpoint.home().path().join("packages");
    let ran = world.everpoint.try_run(&["offsite", "pack", "--directory", place.to_str().unwrap()]).unwrap();
    assert!(!ran.status.success(), "{}", ran.out);
    assert!(
        ran.err.contains("neither an image nor new log") && ran.err.contains("everpoint backup"),
        "{}",
        ran.err
    );
    assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
}
