//! `protect` where something else of Everpoint is at work: another repository has the slot, a service runs already, the
//! repository knows the server under another name.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail loudly"
)]

#[allow(dead_code, reason = "shared with other tests of protect")]
mod support_protect;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use everpoint_testkit::{PgCluster, signal_child};
use rustix::process::Signal;
use support_protect::{PASSWORD, Running, World};

/// What a command said, and how it ended.
fn ran(mut command: Command) -> (i32, String) {
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Begins something that lasts, and waits until it has said a word.
fn begun(world: &World, mut command: Command, log: &str, word: &str) -> Running {
    let log = world.scratch.path().join(log);
    let file = fs::File::create(&log).unwrap();
    let running = Running(command.stdout(Stdio::null()).stderr(file).spawn().unwrap());
    wait_for(word, || {
        let said = fs::read_to_string(&log).unwrap();
        assert!(!said.contains("error:"), "{said}");
        said.contains(word)
    });
    running
}

fn ended(mut running: Running) {
    signal_child(&running.0, Signal::TERM).unwrap();
    assert!(running.0.wait().unwrap().success());
}

/// A directory in which somebody types the same by mistake.
fn elsewhere(world: &World) -> PathBuf {
    world.scratch.subdir("elsewhere").unwrap()
}

fn there(world: &World, directory: &Path, arguments: &[&str]) -> Command {
    let mut command = world.command(arguments);
    command.current_dir(directory).env("STATE_DIRECTORY", directory.join("state"));
    command
}

/// A configuration of the same cluster with a repository of its own.
fn configured(world: &World, directory: &Path) {
    fs::copy(world.home.join("everpoint-shop.password"), directory.join("password")).unwrap();
    let config = format!(
        "[repository.other]\nurl = \"repo\"\nkey_file = \"key\"\n\n[cluster.shop]\n\
         postgres = \"postgres://backup@127.0.0.1:{}/postgres\"\npassword_file = \"password\"\n",
        world.cluster.port()
    );
    fs::write(directory.join("everpoint.toml"), config).unwrap();
}

#[test]
fn the_slot_of_another_repository_is_not_waited_for() {
    let Some(world) = World::new() else { return };
    let url = world.url(PASSWORD, world.cluster.port());
    let protect = world.command(&["protect", &url, "--repo", "./repo", "--name", "shop"]);
    let service = begun(&world, protect, "service", "is protected");
    let other = elsewhere(&world);
    let repo = other.join("repo").display().to_string();
    let (code, said) = ran(there(&world, &other, &["protect", &url, "--repo", &repo, "--name", "shop"]));
    assert!(code == 2 && said.contains("everpoint_shop is held by process"), "{code}: {said}");
    assert!(said.contains("role backup") && said.contains("nothing was written"), "{said}");
    assert_eq!(fs::read_dir(&other).unwrap().count(), 0, "{said}");

    configured(&world, &other);
    let (code, said) = ran(there(&world, &other, &["init"]));
    assert!(
        code == 2 && said.contains("is held by process") && said.contains("init --new"),
        "{code}: {said}"
    );
    let (code, said) = ran(there(&world, &other, &["init", "--new"]));
    assert_eq!(code, 0, "{said}");
    for arguments in [&["capture", "shop"][..], &["capture", "shop", "--once"]] {
        let (code, said) = ran(there(&world, &other, arguments));
        assert!(code == 2 && said.contains("is held by process"), "{arguments:?}: {code}: {said}");
    }
    // Nor does a service wait until the other one restarts. Once that is gone, and this is typed, the word holds.
    let wrong = begun(&world, there(&world, &other, &["serve"]), "wrong", "it is captured only after");
    ended(service);
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(world.cluster.psql("SELECT active FROM pg_replication_slots").unwrap(), "f");
    ended(wrong);
    let (code, said) = ran(there(&world, &other, &["capture", "shop", "--once"]));
    assert_eq!(code, 0, "{said}");
}

#[test]
fn status_and_check_say_that_another_receiver_has_the_slot() {
    let Some(world) = World::new() else { return };
    let url = world.url(PASSWORD, world.cluster.port());
    world.protected(&["protect", &url, "--repo", "./repo", "--name", "shop"]);
    let other = elsewhere(&world);
    configured(&world, &other);
    assert_eq!(ran(there(&world, &other, &["init", "--new"])).0, 0);
    let thief = begun(&world, there(&world, &other, &["capture", "shop"]), "thief", "capturing timeline");
    let ours = begun(&world, world.command(&["serve"]), "ours", "trying again");
    let write = "CREATE TABLE t AS SELECT generate_series(1, 100000)";
    world.cluster.psql(write).unwrap();
    wait_for("the loss is seen", || ran(world.command(&["status", "shop"])).1.contains("is held by process"));
    let (code, said) = ran(world.command(&["status", "shop"]));
    assert!(
        code == 1 && said.contains("shop: ERROR") && !said.contains("keep this running"),
        "{code}: {said}"
    );
    let (code, said) = ran(world.command(&["check", "shop"]));
    assert!(code == 1 && said.contains("is held by process") && !said.contains(", in use"), "{code}: {said}");
    drop((thief, ours));
}

#[test]
fn a_service_that_runs_takes_up_what_is_protected_beside_it() {
    let Some(world) = World::new() else { return };
    let url = world.url(PASSWORD, world.cluster.port());
    let protect = world.command(&["protect", &url, "--repo", "./repo", "--name", "shop"]);
    let service = begun(&world, protect, "service", "is protected");
    let second = PgCluster::builder().major(15).start().unwrap();
    let (code, said) = ran(world.command(&["protect", &second.url(), "--name", "second"]));
    assert!(code == 0 && said.contains("second is protected; the service that runs captures it"), "{said}");
    wait_for("both are well", || ran(world.command(&["status"])).0 == 0);
    ended(service);
}

#[test]
fn a_path_that_is_not_there_is_mistyped_and_one_directory_above_is_made() {
    let Some(world) = World::new() else { return };
    let (url, wrong) = (world.url(PASSWORD, world.cluster.port()), world.path("vra/lib/x"));
    for arguments in [&["protect", &url, "--repo", &wrong][..], &["--repo", &wrong, "init"]] {
        let (code, said) = ran(world.command(arguments));
        assert!(code == 2 && said.contains("mkdir -p") && said.contains("nothing was written"), "{said}");
        assert!(!world.scratch.path().join("vra").exists() && world.there().is_empty(), "{said}");
    }
    assert_eq!(ran(world.command(&["--repo", &world.path("made/x"), "init"])).0, 0);
}

#[test]
fn a_server_that_the_repository_knows_gets_no_second_name_from_another_configuration() {
    let Some(world) = World::new() else { return };
    let url = world.url(PASSWORD, world.cluster.port());
    world.protected(&["protect", &url, "--repo", "./repo", "--name", "shop"]);
    let other = elsewhere(&world);
    let repo = world.home.join("repo").display().to_string();
    let key = world.home.join("everpoint-local.key").display().to_string();
    let options = ["protect", &url, "--repo", &repo, "--key-file", &key, "--name"];
    let with_name = |name: &str| there(&world, &other, &[&options[..], &[name]].concat());
    let (code, said) = ran(with_name("again"));
    assert!(code == 2 && said.contains("is that of shop already"), "{code}: {said}");
    assert!(said.contains("protect `again`") || said.contains("again"), "{said}");
    assert_eq!(fs::read_dir(&other).unwrap().count(), 0, "{said}");
    // Its own name goes on where the configuration is lost, and another one does once it is forgotten.
    world.protected_by(with_name("shop"));
    assert_eq!(ran(there(&world, &other, &["forget", "shop"])).0, 0);
    world.protected_by(with_name("again"));
}
