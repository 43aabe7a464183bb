//! What an earlier restore left beside a tablespace, what belongs to neighbours, and two restores at once: nobody's files but this
//! cluster's change.

// Helpers of tests fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code, reason = "shared with other scenarios")]
mod support_places;
#[allow(dead_code, reason = "shared with other scenarios")]
mod support_scenarios;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use everpoint_testkit::{PgCluster, Scratch, StopMode};
use support_places::{PART, Scene, as_root};
use support_scenarios::{CLUSTER, World, configure, found, quiet};

const MARK: &str = "everpoint.PG_15_202209061";

fn map(scene: &Scene, place: &Path) -> String {
    format!("{}={}", scene.space.display(), place.display())
}

/// Another cluster's server makes a tablespace at a place.
fn takes(other: &PgCluster, name: &str, place: &Path) {
    other.psql(&format!("CREATE TABLESPACE {name} LOCATION '{}'", place.display())).unwrap();
    let table = format!("CREATE TABLE {name} TABLESPACE {name} AS SELECT n FROM generate_series(1, 5000) n");
    other.psql(&table).unwrap();
    other.psql("CHECKPOINT").unwrap();
}

fn has(other: &PgCluster, name: &str) {
    assert_eq!(other.psql(&format!("SELECT count(*), sum(n) FROM {name}")).unwrap(), "5000|12502500");
}

#[test]
fn a_mark_that_was_left_behind_proves_nothing_of_what_came_later() {
    if !found(15) {
        return;
    }
    let scene = Scene::new();
    let places = scene.directory("places");
    let mut other = quiet(15).start().unwrap();
    // The copy is gone, or is still there with its link; of its tablespace only the mark is left.
    for (name, copy_stays) in [("gone", false), ("stays", true)] {
        let (copy, mapped) = (places.join(format!("copy-{name}")), places.join(name));
        let map = map(&scene, &mapped);
        scene.restored(&copy, &["--map", &map]);
        if copy_stays {
            fs::remove_dir_all(mapped.join(PART)).unwrap();
        } else {
            fs::remove_dir_all(&copy).unwrap();
            // Nothing says any more that it is this directory's; and --delta would not help.
            assert!(!scene.refused(&copy, &["--map", &map]).contains("--delta"));
            scene.refused(&copy, &["--delta", "--map", &map]);
            fs::remove_dir_all(mapped.join(PART)).unwrap();
        }
        assert!(mapped.join(MARK).exists());
        takes(&other, name, &mapped);
        for more in [&["--map", &map][..], &["--delta", "--map", &map], &["--delta", "--replace-production"]]
        {
            if !copy_stays || more.contains(&"--map") {
                let said = scene.refused(&copy, more);
                assert!(copy_stays || !said.contains("--delta"), "{said}");
            }
        }
        has(&other, name);
        // Nor while that server is stopped.
        other.stop(StopMode::Fast).unwrap();
        scene.refused(&copy, &["--delta", "--map", &map]);
        other.start().unwrap();
        has(&other, name);
    }
    // What the operator takes away with its mark is a place as any other.
    let (copy, mapped) = (places.join("again"), places.join("fresh"));
    let map = map(&scene, &mapped);
    scene.restored(&copy, &["--map", &map]);
    scene.restored(&copy, &["--delta", "--map", &map]);
    // Moved, it is still the same one.
    let moved = places.join("moved");
    fs::rename(&copy, &moved).unwrap();
    scene.restored(&moved, &["--delta", "--map", &map]);
}

fn restore_in_place(scene: &mut Scene, target: &str) -> String {
    if scene.world.source.pid().is_some() {
        scene.world.source.stop(StopMode::Fast).unwrap();
    }
    let main = scene.world.source.data_dir().to_owned();
    let arguments = ["restore", CLUSTER, main.to_str().unwrap(), "--to", target, "--delta"];
    let arguments = [&arguments[..], &["--replace-production", "--timeline", "1"]].concat();
    let ran = scene.world.everpoint.try_run(&arguments).unwrap();
    assert!(ran.status.success(), "{}", ran.told(&arguments));
    started(&mut scene.world);
    ran.err
}

fn started(world: &mut World) {
    world.source.start().unwrap();
    let source = &world.source;
    world.wait_for("the end of the recovery", || {
        source.psql("SELECT pg_is_in_recovery()").is_ok_and(|answer| answer == "f")
    });
}

