//! Production's own configuration, where it lies in the directory that is restored in place: it stays as it is now.

// Helpers of tests fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code, reason = "shared with other scenarios")]
mod support_scenarios;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use everpoint_testkit::StopMode;
use support_scenarios::{CLUSTER, World, forget_files, found, quiet};

const BESIDE: &str = ".everpoint-backup";
/// What was taken out of force since the backup.
const GONE: &str = "not in force again: conf.d/gone.conf";
/// Files that differ between backup and now.
const CHANGED: [&str; 5] =
    ["postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "conf.d/a.conf", "server.crt"];

fn append(path: &Path, text: &str) {
    fs::File::options().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

/// Content, owner and mode of files.
fn files(directory: &Path, names: &[&str]) -> BTreeMap<String, (Vec<u8>, u32, u32)> {
    let one = |name: &&str| {
        let path = directory.join(name);
        let found = fs::symlink_metadata(&path).unwrap();
        ((*name).to_owned(), (fs::read(&path).unwrap(), found.uid(), found.mode()))
    };
    names.iter().map(one).collect()
}

fn files_of(
    all: &BTreeMap<String, (Vec<u8>, u32, u32)>,
    names: &[&str],
) -> BTreeMap<String, (Vec<u8>, u32, u32)> {
    names.iter().map(|name| ((*name).to_owned(), all[*name].clone())).collect()
}

fn left_beside(directory: &Path) -> Vec<PathBuf> {
    let both = [directory.to_owned(), directory.join("conf.d")].into_iter();
    let entries = both.flat_map(|place| fs::read_dir(place).unwrap()).map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = entries.filter(|path| path.to_str().unwrap().ends_with(BESIDE)).collect();
    found.sort();
    found
}

/// A server of which the backup holds an older configuration than the one that it has now, stopped.
struct Scene {
    world: World,
    data: PathBuf,
    /// What the backup has.
    backed_up: BTreeMap<String, (Vec<u8>, u32, u32)>,
}

impl Scene {
    fn new(by_files: bool) -> Self {
        let mut world = World::new(quiet(15).setting("max_connections", "120").start().unwrap());
        let data = world.source.data_dir().to_owned();
        let own = everpoint_testkit::Account::of_servers().unwrap();
        fs::create_dir(data.join("conf.d")).unwrap();
        append(&data.join("postgresql.conf"), "include_dir = 'conf.d'\n");
        fs::write(data.join("conf.d/a.conf"), "application_name = 'old'\n").unwrap();
        fs::write(data.join("conf.d/gone.conf"), "deadlock_timeout = '3s'\n").unwrap();
        fs::write(data.join("server.crt"), "old certificate\n").unwrap();
        own.own(&data).unwrap();
        world.source.psql("ALTER SYSTEM SET work_mem = '5MB'").unwrap();
        if !by_files {
            forget_files(&world);
        }
        world.capture();
        world.source.psql("CREATE TABLE kept AS SELECT generate_series(1, 10) n").unwrap();
        world.backup(&[]);
        let backed_up = files(&data, &CHANGED);
        if !by_files {
            // Where it is, is known from now on.
            let line = format!("data_dir = \"{}\"\npostgres =", data.display());
            support_scenarios::configure(&world, |text| text.replacen("postgres =", &line, 1));
        }

        world.source.psql("ALTER SYSTEM SET work_mem = '7MB'").unwrap();
        world.source.psql("ALTER SYSTEM SET hot_standby = 'on'").unwrap();
        // Fewer connections than the log was written with: the recovery needs more than the server will have.
        append(&data.join("postgresql.conf"), "max_connections = 30\n# n\u{e4}chste Zeile");
        append(&data.join("pg_hba.conf"), "# a rule of now\n");
        fs::write(data.join("conf.d/a.conf"), "application_name = 'now'\n").unwrap();
        fs::remove_file(data.join("conf.d/gone.conf")).unwrap();
        fs::write(data.join("conf.d/b.conf"), "statement_timeout = '77s'\n").unwrap();
        fs::write(data.join("server.crt"), "new certificate\n").unwrap();
        own.own(&data).unwrap();
        world.settle(&world.source, 1);
        world.stop_capture();
        world.source.stop(StopMode::Fast).unwrap();
        Self { world, data, backed_up }
    }

    fn restore(&self, more: &[&str]) -> String {
        let place = self.data.to_str().unwrap();
        let arguments = [&["restore", CLUSTER, place, "--delta", "--replace-production"], more].concat();
        let ran = self.world.everpoint.try_run(&arguments).unwrap();
        assert!(ran.status.success(), "{}", ran.told(&arguments));
        format!("{}{}", ran.out, ran.err)
    }

    fn start(&mut self) {
        self.world.source.start().unwrap();
        let source = &self.world.source;
        self.world.wait_for("the end of the recovery", || {
            source.psql("SELECT pg_is_in_recovery()").unwrap() == "f"
        });
        self.world
            .wait_for("the recovery's settings are gone", || !self.data.join("everpoint-recovery").exists());
    }
}

#[test]
fn in_place_the_configuration_of_now_stays() {
    if !found(15) {
        return;
    }
    for by_files in [true, false] {
        let mut scene = Scene::new(by_files);
        let names = [&CHANGED[..], &["conf.d/b.conf", "pg_ident.conf"]].concat();
        let now = files(&scene.data, &names);

        let said = scene.restore(&["--dry-run"]);
        for part in ["stays as it is now", "pg_ident.conf", "not in the backup: conf.d/b.conf", "cp ", GONE] {
            assert!(said.contains(part), "{said} lacks {part}");
        }
        assert_eq!((files(&scene.data, &names), left_beside(&scene.data)), (now.clone(), Vec::new()));

        // Some are killed after they have begun; of the others nobody starts the server.
        let marker = scene.data.join("everpoint.restore-incomplete");
        for _ in 0..3 {
            let place = scene.data.to_str().unwrap();
            let arguments = ["restore", CLUSTER, place, "--delta", "--replace-production"];
            let mut running = scene.world.everpoint.spawn(&arguments).unwrap();
            while running.runs().unwrap() && !marker.exists() {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            running.kill9().unwrap();
            let others: Vec<&str> =
                names.iter().copied().filter(|name| !name.ends_with("auto.conf")).collect();
            assert_eq!(files(&scene.data, &others), files_of(&now, &others));
        }
        for round in 0..3 {
            let said = scene.restore(&[]);
            assert_eq!(said.matches("stays as it is now").count(), 1, "{said}");
            assert!(!marker.exists());
            for (name, (content, _, _)) in &scene.backed_up {
                let beside = scene.data.join(format!("{name}{BESIDE}"));
                assert_eq!(fs::read(&beside).unwrap(), *content, "{name} in round {round}");
            }
            assert_eq!(left_beside(&scene.data).len(), CHANGED.len() + 1);
            let conf = fs::read_to_string(scene.data.join("postgresql.auto.conf")).unwrap();
            assert!(conf.contains("max_connections = '120'"), "{conf}");
            assert!(!scene.data.join("conf.d/gone.conf").exists());
        }
        scene.start();
        assert_eq!(files(&scene.data, &names), now, "byte for byte, owner and mode");
        let shows = |name: &str| scene.world.source.psql(&format!("SHOW {name}")).unwrap();
        assert_eq!([shows("work_mem"), shows("statement_timeout")], ["7MB", "77s"]);
        assert_eq!(shows("deadlock_timeout"), "1s");
        assert_eq!(scene.world.source.psql("SELECT count(*) FROM kept").unwrap(), "10");
        scene.world.source.restart(StopMode::Fast).unwrap();
        assert_eq!(scene.world.source.psql("SHOW max_connections").unwrap(), "30");

        // What lies beside is in no backup.
        scene.world.capture();
        scene.world.backup(&[]);
        scene.world.settle(&scene.world.source, 2);
        let copy = scene.world.restore("latest", &[]);
        assert_eq!(left_beside(&copy.place), Vec::<PathBuf>::new());
        copy.stop_and_check(&scene.world);
        scene.world.stop_capture();
        scene.world.source.stop(StopMode::Fast).unwrap();
        // The newest backup has the configuration of now: there is nothing to tell, and what lies beside is not in the way.
        assert!(!scene.restore(&[]).contains("stays as it is now"));
        assert_eq!(left_beside(&scene.data).len(), CHANGED.len() + 1);
    }
}

/// What only a directory that is read as a whole had is out of force when it is gone; what is named comes back.
#[test]
fn in_place_what_the_configuration_names_comes_back_and_what_was_taken_out_does_not() {
    if !found(15) {
        return;
    }
    let mut world = World::new(quiet(15).start().unwrap());
    let data = world.source.data_dir().to_owned();
    let own = everpoint_testkit::Account::of_servers().unwrap();
    for directory in ["parts", "only.d"] {
        fs::create_dir(data.join(directory)).unwrap();
    }
    append(
        &data.join("postgresql.conf"),
        "include 'parts/one.conf'\ninclude 'parts/two.conf'\ninclude_dir 'only.d'\n",
    );
    fs::write(data.join("parts/one.conf"), "application_name = 'one'\n").unwrap();
    fs::write(data.join("parts/two.conf"), "deadlock_timeout = '3s'\n").unwrap();
    fs::write(data.join("only.d/only.conf"), "work_mem = '9MB'\n").unwrap();
    own.own(&data).unwrap();
    world.source.restart(StopMode::Fast).unwrap();
    world.capture();
    world.source.psql("CREATE TABLE kept AS SELECT generate_series(1, 10) n").unwrap();
    world.backup(&[]);
    world.settle(&world.source, 1);
    world.stop_capture();
    world.source.stop(StopMode::Fast).unwrap();
    fs::remove_file(data.join("parts/two.conf")).unwrap();
    fs::rename(data.join("only.d/only.conf"), data.join("only.d/only.conf.off")).unwrap();
    fs::write(data.join("parts/one.conf"), "application_name = 'now'\n").unwrap();
    own.own(&data).unwrap();

    let mut scene = Scene { world, data, backed_up: BTreeMap::new() };
    let said = scene.restore(&[]);
    assert!(said.contains("not in force again: only.d/only.conf,"), "{said}");
    scene.start();
    let shows = |name: &str| scene.world.source.psql(&format!("SHOW {name}")).unwrap();
    assert_eq!([shows("deadlock_timeout"), shows("work_mem")], ["3s", "4MB"]);
    assert_eq!(fs::read_to_string(scene.data.join("only.d/only.conf.off")).unwrap(), "work_mem = '9MB'\n");

    // Without the main file nothing says what is read: nothing that is called configuration is written over.
    scene.world.source.stop(StopMode::Fast).unwrap();
    fs::remove_file(scene.data.join("postgresql.conf")).unwrap();
    scene.restore(&[]);
    assert_eq!(fs::read_to_string(scene.data.join("parts/one.conf")).unwrap(), "application_name = 'now'\n");
    scene.start();
}

/// As for a bulk load: no server recovers from an archive with it.
#[test]
fn in_place_a_server_of_minimal_log_recovers() {
    if !found(15) {
        return;
    }
    let mut scene = Scene::new(true);
    append(&scene.data.join("postgresql.conf"), "\nwal_level = minimal\nmax_wal_senders = 0\n");
    scene.restore(&[]);
    scene.start();
    assert_eq!(scene.world.source.psql("SELECT count(*) FROM kept").unwrap(), "10");
    scene.world.source.restart(StopMode::Fast).unwrap();
    assert_eq!(scene.world.source.psql("SHOW wal_level").unwrap(), "minimal");
}

/// What can't be written at the end is found before the beginning.
#[test]
fn a_file_of_settings_that_can_not_be_written_refuses_before_anything_goes() {
    if !found(15) || !rustix::process::geteuid().is_root() {
        return;
    }
    let scene = Scene::new(true);
    let [settings, control] = ["postgresql.auto.conf", "global/pg_control"].map(|name| scene.data.join(name));
    let chattr =
        |flag: &str| Command::new("chattr").arg(flag).arg(&settings).status().is_ok_and(|it| it.success());
    if !chattr("+i") {
        return;
    }
    let place = scene.data.to_str().unwrap();
    let arguments = ["restore", CLUSTER, place, "--delta", "--replace-production"];
    let ran = scene.world.everpoint.try_run(&arguments).unwrap();
    assert!(chattr("-i"));
    assert!(ran.status.code() == Some(2) && ran.err.contains("immutable"), "{}", ran.told(&arguments));
    assert!(control.exists() && left_beside(&scene.data).is_empty());
}

/// What a copy was given, and what a restore that did not keep them has left half written, is nobody's configuration.
#[test]
fn in_place_the_configuration_of_a_copy_does_not_stay() {
    if !found(15) {
        return;
    }
    let mut scene = Scene::new(true);
    let place = scene.data.to_str().unwrap().to_owned();
    scene.world.everpoint.run(&["restore", CLUSTER, &place, "--delta"]).unwrap();
    assert!(scene.data.join("everpoint.copy").exists());
    scene.restore(&[]);
    let shown = fs::read_to_string(scene.data.join("postgresql.conf")).unwrap();
    assert_eq!(shown.as_bytes(), scene.backed_up["postgresql.conf"].0, "{shown}");
    scene.start();
    assert_eq!(scene.world.source.psql("SHOW work_mem").unwrap(), "5MB");
}
