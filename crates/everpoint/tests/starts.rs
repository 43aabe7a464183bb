//! A start that could not end well is refused before the first byte, with what mends it; one that can goes on.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail loudly"
)]

#[allow(dead_code, reason = "shared with other scenarios")]
mod support_debian;
#[allow(dead_code, reason = "shared with other scenarios")]
mod support_scenarios;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use everpoint_testkit::{Account, Port, Ran, RunningCopy, StopMode};
use support_debian::Debian;
use support_scenarios::{CLUSTER, World, found, quiet};

const MARKER: &str = "everpoint.restore-incomplete";

fn append(path: &Path, text: &str) {
    fs::File::options().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

/// What stands in a text behind some words, up to the end of its line.
fn behind<'a>(text: &'a str, words: &str) -> &'a str {
    let rest = text.split_once(words).unwrap_or_else(|| panic!("{words} is not in {text}")).1;
    rest.lines().next().unwrap()
}

fn refused(ran: &Ran, directory: &Path) {
    assert_eq!(ran.status.code(), Some(2), "{}{}", ran.out, ran.err);
    assert!(!directory.join(MARKER).exists(), "{}", ran.err);
}

#[test]
fn files_outside_that_are_gone_refuse_a_start_before_the_first_byte() {
    if !found(15) {
        return;
    }
    let debian = Debian::new();
    debian.everpoint.run(&["backup", CLUSTER]).unwrap();
    debian.ctl("stop");
    let (place, etc) = (debian.data.to_str().unwrap(), debian.etc(""));
    let restore = ["restore", CLUSTER, place, "--delta", "--replace-production"];
    let with = |more: &[&str]| debian.everpoint.try_run(&[&restore[..], more].concat()).unwrap();
    for gone in ["conf.d", "people", "pg_hba.conf", "postgresql.conf"] {
        let aside = debian.home("aside");
        fs::rename(etc.join(gone), &aside).unwrap();
        for more in [&["--start"][..], &["--start", "--dry-run"]] {
            let ran = with(more);
            refused(&ran, &debian.data);
            assert!(debian.data.join("global/pg_control").exists());
            for part in [etc.join(gone).to_str().unwrap(), "is not there", "cp -a ", "leave out --start"] {
                assert!(ran.err.contains(part), "{gone} {more:?}: {}", ran.err);
            }
            assert_eq!(ran.out.contains("writes to "), more.len() == 2, "{}", ran.out);
        }
        let dry = with(&["--dry-run"]);
        assert!(dry.status.success() && dry.out.contains("cp -a "), "{gone}: {}{}", dry.out, dry.err);
        // What it says is done: the restore, and the commands after it.
        let commands = behind(&with(&["--start"]).err, "before its server is started: ").to_owned();
        assert!(with(&[]).status.success());
        debian.shell(&commands);
        let ran = with(&["--start"]);
        assert!(ran.status.success(), "{gone}: {}", ran.err);
        assert_eq!(debian.sql("SHOW work_mem"), "7MB");
        debian.ctl("stop");
        let _ = fs::remove_dir_all(&aside).or_else(|_| fs::remove_file(&aside));
    }
    // What a server can do without, and what was taken out of force since, is in no start's way.
    fs::remove_file(etc.join("conf.d/local.conf")).unwrap();
    fs::remove_file(debian.home("etc/15/shared.conf")).unwrap();
    fs::remove_file(etc.join("start.conf")).unwrap();
    let ran = with(&["--start"]);
    assert!(ran.status.success(), "{}", ran.err);
    assert_eq!(debian.sql("SELECT count(*) FROM lost_table"), "3");
}

/// A protected server whose configuration in its directory names a file outside of it.
struct Inside {
    world: World,
    data: PathBuf,
    shared: PathBuf,
}

impl Inside {
    fn new(major: u32) -> Self {
        let world = World::new(quiet(major).start().unwrap());
        let shared = world.everpoint.home().subdir("shared").unwrap().join("shared.conf");
        fs::write(&shared, "work_mem = '7MB'\n").unwrap();
        let data = world.source.data_dir().to_owned();
        append(&data.join("postgresql.conf"), &format!("include '{}'\n", shared.display()));
        Account::of_servers().unwrap().own(&data).unwrap();
        world.source.psql("CREATE TABLE kept AS SELECT generate_series(1, 10) n").unwrap();
        world.backup(&[]);
        Self { world, data, shared }
    }

    fn restore(&self, more: &[&str]) -> Ran {
        let place = self.data.to_str().unwrap();
        let arguments = [&["restore", CLUSTER, place, "--replace-production"], more].concat();
        self.world.everpoint.try_run(&arguments).unwrap()
    }

