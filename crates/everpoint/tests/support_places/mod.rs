//! A protected server with a tablespace, and what must not change around it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use everpoint_testkit::{Account, RunningCopy};

use crate::support_scenarios::{CLUSTER, World, ask, quiet};

pub(crate) const PART: &str = "PG_15_202209061";
pub(crate) const MARKER: &str = "everpoint.restore-incomplete";

/// State of every path below others: size, time, target; owner, mode, number of names, inode.
pub(crate) type State = BTreeMap<PathBuf, String>;

pub(crate) fn state(places: &[&Path]) -> State {
    let mut state = State::new();
    let mut todo: Vec<PathBuf> = places.iter().map(|place| place.to_path_buf()).collect();
    while let Some(path) = todo.pop() {
        // The look-ahead of a server that has stopped ends a little later.
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        if path.ends_with("everpoint-spool") {
            continue;
        }
        if found.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let target = fs::read_link(&path).unwrap_or_default();
        let text = format!("{} {:?} {target:?}", found.len(), found.modified().unwrap());
        let text = format!("{text}|{} {:o} {} {}", found.uid(), found.mode(), found.nlink(), found.ino());
        state.insert(path, text);
    }
    state
}

pub(crate) fn differing(before: &State, after: &State) -> Vec<PathBuf> {
    let all = before.keys().chain(after.keys()).filter(|path| before.get(*path) != after.get(*path));
    all.cloned().collect()
}

/// A server with a tablespace outside of its directory, and a backup of it.
pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) space: PathBuf,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let world = World::new(quiet(15).start().unwrap());
        let space = world.source.home().subdir("space").unwrap();
        world.source.psql(&format!("CREATE TABLESPACE side LOCATION '{}'", space.display())).unwrap();
        world
            .source
            .psql("CREATE TABLE aside TABLESPACE side AS SELECT n FROM generate_series(1, 3000) n")
            .unwrap();
        let mut world = world;
        world.capture();
        world.backup(&[]);
        world.settle(&world.source, 1);
        Self { world, space }
    }

    /// A directory that the account of servers owns.
    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        self.world.everpoint.home().subdir(name).unwrap()
    }

    pub(crate) fn own(&self, path: &Path) {
        Account::of_servers().unwrap().own(path).unwrap();
    }

    /// A restore that must be refused, also as a dry run: with 2, without a change anywhere, and without advice that would do
    /// harm. Returns what it said.
    pub(crate) fn refused(&self, directory: &Path, more: &[&str]) -> String {
        let home = self.world.everpoint.home().path().to_owned();
        let watched = [directory, &self.space, &home.join("places")];
        let mut said = String::new();
        for dry in [&["--dry-run"][..], &[]] {
            let arguments = [&["restore", CLUSTER, directory.to_str().unwrap()], more, dry].concat();
            let before = state(&watched);
            let ran = self.world.everpoint.try_run(&arguments).unwrap();
            let changed = differing(&before, &state(&watched));
            assert!(changed.is_empty(), "{arguments:?} changed {changed:?}: {}", ran.err);
            assert_eq!(ran.status.code(), Some(2), "{}", ran.told(&arguments));
            said = ran.err;
        }
        said
    }

    /// A restore that is started; its rows must be those of the server.
    pub(crate) fn restored(&self, directory: &Path, more: &[&str]) {
        let arguments = [&["restore", CLUSTER, directory.to_str().unwrap(), "--start"], more].concat();
        self.world.everpoint.run(&arguments).unwrap();
        let copy = RunningCopy::on(directory).unwrap();
        assert_eq!(ask(&mut copy.session().unwrap(), "SELECT count(*), sum(n) FROM aside"), "3000|4501500");
        assert!(!directory.join(MARKER).exists());
        copy.stop_and_check(self.world.source.install()).unwrap();
    }
}

/// Runs a script as root, in which `everpoint` is the program; what it mounts is gone at its end. `None`: we may not.
pub(crate) fn as_root(scene: &Scene, script: &str) -> Option<(i32, String)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let home = scene.world.everpoint.home().path();
    let script = format!(
        "everpoint() {{ {0}/everpoint --config {0}/everpoint.toml \"$@\"; }}\n{script}",
        home.display()
    );
    let mut command = Command::new("unshare");
    everpoint_testkit::clean(&mut command).args([
        "--mount",
        "--propagation",
        "private",
        "/bin/sh",
        "-c",
        &script,
    ]);
    command.env("EVERPOINT_PG_USER", Account::of_servers().unwrap().name());
    let ran = command.output().unwrap();
    scene.own(&home.join("repository"));
    Some((ran.status.code().unwrap(), String::from_utf8_lossy(&ran.stderr).into_owned()))
}
