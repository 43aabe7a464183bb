//! Places of tablespaces that hold nothing: a bare mount point, a new disk, and those of a data directory that was moved aside.

// Helpers of tests fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code, reason = "shared with other scenarios")]
mod support_places;
#[allow(dead_code, reason = "shared with other scenarios")]
mod support_scenarios;

use std::fs;
use std::path::Path;
use std::process::Command;

use everpoint_testkit::{Account, StopMode};
use support_places::{MARKER, PART, Scene, as_root, differing, state};
use support_scenarios::{CLUSTER, found};

const ROWS: &str = "SELECT count(*), sum(n) FROM aside";

fn stopped() -> Scene {
    let mut scene = Scene::new();
    scene.world.stop_capture();
    scene.world.source.stop(StopMode::Fast).unwrap();
    scene
}

/// Starts production after a restore in place; it has all rows.
fn goes_on(scene: &mut Scene) {
    scene.world.source.start().unwrap();
    let source = &scene.world.source;
    scene.world.wait_for("the end of the recovery", || {
        source.psql("SELECT pg_is_in_recovery()").is_ok_and(|answer| answer == "f")
    });
    assert_eq!(source.psql(ROWS).unwrap(), "3000|4501500");
}

/// What root would type, on a machine whose table of file systems has a line for the tablespace's place.
fn with_fstab(scene: &Scene, script: &str) -> Option<(i32, String)> {
    let fstab = scene.world.everpoint.home().path().join("fstab");
    fs::write(&fstab, format!("none {} tmpfs defaults 0 0\n", scene.space.display())).unwrap();
    let bind = format!("mount --bind {} /etc/fstab || exit 77", fstab.display());
    as_root(scene, &format!("{bind}\n{script}")).filter(|(code, _)| *code != 77)
}

#[test]
fn a_bare_mount_point_is_not_filled_and_an_empty_disk_is() {
    if !found(15) {
        return;
    }
    let mut scene = stopped();
    let main = scene.world.source.data_dir().to_owned();
    fs::remove_dir_all(scene.space.join(PART)).unwrap();
    let restore = format!("everpoint restore {CLUSTER} {} --delta --replace-production", main.display());
    let before = state(&[&main, &scene.space]);
    let untouched = |scene: &Scene| {
        let changed = differing(&before, &state(&[&main, &scene.space]));
        assert!(changed.is_empty(), "{changed:?}");
    };
    for dry in ["--dry-run", ""] {
        let Some((code, said)) = with_fstab(&scene, &format!("{restore} {dry}")) else { return };
        assert!(code == 2 && said.contains("/etc/fstab") && said.contains("--map"), "{code}: {said}");
        untouched(&scene);
    }
    // Mounted, and a new disk; or the operator's word.
    let oid = fs::read_dir(main.join("pg_tblspc")).unwrap().next().unwrap().unwrap().file_name();
    let map = format!("--map {}={}", oid.display(), scene.space.display());
    let mount = format!("mount -t tmpfs none {}", scene.space.display());
    for script in [format!("{mount}; {restore} --dry-run"), format!("{restore} {map} --dry-run")] {
        let (code, said) = with_fstab(&scene, &script).unwrap();
        assert_eq!(code, 0, "{script}: {said}");
        untouched(&scene);
    }
    // Where the machine says nothing of the place it is told, and restored.
    for dry in [&["--dry-run"][..], &[]] {
        let arguments = ["restore", CLUSTER, main.to_str().unwrap(), "--delta", "--replace-production"];
        let ran = scene.world.everpoint.try_run(&[&arguments[..], dry].concat()).unwrap();
        let said = format!("{}{}", ran.out, ran.err);
        assert!(ran.status.success() && said.contains("holds nothing of the tablespace"), "{said}");
    }
    goes_on(&mut scene);
}

fn type_it(commands: &str) {
    let ran = Command::new("sh").args(["-c", commands]).status().unwrap();
    assert!(ran.success(), "{commands}");
}

/// The commands of a hint between two words.
fn between<'a>(said: &'a str, begin: &str, end: &str) -> &'a str {
    said.split_once(begin).and_then(|(_, rest)| rest.split_once(end)).expect(said).0
}