#[test]
fn a_place_that_production_left_is_another_servers_once_it_has_taken_it() {
    if !found(15) {
        return;
    }
    let mut scene = Scene::new();
    let late = scene.world.source.home().subdir("late").unwrap();
    scene.world.everpoint.run(&["restore-point", CLUSTER, "before"]).unwrap();
    scene.world.source.psql(&format!("CREATE TABLESPACE late LOCATION '{}'", late.display())).unwrap();
    scene.world.source.psql("CREATE TABLE young (n int) TABLESPACE late").unwrap();
    scene.world.everpoint.run(&["restore-point", CLUSTER, "ten"]).unwrap();
    scene.world.settle(&scene.world.source, 1);
    scene.world.stop_capture();
    let said = restore_in_place(&mut scene, "name:before");
    let command = format!("rm -r {} {}", late.join(PART).display(), late.join(MARK).display());
    assert!(said.contains(&command), "{said}");

    // Somebody leaves the mark, though.
    fs::remove_dir_all(late.join(PART)).unwrap();
    let other = quiet(15).start().unwrap();
    takes(&other, "bts", &late);
    scene.world.source.stop(StopMode::Fast).unwrap();
    let main = scene.world.source.data_dir().to_owned();
    let again = ["--to", "name:ten", "--delta", "--replace-production", "--timeline", "1"];
    scene.refused(&main, &again);
    has(&other, "bts");

    // The directory of before, moved aside: its tablespaces are its own, though their marks name this place.
    fs::rename(&main, main.with_extension("old")).unwrap();
    for more in [&["--delta"][..], &[]] {
        let said = scene.refused(&main, &[&["--replace-production", "--timeline", "1"], more].concat());
        assert!(!said.contains("--delta"), "{said}");
    }
    fs::rename(main.with_extension("old"), &main).unwrap();
    started(&mut scene.world);
    assert_eq!(scene.world.source.psql("SELECT count(*) FROM aside").unwrap(), "3000");
}

/// The links of production's stopped directory lead there, and so do those of a clone of it that runs.
#[test]
fn a_place_that_a_running_server_uses_is_live_whoever_links_to_it() {
    if !found(15) {
        return;
    }
    let mut scene = Scene::new();
    scene.world.stop_capture();
    scene.world.source.stop(StopMode::Fast).unwrap();
    let main = scene.world.source.data_dir().to_owned();
    let home = Scratch::new("clone").unwrap();
    let data = home.path().join("data");
    assert!(Command::new("cp").arg("-a").args([&main, &data]).status().unwrap().success());
    let install = scene.world.source.install().clone();
    let mut clone = PgCluster::on_directory(install, home, data).unwrap();
    clone.start().unwrap();
    let said = scene.refused(&main, &["--delta", "--replace-production"]);
    assert!(said.contains("has it in use") && said.contains("pg_tblspc/"), "{said}");
    assert_eq!(clone.psql("SELECT count(*) FROM aside").unwrap(), "3000");
    clone.stop(StopMode::Fast).unwrap();
    restore_in_place(&mut scene, "latest");
    assert_eq!(scene.world.source.psql("SELECT count(*) FROM aside").unwrap(), "3000");
}

#[test]
fn of_two_restores_at_once_one_has_the_place() {
    if !found(15) {
        return;
    }
    let scene = Scene::new();
    let places = scene.directory("places");
    for round in 0..3 {
        let mapped = places.join(format!("mapped-{round}"));
        let map = map(&scene, &mapped);
        let copies = ["one", "two"].map(|name| places.join(format!("{name}-{round}")));
        let running = copies.each_ref().map(|copy| {
            scene.world.everpoint.spawn(&["restore", CLUSTER, copy.to_str().unwrap(), "--map", &map]).unwrap()
        });
        let codes =
            running.map(|running| running.wait(Duration::from_secs(120)).unwrap().status.code().unwrap());
        assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "{codes:?}");
        let loser = codes.iter().position(|code| *code != 0).unwrap();
        assert!(!copies[loser].join("PG_VERSION").exists());
        scene.refused(&copies[loser], &["--map", &map]);
    }
}