    fn started(&self, more: &[&str]) {
        let port = Port::free().unwrap();
        let number = port.number().to_string();
        drop(port);
        let ran = self.restore(&[more, &["--start", "--port", &number]].concat());
        assert!(ran.status.success(), "{}{}", ran.out, ran.err);
        let running = RunningCopy::on(&self.data).unwrap();
        let rows = running.session().unwrap().query("SELECT count(*) FROM kept").unwrap().to_string();
        assert_eq!(rows, "10");
        running.stop_and_check(self.world.source.install()).unwrap();
    }

    fn shell(&self, commands: &str) {
        let ran = self.world.everpoint.shell(commands, &self.world.source.install().bin()).unwrap();
        let ran = ran.wait(Duration::from_secs(60)).unwrap();
        assert!(ran.status.success(), "{commands}: {}{}", ran.out, ran.err);
    }
}

/// The configuration comes with the image, the file that it includes does not.
#[test]
fn a_new_machine_without_an_included_file_is_refused_and_goes_on_with_what_is_said() {
    if !found(15) {
        return;
    }
    let mut scene = Inside::new(15);
    scene.world.source.stop(StopMode::Fast).unwrap();
    fs::remove_dir_all(&scene.data).unwrap();
    fs::remove_dir_all(scene.shared.parent().unwrap()).unwrap();
    let ran = scene.restore(&["--start"]);
    refused(&ran, &scene.data);
    assert!(!scene.data.exists() && ran.err.contains(scene.shared.to_str().unwrap()), "{}", ran.err);
    let commands = behind(&ran.err, "before its server is started: ").to_owned();
    assert!(scene.restore(&[]).status.success());
    scene.shell(&commands);
    assert_eq!(fs::read_to_string(&scene.shared).unwrap(), "work_mem = '7MB'\n");
    scene.started(&["--delta"]);
}

/// Production's own file of now stays, and no server can read it: known before the first byte, in all versions.
#[test]
fn a_configuration_that_stays_and_can_not_be_read_refuses_a_start() {
    for major in [13, 18] {
        if !found(major) {
            continue;
        }
        let mut scene = Inside::new(major);
        scene.world.source.stop(StopMode::Fast).unwrap();
        // A start that has nothing in its way.
        scene.started(&["--delta"]);
        for name in ["postgresql.conf", "postgresql.auto.conf"] {
            append(&scene.data.join(name), "\nwork_mem = '7M");
            let before = fs::read(scene.data.join(name)).unwrap();
            for more in [&["--delta", "--start"][..], &["--delta", "--start", "--dry-run"]] {
                let ran = scene.restore(more);
                refused(&ran, &scene.data);
                assert!(
                    ran.err.contains("can't read its configuration: syntax error in file"),
                    "{}",
                    ran.err
                );
                assert!(ran.err.contains(name), "{}", ran.err);
            }
            assert!(scene.data.join("global/pg_control").exists());
            assert_eq!(fs::read(scene.data.join(name)).unwrap(), before);
            let dry = scene.restore(&["--delta", "--dry-run"]);
            assert!(
                dry.status.success() && dry.out.contains("no server will start"),
                "{}{}",
                dry.out,
                dry.err
            );
            let said = scene.restore(&["--delta", "--start"]).err;
            let commands = behind(&said, "if it has one: ").split(';').next().unwrap().to_owned();
            scene.shell(&commands);
            scene.started(&["--delta"]);
        }
        // A file inside that is missing comes from the backup: nothing refuses it before.
        fs::remove_file(scene.data.join("postgresql.conf")).unwrap();
        scene.started(&["--delta"]);
    }
}

/// The image's own configuration is broken: the same command would bring it back for ever.
#[test]
fn a_start_that_failed_for_its_configuration_says_what_helps() {
    if !found(15) {
        return;
    }
    let mut scene = Inside::new(15);
    append(&scene.data.join("postgresql.conf"), "\nno_such_setting = 1\n");
    scene.world.backup(&[]);
    scene.world.source.stop(StopMode::Fast).unwrap();
    fs::remove_dir_all(&scene.data).unwrap();
    let ran = scene.restore(&["--start"]);
    assert_eq!(ran.status.code(), Some(1), "{}", ran.err);
    let hint = behind(&ran.err, "hint: ");
    assert!(hint.contains("unrecognized configuration parameter \"no_such_setting\""), "{hint}");
    assert!(hint.contains("leave out --start") && !hint.contains("it goes on"), "{hint}");
}
