//! `protect` where its files lie as containers have them: read-only, or mounted one by one.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail loudly"
)]

#[allow(dead_code, reason = "shared with other tests of protect")]
mod support_protect;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use support_protect::{PASSWORD, World};

/// What makes a directory or file read-only.
fn read_only(place: &Path) -> String {
    let place = place.display();
    format!("mount --bind {place} {place}; mount -o remount,bind,ro {place}")
}

fn bind(place: &Path) -> String {
    format!("mount --bind {0} {0}", place.display())
}

fn failed(mut command: Command) -> String {
    let ran = command.output().unwrap();
    assert!(!ran.status.success());
    String::from_utf8(ran.stderr).unwrap()
}

/// A configuration with the cluster and without a repository, its password beside it.
fn with_cluster(world: &World) {
    let text = format!(
        "[cluster.one]\npostgres = \"postgres://backup@127.0.0.1:{}/postgres\"\npassword_file = \"password\"\n\
         [serve]\nstate_dir = \"{}\"\n",
        world.cluster.port(),
        world.path("state")
    );
    fs::write(world.home.join("everpoint.toml"), text).unwrap();
    fs::write(world.home.join("password"), format!("{PASSWORD}\n")).unwrap();
}

#[test]
fn what_needs_no_writing_is_not_tried() {
    let Some(world) = World::new() else { return };
    let (url, repo) = (world.url(PASSWORD, world.cluster.port()), world.path("repo"));
    fs::write(
        world.home.join("everpoint.toml"),
        format!("[serve]\nstate_dir = \"{}\"\n", world.path("state")),
    )
    .unwrap();
    world.protected(&["protect", &url, "--repo", &repo, "--name", "one"]);
    let there = world.there();
    let Some(again) = world.mounted(&read_only(&world.home), &["protect", &url, "--key-stored-elsewhere"])
    else {
        return;
    };
    let said = world.protected_by(again);
    assert!(said.contains("can't be noted"), "what would only be nice is told: {said}");
    // The file of a container, and nothing else of it.
    let file = world.home.join("everpoint.toml");
    world.protected_by(world.mounted(&read_only(&file), &["protect", &url]).unwrap());
    // Another password, which the server takes as it takes the one that is kept.
    world.cluster.psql("ALTER ROLE backup PASSWORD 'another one'").unwrap();
    let again = world.url("another one", world.cluster.port());
    let said = failed(world.mounted(&read_only(&world.home), &["protect", &again]).unwrap());
    assert!(said.contains("nothing was written") && said.contains("everpoint-one.password"), "{said}");
    assert_eq!(world.there(), there);
}