/// The second one would put a tablespace into the directory that the first one makes.
#[test]
fn of_two_restores_one_puts_nothing_into_the_others_directory() {
    if !found(15) {
        return;
    }
    let scene = Scene::new();
    let places = scene.directory("places");
    let arguments = |copy: &Path, map: &str| {
        ["restore", CLUSTER, copy.to_str().unwrap(), "--map", map].map(str::to_owned).to_vec()
    };
    for round in 0..3 {
        let [first, second] = ["first", "second"].map(|name| places.join(format!("new-{round}/{name}")));
        let maps = [map(&scene, &places.join(format!("out-{round}"))), map(&scene, &first.join("side"))];
        let running = [(&first, &maps[0]), (&second, &maps[1])].map(|(copy, map)| {
            let arguments = arguments(copy, map);
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            scene.world.everpoint.spawn(&arguments).unwrap()
        });
        let ran = running.map(|running| running.wait(Duration::from_secs(120)).unwrap());
        let good = ran.iter().filter(|ran| ran.status.success()).count();
        assert!(good <= 1, "{}{}", ran[0].err, ran[1].err);
        for (ran, copy) in ran.iter().zip([&first, &second]) {
            assert!(ran.status.success() || !copy.join("PG_VERSION").exists(), "{}", ran.err);
        }
    }
    // One that was cut off: when it goes on, all goes that its image lacks. Refused means untouched.
    let first = places.join("cut");
    scene.restored(&first, &[]);
    let mark = first.join(support_places::MARKER);
    fs::remove_file(first.join("global/pg_control")).unwrap();
    fs::write(mark, "").unwrap();
    scene.refused(&places.join("deep/second"), &["--map", &map(&scene, &first.join("side"))]);
    assert!(!places.join("deep").exists());
}

/// Another restore has the place of the tablespace: what was made for this one goes again, with the directories above.
#[test]
fn a_restore_that_is_refused_leaves_no_new_directories() {
    if !found(15) {
        return;
    }
    let scene = Scene::new();
    let (places, taken) = (scene.directory("places"), scene.directory("taken"));
    let lock = fs::File::open(&taken).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    let copy = places.join("not/there/yet");
    let map = map(&scene, &taken);
    let arguments = ["restore", CLUSTER, copy.to_str().unwrap(), "--map", &map];
    let ran = scene.world.everpoint.try_run(&arguments).unwrap();
    assert!(!ran.status.success() && ran.err.contains("another restore"), "{}", ran.told(&arguments));
    assert!(!places.join("not").exists(), "{}", ran.err);
    drop(lock);
    scene.restored(&copy, &["--map", &map]);
}

#[test]
fn as_root_nobodys_directory_is_taken_over() {
    if !found(15) {
        return;
    }
    let scene = Scene::new();
    let places = scene.directory("places");
    let shown = |name: &str| places.join(name).display().to_string();
    let restore = |copy: &str, place: &str| {
        format!(
            "everpoint restore {CLUSTER} {} --map {}={}",
            shown(copy),
            scene.space.display(),
            shown(place)
        )
    };
    let prepare = format!(
        "mkdir -p {0}/PG_13_202007201/5 {1} {2}/PG_13_202007201 {3}; chown -R 1:1 {0} {1}; chmod 755 {0} {1} {2} {3}",
        shown("full"),
        shown("empty"),
        shown("roots"),
        shown("free")
    );
    let Some((0, _)) = as_root(&scene, &prepare) else { return };
    let facts = |name: &str| {
        let found = fs::metadata(places.join(name)).unwrap();
        (found.uid(), found.mode() & 0o7777)
    };
    for place in ["full", "empty", "roots"] {
        let before = facts(place);
        for dry in [" --dry-run", ""] {
            let (code, said) = as_root(&scene, &(restore("copy", place) + dry)).unwrap();
            assert_eq!((code, facts(place)), (2, before), "{place}: {said}");
            assert!(said.contains("--map"), "{said}");
        }
    }
    let (code, said) = as_root(&scene, &restore("copy", "free")).unwrap();
    assert_eq!(code, 0, "{said}");
    let server = fs::metadata(scene.world.source.data_dir()).unwrap().uid();
    assert_eq!(facts("free"), (server, 0o700));
    scene.restored(&places.join("copy"), &["--delta", "--map", &map(&scene, &places.join("free"))]);
}