fn replace(scene: &Scene, main: &Path) -> everpoint_testkit::Ran {
    let arguments = ["restore", CLUSTER, main.to_str().unwrap(), "--delta", "--replace-production"];
    scene.world.everpoint.try_run(&arguments).unwrap()
}

/// Log that can't be saved ends a restore in place; the way out is typed as it is said.
#[test]
fn what_is_moved_aside_takes_its_tablespaces_along() {
    if !found(15) {
        return;
    }
    let mut scene = stopped();
    let main = scene.world.source.data_dir().to_owned();
    let wal = fs::read_dir(main.join("pg_wal")).unwrap().map(|entry| entry.unwrap().path());
    let segments = wal.filter(|path| path.is_file() && path.file_name().unwrap().len() == 24);
    for segment in segments {
        fs::write(segment, vec![0xff; 8192]).unwrap();
    }
    let refused = replace(&scene, &main);
    assert!(!refused.status.success(), "{}", refused.err);
    let commands = between(&refused.err, "keep it aside, all of it: ", ", then run").replace('\n', " ");
    type_it(&commands);
    let aside = Path::new(&format!("{}.aside", main.display())).join("pg_tblspc");
    assert!(!aside.exists() && aside.with_extension("aside").read_dir().unwrap().count() > 0, "{commands}");
    let restored = replace(&scene, &main);
    assert!(restored.status.success(), "{commands}: {}", restored.err);
    goes_on(&mut scene);

    // Who moved only the directory is told what else.
    scene.world.source.stop(StopMode::Fast).unwrap();
    fs::rename(&main, main.with_extension("mine")).unwrap();
    fs::remove_dir_all(scene.space.join(format!("{PART}.aside"))).unwrap();
    let refused = replace(&scene, &main);
    assert_eq!(refused.status.code(), Some(2), "{}", refused.err);
    type_it(between(&refused.err, "goes aside, too: ", "; else"));
    let restored = replace(&scene, &main);
    assert!(restored.status.success(), "{}", restored.err);
    goes_on(&mut scene);
}

/// The disk of a tablespace is full: nothing that goes elsewhere makes room for its mark, and nothing goes.
#[test]
fn a_place_that_can_take_no_mark_is_refused_before_anything_goes() {
    if !found(15) {
        return;
    }
    let mut scene = stopped();
    let main = scene.world.source.data_dir().to_owned();
    let before = state(&[&main, &scene.space]);
    let (space, home) = (scene.space.display(), scene.world.everpoint.home().path().display());
    for dry in ["--dry-run", ""] {
        let script = format!(
            "mkdir -p {home}/full && mount -t tmpfs -o size=2m none {home}/full && cp -a {space}/. {home}/full/ || exit 77
             cat /dev/zero >{home}/full/fill 2>{home}/said
             mount --bind {home}/full {space}
             everpoint restore {CLUSTER} {main} --delta --replace-production {dry}
             code=$?
             ls {space} >&2
             exit $code",
            main = main.display()
        );
        let Some((code, said)) = as_root(&scene, &script).filter(|(code, _)| *code != 77) else { return };
        assert!(code == 1 && said.contains("a restore marks a place"), "{dry} {code}: {said}");
        assert!(!said.contains("everpoint.everpoint-new"), "{said}");
        let changed = differing(&before, &state(&[&main, &scene.space]));
        assert!(changed.is_empty(), "{changed:?}");
    }
    assert!(replace(&scene, &main).status.success());
    goes_on(&mut scene);
}

/// The disk of the data directory itself is full: what a server makes anew gives way to the mark, and what is not wanted to
/// the rest.
#[test]
fn a_full_disk_of_the_data_directory_is_restored_in_place() {
    if !found(15) {
        return;
    }
    let scene = stopped();
    let main = scene.world.source.data_dir().to_owned();
    let home = scene.world.everpoint.home().path().display();
    let script = format!(
        "mkdir -p {home}/full && mount -t tmpfs -o size=1g none {home}/full && cp -a {main}/. {home}/full/ || exit 77
         chown --reference={main} {home}/full; chmod 700 {home}/full
         mount -o remount,size=$(($(du -sk {home}/full | cut -f1) + 40960))k {home}/full || exit 77
         cat /dev/zero >{home}/full/fill 2>{home}/said
         mount --bind {home}/full {main}
         everpoint restore {CLUSTER} {main} --delta --replace-production --dry-run || exit
         everpoint restore {CLUSTER} {main} --delta --replace-production && ls {main} >&2",
        main = main.display()
    );
    let Some((code, said)) = as_root(&scene, &script).filter(|(code, _)| *code != 77) else { return };
    assert!(
        code == 0 && !said.contains("fill") && !said.contains("everpoint.everpoint-new"),
        "{code}: {said}"
    );
}