#[test]
fn below_backup_dir_a_file_that_can_not_be_written_is_told_and_protection_goes_on() {
    let Some(world) = World::new() else { return };
    let url = format!("postgres://backup@127.0.0.1:{}/postgres", world.cluster.port());
    with_cluster(&world);
    let (file, ro) = (world.home.join("everpoint.toml"), read_only(&world.home));
    let before = fs::read_to_string(&file).unwrap();
    let arguments = ["protect", url.as_str()];
    let Some(mut command) = world.mounted(&ro, &arguments) else { return };
    // A new key would have to lie beside the file: refused before anything is made.
    let said = failed({
        command.env("BACKUP_DIR", world.path("none"));
        command
    });
    assert!(said.contains("EVERPOINT_KEY") && said.contains("nothing was written"), "{said}");
    assert!(!Path::new(&world.path("none")).exists());
    let key = "everpoint-key-1-a-passphrase-of-mine";
    let with = |directory: &str, more: &[&str], key: Option<&str>| {
        let mut command = world.mounted(&ro, &[&arguments[..], more].concat()).unwrap();
        command.env("BACKUP_DIR", world.path(directory));
        if let Some(key) = key {
            command.env("EVERPOINT_KEY", key);
        }
        world.protected_by(command)
    };
    let key = key.trim_start_matches("everpoint-key-1-");
    for number in 0..2 {
        let said = with("of-variable", &[], Some(key));
        assert!(said.contains("can't be written into"), "{number}: {said}");
        assert_eq!(said.contains("(encrypted)"), number == 0, "{said}");
    }
    world.without_slots();
    for _ in 0..2 {
        with("clear", &["--no-encryption"], None);
    }
    // One that is there and has no key needs no word for it.
    with("clear", &[], None);
    world.without_slots();
    // A key elsewhere is used to the end, though the file can't name it.
    let elsewhere = world.path("key");
    for _ in 0..2 {
        let said = with("of-file", &["--key-file", &elsewhere], None);
        assert!(said.contains(&format!("others need --key-file {elsewhere}")), "{said}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
}

#[test]
fn a_file_that_is_mounted_alone_is_written_where_it_is_and_a_key_that_lies_beside_is_taken_up() {
    let Some(world) = World::new() else { return };
    let url = world.url(PASSWORD, world.cluster.port());
    with_cluster(&world);
    let (file, key) = (world.home.join("everpoint.toml"), world.home.join("everpoint-local.key"));
    let (before, inode) = (fs::read_to_string(&file).unwrap(), file.metadata().unwrap().ino());
    let run = |script: &str| {
        let mut command = world.mounted(script, &["protect", &url])?;
        command.env("BACKUP_DIR", world.path("bd"));
        Some(world.protected_by(command))
    };
    let Some(said) = run(&bind(&file)) else { return };
    assert!(said.contains("(encrypted)"), "{said}");
    let written = fs::read_to_string(&file).unwrap();
    assert!(written.starts_with(&before) && written.contains("[repository.local]"), "{written}");
    assert_eq!(file.metadata().unwrap().ino(), inode);
    let made = fs::read_to_string(&key).unwrap();
    // As a kill between key and table leaves it, or a version that could not write the table.
    fs::write(&file, &before).unwrap();
    let said = run("true").unwrap();
    assert!(!said.contains("created") && said.contains("wrote the repository"), "{said}");
    assert_eq!(fs::read_to_string(&key).unwrap(), made);
    // A password that is mounted alone.
    world.cluster.psql("ALTER ROLE backup PASSWORD 'another one'").unwrap();
    let password = world.home.join("password");
    let again = world.url("another one", world.cluster.port());
    let said = world.protected_by(world.mounted(&bind(&password), &["protect", &again]).unwrap());
    assert!(said.contains("is replaced"), "{said}");
    assert_eq!(fs::read_to_string(&password).unwrap(), "another one\n");
    // `forget` writes the same file.
    let inode = file.metadata().unwrap().ino();
    let ran = world.mounted(&bind(&file), &["forget", "one"]).unwrap().output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert!(fs::read_to_string(&file).unwrap().contains("# [cluster.one]"));
    assert_eq!(file.metadata().unwrap().ino(), inode);
}

/// The directory of backups is on a volume, that of the configuration is not.
#[test]
fn a_new_container_is_told_where_its_key_was_and_how_to_begin_anew() {
    let Some(world) = World::new() else { return };
    let url = world.url(PASSWORD, world.cluster.port());
    let run = |arguments: &[&str], directory: &str| {
        fs::write(
            world.home.join("everpoint.toml"),
            format!("[serve]\nstate_dir = \"{}\"\n", world.path("state")),
        )
        .unwrap();
        let mut command = world.command(&[&["protect", &url, "--name", "one"], arguments].concat());
        command.env("BACKUP_DIR", directory);
        command
    };
    let directory = world.path("bd");
    let said = world.protected_by(run(&[], &directory));
    assert!(said.contains("the key is NOT below BACKUP_DIR"), "{said}");
    fs::rename(&world.home, world.home.with_extension("old")).unwrap();
    fs::create_dir(&world.home).unwrap();
    fs::remove_dir_all(world.path("state")).unwrap();
    let said = failed(run(&[], &directory));
    assert!(said.contains("--key-file FILE, or EVERPOINT_KEY") && said.contains("new one"), "{said}");
    let typed = said
        .replace('\n', " ")
        .split_once("begin anew: ")
        .unwrap()
        .1
        .replace(", then everpoint", " && everpoint");
    let typed = typed.replace("everpoint init", &format!("{} init", env!("CARGO_BIN_EXE_everpoint")));
    let mut shell = Command::new("sh");
    everpoint_testkit::clean(&mut shell).args(["-c", &typed]).current_dir(&world.home);
    shell.env("STATE_DIRECTORY", world.path("state"));
    let typed_it = shell.output().unwrap();
    assert!(typed_it.status.success(), "{typed}: {}", String::from_utf8_lossy(&typed_it.stderr));
    world.protected_by(run(&[], &directory));
    assert!(Path::new(&format!("{directory}/repository.lost/config")).exists());
    // A key on the same volume stays with it, and one that is given is nobody's to lose.
    world.without_slots();
    let other = world.path("other");
    let said = world.protected_by(run(&["--key-file", &format!("{other}/key")], &other));
    assert!(said.contains("(encrypted)") && !said.contains("NOT below"), "{said}");
}
