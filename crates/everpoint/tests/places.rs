//! Where a restore may write: into what is proven to be this cluster's, and nowhere else. Each case as a user types it.

// Helpers of tests fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support_places;
#[allow(dead_code, reason = "shared with other scenarios")]
mod support_scenarios;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use everpoint_testkit::{Account, PgCluster, StopMode};
use support_places::{MARKER, PART, Scene, State, as_root, differing, state};
use support_scenarios::{CLUSTER, World, forget_files, found, quiet};

#[test]
fn only_what_is_proven_is_written_to() {
    if !found(15) {
        return;
    }
    let scene = Scene::new();
    let home = scene.world.everpoint.home().path().to_owned();
    scene.directory("places");
    let no_harm = |said: &str| assert!(!said.contains("add --delta"), "{said}");

    // Somebody's files.
    let thesis = scene.directory("places/thesis");
    fs::write(thesis.join("thesis.txt"), "x").unwrap();
    for more in [&["--delta"][..], &[], &["--delta", "--replace-production"]] {
        no_harm(&scene.refused(&thesis, more));
    }

    // A copy inside, its tablespace, too; without a word nothing is written elsewhere.
    let main = scene.directory("places/15").join("main");
    let production = state(&[&scene.space]);
    scene.restored(&main, &[]);
    assert!(main.join("pg_tblspc").read_dir().unwrap().all(|it| !it.unwrap().path().is_symlink()));
    assert_eq!(differing(&production, &state(&[&scene.space])), Vec::<PathBuf>::new());

    // The last part of its path forgotten.
    let said = scene.refused(main.parent().unwrap(), &["--delta"]);
    assert!(said.contains(main.to_str().unwrap()), "{said}");
    no_harm(&said);
    // Only of this cluster's own it is said that --delta would help.
    assert!(scene.refused(&main, &[]).contains("add --delta"));

    // Another cluster's.
    let other = PgCluster::builder().major(15).create().unwrap();
    for more in [&["--delta"][..], &["--delta", "--replace-production"], &[]] {
        let said = scene.refused(other.data_dir(), more);
        assert!(said.contains("another cluster"), "{said}");
        no_harm(&said);
    }

    // Marks of others, or of nobody.
    let marked = scene.directory("places/marked");
    let texts = [
        "A restore into this directory has not finished. It is not a whole database.\n".to_owned(),
        format!(r#"{{"repository": "0", "cluster": "{CLUSTER}", "directory": "{}"}}"#, marked.display()),
    ];
    for text in texts {
        fs::write(marked.join(MARKER), text).unwrap();
        fs::write(marked.join("thesis.txt"), "x").unwrap();
        no_harm(&scene.refused(&marked, &[]));
        scene.refused(&marked, &["--delta"]);
    }

    // Mappings that can't be meant.
    let (old, new) = (scene.space.to_str().unwrap(), home.join("places/new"));
    let fresh = home.join("places/fresh");
    let map = |old: &str, new: &Path| format!("{old}={}", new.display());
    let misspelt = map(&format!("{old}x"), &new);
    assert!(scene.refused(&fresh, &["--map", &misspelt]).contains(old));
    scene.refused(&main, &["--delta", "--map", &misspelt]);
    scene.refused(&fresh, &["--map", &map(old, &fresh.join("inside"))]);
    scene.refused(&fresh, &["--map", &map(old, &thesis)]);
    scene.refused(&fresh, &["--map", &map(old, &scene.space)]);
    scene.refused(&main, &["--delta", "--map", &map(old, &scene.space)]);
    // Its own path is where production lives: told, and never inside in silence.
    assert!(scene.refused(&fresh, &["--replace-production"]).contains("--map"));

    // What counts as nothing: lost+found, and other versions' parts of a tablespace, which stay as they are.
    fs::create_dir_all(fresh.join("lost+found")).unwrap();
    let neighbour = new.join("PG_14_202107181/5/1259");
    fs::create_dir_all(neighbour.parent().unwrap()).unwrap();
    fs::write(&neighbour, "rows of a 14 server").unwrap();
    scene.own(&fresh);
    scene.own(&new);
    let before = state(&[neighbour.parent().unwrap(), &fresh.join("lost+found")]);
    let mapped = map(old, &new);
    scene.restored(&fresh, &["--map", &mapped]);
    assert!(new.join(PART).is_dir());
    // A refresh with the same map writes there again, one without it inside; what is next door stays.
    scene.refused(&fresh, &["--map", &mapped]);
    scene.restored(&fresh, &["--delta", "--map", &mapped]);
    let refreshed = state(&[&new]);
    scene.restored(&fresh, &["--delta"]);
    assert_eq!(differing(&refreshed, &state(&[&new])), Vec::<PathBuf>::new());
    assert_eq!(
        differing(&before, &state(&[neighbour.parent().unwrap(), &fresh.join("lost+found")])),
        Vec::<PathBuf>::new()
    );

    // A seed with links into production's live tablespace, and other names of the same files.
    let seed = home.join("places/seed");
    for (more, from, to) in
        [("-a", scene.world.source.data_dir(), &seed), ("-al", &seed, &home.join("places/twin"))]
    {
        assert!(Command::new("cp").arg(more).arg(from).arg(to).status().unwrap().success());
    }
    let _absent = fs::remove_file(seed.join("postmaster.pid"));
    symlink("/etc/hostname", seed.join("stray")).unwrap();
    let twin = home.join("places/twin");
    let kept = |state: State| -> BTreeMap<PathBuf, String> {
        // How many names a file has changes.
        state.into_iter().map(|(path, text)| (path, text.split_once('|').unwrap().0.to_owned())).collect()
    };
    let (live, names) = (state(&[&scene.space]), kept(state(&[&twin])));
    let plan = scene
        .world
        .everpoint
        .json(&["restore", CLUSTER, seed.to_str().unwrap(), "--delta", "--dry-run"])
        .unwrap();
    let removes: Vec<&str> =
        plan["removes"].as_array().unwrap().iter().map(|path| path.as_str().unwrap()).collect();
    assert!(removes.contains(&seed.join("stray").to_str().unwrap()), "{plan}");
    assert_eq!(plan["writes"].as_array().unwrap().len(), 1, "{plan}");
    scene.restored(&seed, &["--delta"]);
    assert_eq!(differing(&live, &state(&[&scene.space])), Vec::<PathBuf>::new());
    assert_eq!(names, kept(state(&[&twin])), "the other names of its files");
}

/// In place: a tablespace that is younger than the image, and one moment before there was one.
#[test]
fn tablespaces_come_and_go_in_place() {
    if !found(15) {
        return;
    }
    let mut scene = Scene::new();
    let late = scene.world.source.home().subdir("late").unwrap();
    let point = |scene: &Scene, name: &str| {
        scene.world.everpoint.run(&["restore-point", CLUSTER, name]).unwrap();
    };
    point(&scene, "before");
    scene.world.source.psql(&format!("CREATE TABLESPACE late LOCATION '{}'", late.display())).unwrap();
    scene.world.source.psql("CREATE TABLE young (n int) TABLESPACE late").unwrap();
    scene.world.source.psql("INSERT INTO young SELECT generate_series(1, 10)").unwrap();
    point(&scene, "ten");
    scene.world.source.psql("INSERT INTO young SELECT generate_series(11, 20000)").unwrap();
    // Frozen, whoever finds the file sees them: so they would come back.
    scene.world.source.psql("VACUUM (FREEZE) young").unwrap();
    scene.world.source.psql("CHECKPOINT").unwrap();
    scene.world.settle(&scene.world.source, 1);
    scene.world.stop_capture();

    let main = scene.world.source.data_dir().to_owned();
    let restore = |scene: &mut Scene, target: &str| -> String {
        scene.world.source.stop(StopMode::Fast).unwrap();
        let arguments =
            ["restore", CLUSTER, main.to_str().unwrap(), "--to", target, "--delta", "--replace-production"];
        let ran = scene.world.everpoint.try_run(&[&arguments[..], &["--timeline", "1"]].concat()).unwrap();
        assert!(ran.status.success(), "{}", ran.told(&arguments));
        scene.world.source.start().unwrap();
        let source = &scene.world.source;
        scene.world.wait_for("the end of the recovery", || {
            source.psql("SELECT pg_is_in_recovery()").unwrap() == "f"
        });
        ran.err
    };
    let link = |main: &Path| {
        let links = fs::read_dir(main.join("pg_tblspc"))
            .unwrap()
            .map(|it| fs::read_link(it.unwrap().path()).unwrap());
        links.collect::<Vec<_>>()
    };
    let rows = |scene: &Scene| scene.world.source.psql("SELECT count(*), sum(n) FROM young").unwrap();

    restore(&mut scene, "name:ten");
    assert_eq!(rows(&scene), "10|55");
    assert!(link(&main).contains(&late), "{:?}", link(&main));
    let mut amcheck = scene.world.source.install().command("pg_amcheck").unwrap();
    scene.world.source.psql("CREATE EXTENSION IF NOT EXISTS amcheck").unwrap();
    let port = scene.world.source.port().to_string();
    let socket = scene.world.source.socket_dir().display().to_string();
    let checked = amcheck
        .args(["-h", &socket, "-p", &port, "-U", "postgres", "--heapallindexed", "postgres"])
        .output()
        .unwrap();
    assert!(checked.status.success() && checked.stdout.is_empty(), "{checked:?}");

    let said = restore(&mut scene, "name:before");
    assert_eq!(link(&main), [scene.space.clone()]);
    assert!(said.contains(&format!("rm -r {}", late.join(PART).display())), "{said}");
    assert!(late.join(PART).is_dir(), "it is named, not removed");

    // What was left behind is known by its mark.
    restore(&mut scene, "name:ten");
    assert_eq!(rows(&scene), "10|55");
    assert!(link(&main).contains(&late), "{:?}", link(&main));
}

/// PostgreSQL only warns of a tablespace inside of its data directory.
#[test]
fn a_tablespace_inside_the_data_directory_is_stored_once() {
    if !found(15) {
        return;
    }
    let world = World::new(quiet(15).start().unwrap());
    let main = world.source.data_dir().to_owned();
    let inside = main.join("inside");
    fs::create_dir(&inside).unwrap();
    Account::of_servers().unwrap().own(&inside).unwrap();
    world.source.psql(&format!("CREATE TABLESPACE side LOCATION '{}'", inside.display())).unwrap();
    world
        .source
        .psql("CREATE TABLE aside TABLESPACE side AS SELECT n FROM generate_series(1, 300000) n")
        .unwrap();
    let checked = world.everpoint.try_run(&["check", CLUSTER]).unwrap();
    assert!(checked.out.contains("inside the data directory"), "{}", checked.out);
    let size = |report: &serde_json::Value| report["size_bytes"].as_u64().unwrap();
    let files = size(&world.everpoint.json(&["backup", CLUSTER, "--full"]).unwrap());
    let mut world = world;
    world.capture();
    forget_files(&world);
    let wire = size(&world.everpoint.json(&["backup", CLUSTER, "--full"]).unwrap());
    let rows = world.source.psql("SELECT pg_table_size('aside')").unwrap().parse::<u64>().unwrap();
    let whole = world
        .source
        .psql("SELECT sum(pg_database_size(oid)) FROM pg_database")
        .unwrap()
        .parse::<u64>()
        .unwrap();
    assert!(
        files.max(wire) < whole + rows / 2,
        "{files} and {wire} bytes of {whole}, {rows} of them in the tablespace"
    );
    world.source.psql("DELETE FROM aside WHERE n > 1000").unwrap();
    world.everpoint.run(&["restore-point", CLUSTER, "less"]).unwrap();
    world.source.psql("DELETE FROM aside").unwrap();
    world.settle(&world.source, 1);
    world.stop_capture();

    // A copy, then in place.
    let copy = world.restore("name:less", &[]);
    assert_eq!(copy.psql("SELECT count(*), sum(n) FROM aside"), "1000|500500");
    copy.stop_and_check(&world);
    world.source.stop(StopMode::Fast).unwrap();
    let arguments =
        ["restore", CLUSTER, main.to_str().unwrap(), "--to", "name:less", "--delta", "--replace-production"];
    world.everpoint.run(&arguments).unwrap();
    assert!(inside.join(PART).is_dir());
    world.source.start().unwrap();
    world.wait_for("the end of the recovery", || {
        world.source.psql("SELECT pg_is_in_recovery()").unwrap() == "f"
    });
    assert_eq!(world.source.psql("SELECT count(*), sum(n) FROM aside").unwrap(), "1000|500500");
}

/// What is mounted below a data directory, what can't be replaced, and what is of the wrong kind.
#[test]
fn what_is_in_the_way_is_told_before_anything_changes() {
    if !found(15) {
        return;
    }
    let mut scene = Scene::new();
    let places = scene.directory("places");
    let (copy, beside) = (places.join("copy"), scene.directory("places/beside"));
    fs::write(beside.join("thesis.txt"), "x").unwrap();
    let Some((code, said)) =
        as_root(&scene, &format!("umask 000; mkdir {0}; everpoint restore {CLUSTER} {0}", copy.display()))
    else {
        // Only root can mount.
        return;
    };
    assert_eq!(code, 0, "{said}");
    // It was root's and empty: now it is the server's, with modes that a server takes.
    let owner = fs::metadata(scene.world.source.data_dir()).unwrap().uid();
    for (path, mode) in [("", 0o700), ("base", 0o700), ("PG_VERSION", 0o600), ("pg_tblspc", 0o700)] {
        let found = fs::metadata(copy.join(path)).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o7777), (owner, mode), "{path}");
    }
    let shown = copy.display().to_string();
    let delta = format!("everpoint restore {CLUSTER} {shown} --delta");
    let relation = fs::read_dir(copy.join("base/1"))
        .unwrap()
        .map(|it| it.unwrap().path())
        .find(|it| it.is_file())
        .unwrap();
    let relation = relation.display();

    // In the way: refused before anything changes, with the dry run, too.
    for (before, after) in [
        (format!("mount -t tmpfs none {shown}/base"), String::new()),
        (format!("mount --bind {0} {shown}/global", beside.display()), String::new()),
        (format!("chattr +i {relation}"), format!("chattr -i {relation}")),
        (format!("chattr +a {shown}/base/1"), format!("chattr -a {shown}/base/1")),
        (format!("mount -o bind {shown} {shown}; mount -o remount,bind,ro {shown}"), String::new()),
    ] {
        for dry in ["", "--dry-run"] {
            let was = state(&[&copy, &beside]);
            let script = format!("{before}; {delta} {dry}; code=$?; {after}\nexit $code");
            let (code, said) = as_root(&scene, &script).unwrap();
            assert_eq!((code, said.contains("cannot restore")), (2, true), "{before}: {said}");
            assert_eq!(differing(&was, &state(&[&copy, &beside])), Vec::<PathBuf>::new(), "{before}");
        }
    }

    // Not in the way: left alone and named, or of ours.
    let was = state(&[&beside]);
    let prepare = format!(
        "mkdir {shown}/mine {shown}/bound; mount -t tmpfs none {shown}/mine; echo x >{shown}/mine/thesis.txt
        mount --bind {0} {shown}/bound; mount -t tmpfs none {shown}/pg_wal; echo x >{shown}/pg_wal/stray
        rm {relation}; mkdir {relation}; echo x >{relation}/x; rm -r {shown}/pg_xact; ln -s {0} {shown}/pg_xact
        mkfifo {shown}/pipe; ln {shown}/PG_VERSION {0}/../version",
        beside.display()
    );
    let script = format!(
        "{prepare}\n{delta} || exit 9\ntest -e {shown}/mine/thesis.txt -a -e {shown}/pg_wal/stray -a ! -e {shown}/pipe"
    );
    let (code, said) = as_root(&scene, &script).unwrap();
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(&format!("{shown}/mine is left alone")), "{said}");
    assert_eq!(differing(&was, &state(&[&beside])), Vec::<PathBuf>::new());
    assert_eq!(
        fs::metadata(copy.join("PG_VERSION")).unwrap().nlink(),
        1,
        "it is replaced, not written through"
    );
    assert!(copy.join("pg_xact").is_dir() && !copy.join("pg_xact").is_symlink());
    scene.restored(&copy, &["--delta"]);

    // The log on another disk: of production's own directory it is followed, and only what servers write there goes.
    let main = scene.world.source.data_dir().to_owned();
    scene.world.stop_capture();
    scene.world.source.stop(StopMode::Fast).unwrap();
    let disk = scene.directory("places/disk");
    let log = disk.join("wal");
    fs::rename(main.join("pg_wal"), &log).unwrap();
    symlink(places.join("nowhere"), main.join("pg_wal")).unwrap();
    let over = ["--delta", "--replace-production"];
    assert!(scene.refused(&main, &over).contains("leads nowhere"));
    fs::remove_file(main.join("pg_wal")).unwrap();
    symlink(&log, main.join("pg_wal")).unwrap();
    fs::write(log.join("thesis.txt"), "x").unwrap();
    scene.own(&main);
    let arguments = [&["restore", CLUSTER, main.to_str().unwrap()][..], &over].concat();
    scene.world.everpoint.run(&arguments).unwrap();
    assert!(main.join("pg_wal").is_symlink() && log.join("thesis.txt").exists());
    scene.world.source.start().unwrap();
    let source = &scene.world.source;
    scene
        .world
        .wait_for("the end of the recovery", || source.psql("SELECT pg_is_in_recovery()").unwrap() == "f");
    assert_eq!(source.psql("SELECT count(*) FROM aside").unwrap(), "3000");
}

/// Killed at any time it is marked, and the same command comes to the same end; with `--map` as well.
#[test]
fn an_unfinished_restore_goes_on() {
    if !found(15) {
        return;
    }
    let scene = Scene::new();
    let places = scene.directory("places");
    let (copy, mapped) = (places.join("copy"), places.join("mapped"));
    let map = format!("{}={}", scene.space.display(), mapped.display());
    let arguments = ["restore", CLUSTER, copy.to_str().unwrap(), "--map", &map];
    let mut running = scene.world.everpoint.spawn(&arguments).unwrap();
    scene
        .world
        .wait_for("the first bytes are there", || copy.join(MARKER).exists() || copy.join("global").exists());
    running.kill9().unwrap();
    if copy.join(MARKER).exists() {
        assert!(fs::read_to_string(copy.join(MARKER)).unwrap().contains(CLUSTER));
        scene.restored(&copy, &["--map", &map]);
    } else {
        scene.restored(&copy, &["--delta", "--map", &map]);
    }
    assert!(mapped.join(PART).is_dir());
}