/// What the image has shorter than it is now makes room for what it has longer.
#[test]
fn files_that_shrink_make_room_on_a_full_disk() {
    if !found(15) {
        return;
    }
    let mut scene = Scene::new();
    let sql = |scene: &Scene, sql: &str| scene.world.source.psql(sql).unwrap();
    let grow = "SELECT n, repeat('x', 900) FROM generate_series(1, 20000) n";
    sql(&scene, "CREATE TABLE short (n int, t text)");
    sql(&scene, &format!("CREATE TABLE long AS {grow}"));
    sql(&scene, "CHECKPOINT");
    scene.world.backup(&[]);
    scene.world.everpoint.run(&["restore-point", CLUSTER, "before"]).unwrap();
    sql(&scene, "TRUNCATE long");
    sql(&scene, &format!("INSERT INTO short {grow}; INSERT INTO short {grow}"));
    sql(&scene, "CHECKPOINT");
    scene.world.settle(&scene.world.source, 1);
    scene.world.stop_capture();
    scene.world.source.stop(StopMode::Fast).unwrap();
    let main = scene.world.source.data_dir().to_owned();
    let home = scene.world.everpoint.home().path().display();
    // The log lies elsewhere: only what shrinks makes room.
    let script = format!(
        "mkdir -p {home}/full && mount -t tmpfs -o size=1g none {home}/full && cp -a {main}/. {home}/full/ || exit 77
         chown --reference={main} {home}/full; chmod 700 {home}/full
         mv {home}/full/pg_wal {home}/wal && ln -s {home}/wal {home}/full/pg_wal
         mount -o remount,size=$(($(du -sk {home}/full | cut -f1) + 8192))k {home}/full || exit 77
         mount --bind {home}/full {main}
         df -k {main} >&2
         everpoint restore {CLUSTER} {main} --delta --replace-production --to name:before",
        main = main.display()
    );
    let Some((code, said)) = as_root(&scene, &script).filter(|(code, _)| *code != 77) else { return };
    assert_eq!(code, 0, "{said}");
}

/// A directory of a lower layer becomes another one as soon as something is made in it: so it is noted only then.
#[test]
fn an_unfinished_restore_into_a_directory_of_a_lower_layer_goes_on() {
    if !found(15) {
        return;
    }
    let scene = Scene::new();
    let account = Account::of_servers().unwrap();
    let (home, name) = (scene.world.everpoint.home().path().display(), account.name());
    let script = format!(
        "l={home}/layers; d=$l/all/data
         mkdir -p $l && mount -t tmpfs none $l && mkdir -p $l/low/data $l/up $l/work $l/all || exit 77
         chown -R {name} $l; chmod 700 $l/low/data
         mount -t overlay none -o lowerdir=$l/low,upperdir=$l/up,workdir=$l/work $l/all || exit 77
         as_user() {{
             exec setpriv --reuid={name} --regid=$(id -g {name}) --clear-groups {home}/everpoint --config {home}/everpoint.toml \
                 restore {CLUSTER} $d
         }}
         (as_user) & pid=$!
         while [ ! -e $d/{MARKER} ]; do kill -0 $pid || exit 77; done
         kill -9 $pid; wait $pid
         [ -e $d/{MARKER} ] || exit 77
         (as_user)"
    );
    // Where nothing can be layered, or the restore ended before it was killed, nothing was tried.
    let Some((code, said)) = as_root(&scene, &script).filter(|(code, _)| *code != 77) else { return };
    assert_eq!(code, 0, "{said}");
}