#[test]
fn what_is_ours_or_a_neighbours_is_no_place() {
    if !found(15) {
        return;
    }
    let mut scene = Scene::new();
    let home = scene.world.everpoint.home().path().to_owned();
    let fresh = scene.directory("places").join("fresh");
    for within in ["repository", "repository/packs", "repository/clusters/new"] {
        assert!(scene.refused(&home.join(within).join("x"), &[]).contains("repository"));
        scene.refused(&fresh, &["--map", &map(&scene, &home.join(within).join("x"))]);
    }
    for within in [scene.space.join(PART).join("sub"), scene.space.join("sub")] {
        scene.refused(&fresh, &["--map", &map(&scene, &within)]);
    }
    let port = scene.world.everpoint.try_run(&[
        "restore",
        CLUSTER,
        fresh.to_str().unwrap(),
        "--start",
        "--port",
        "0",
    ]);
    assert_eq!((port.unwrap().status.code(), fresh.exists()), (Some(2), false));

    // A neighbour with production's system identifier, stopped.
    scene.world.stop_capture();
    scene.world.source.stop(StopMode::Fast).unwrap();
    let main = scene.world.source.data_dir().to_owned();
    let staging = home.join("places/staging");
    assert!(Command::new("cp").arg("-a").args([&main, &staging]).status().unwrap().success());
    for link in fs::read_dir(staging.join("pg_tblspc")).unwrap() {
        fs::remove_file(link.unwrap().path()).unwrap();
    }
    configure(&scene.world, |text| {
        format!(
            "{text}\n[cluster.staging]\npostgres = \"host=/nowhere user=postgres\"\ndata_dir = \"{}\"\n",
            staging.display()
        )
    });
    for more in [&["--delta"][..], &["--delta", "--replace-production"], &[]] {
        assert!(scene.refused(&staging, more).contains("staging"));
    }
    let adopt = ["adopt", "staging", main.to_str().unwrap()];
    assert_eq!(scene.world.everpoint.try_run(&adopt).unwrap().status.code(), Some(2));
    // A directory of which nothing says that it is a copy.
    let clone: PathBuf = home.join("places/clone");
    assert!(Command::new("cp").arg("-a").args([&main, &clone]).status().unwrap().success());
    let adopt = ["adopt", CLUSTER, clone.to_str().unwrap()];
    assert_eq!(scene.world.everpoint.try_run(&adopt).unwrap().status.code(), Some(2));

    // In production's own directory, without the word.
    let dry = ["restore", CLUSTER, main.to_str().unwrap(), "--delta", "--dry-run"];
    let told = |more: &[&str]| {
        let ran = scene.world.everpoint.try_run(&[&dry[..], more].concat()).unwrap();
        assert!(ran.status.success(), "{}", ran.err);
        format!("{}{}", ran.out, ran.err).contains("without --replace-production")
    };
    assert_eq!([told(&[]), told(&["--replace-production"])], [true, false]);
}

fn dropped_and_made_anew(major: u32) {
    let mut world = World::new(quiet(major).start().unwrap());
    let place = world.source.home().subdir("side").unwrap();
    let make = |world: &World, name: &str| {
        world.source.psql(&format!("CREATE TABLESPACE {name} LOCATION '{}'", place.display())).unwrap();
        let table =
            format!("CREATE TABLE in_{name} TABLESPACE {name} AS SELECT n FROM generate_series(1, 3000) n");
        world.source.psql(&table).unwrap();
    };
    make(&world, "one");
    world.capture();
    world.backup(&[]);
    for (old, new) in [("one", "two"), ("two", "three")] {
        world.everpoint.run(&["restore-point", CLUSTER, &format!("with_{old}")]).unwrap();
        world.source.psql(&format!("DROP TABLE in_{old}")).unwrap();
        world.source.psql(&format!("DROP TABLESPACE {old}")).unwrap();
        make(&world, new);
    }
    world.everpoint.run(&["restore-point", CLUSTER, "with_three"]).unwrap();
    world.settle(&world.source, 1);
    world.stop_capture();
    let copy = world.restore("name:with_two", &[]);
    assert_eq!(copy.psql("SELECT count(*) FROM in_two"), "3000");
    copy.stop_and_check(&world);
    let main = world.source.data_dir().to_owned();
    for name in ["three", "one", "two", "three"] {
        world.source.stop(StopMode::Fast).unwrap();
        let target = format!("name:with_{name}");
        let arguments = ["restore", CLUSTER, main.to_str().unwrap(), "--to", &target, "--timeline", "1"];
        world.everpoint.run(&[&arguments[..], &["--delta", "--replace-production"]].concat()).unwrap();
        started(&mut world);
        assert_eq!(world.source.psql(&format!("SELECT count(*) FROM in_{name}")).unwrap(), "3000", "{name}");
        let locations = "SELECT string_agg(spcname || ' ' || pg_tablespace_location(oid), ',') FROM pg_tablespace \
                         WHERE oid >= 16384";
        assert_eq!(world.source.psql(locations).unwrap(), format!("{name} {}", place.display()));
    }
}

#[test]
fn a_tablespace_dropped_and_made_anew_at_its_path_is_restored_at_any_moment() {
    for major in [13, 15, 18] {
        if found(major) {
            dropped_and_made_anew(major);
        }
    }
}
