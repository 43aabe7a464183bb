//! `protect` and `init` where a repository was before and is not there now: its disk is away.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail loudly"
)]

#[allow(dead_code, reason = "shared with other tests of protect")]
mod support_protect;

use std::fs;
use std::path::Path;
use std::process::Command;

use support_protect::{PASSWORD, World};

fn ran(mut command: Command) -> (i32, String) {
    let ran = command.output().unwrap();
    (ran.status.code().unwrap(), String::from_utf8(ran.stderr).unwrap())
}

/// Protected once, its state where no other test has it.
fn protected_once(world: &World, arguments: &[&str]) {
    let config = format!("[serve]\nstate_dir = \"{}\"\n", world.path("state"));
    fs::write(world.home.join("everpoint.toml"), config).unwrap();
    world.protected(arguments);
}

#[test]
fn a_repository_that_is_away_is_not_made_anew_but_by_word() {
    let Some(world) = World::new() else { return };
    let (url, repo) = (world.url(PASSWORD, world.cluster.port()), world.scratch.path().join("repo"));
    let away = repo.with_extension("away");
    let place = repo.display().to_string();
    let protect = ["protect", url.as_str(), "--repo", &place, "--name", "one"];
    protected_once(&world, &protect);
    fs::rename(&repo, &away).unwrap();
    let there = world.there();
    let refused = |arguments: &[&str], tells: &str| {
        let (code, said) = ran(world.command(arguments));
        assert!(code == 2 && said.contains(tells), "{arguments:?}: {code}: {said}");
        assert!(
            said.contains("mount it") | said.contains("mount its disk") && said.contains("init --new"),
            "{said}"
        );
        assert!(!repo.exists() || repo.read_dir().unwrap().next().is_none(), "refused means untouched");
        assert_eq!(world.there(), there);
        said
    };
    // What others hint at brings it back, and is not what is refused.
    for arguments in [&["backup", "one"][..], &["list", "one"]] {
        refused(arguments, "the daemon of this configuration has read backups there");
    }
    // A directory that is missing, then one that is a bare mount point.
    let served = "the daemon of this configuration has read backups of one there";
    for _ in 0..2 {
        refused(&protect, served);
        refused(&["init"], served);
        fs::create_dir_all(&repo).unwrap();
    }
    // State that is lost: the server knows as well.
    fs::rename(world.path("state"), world.path("state.away")).unwrap();
    let said = refused(&protect, "by the slot everpoint_one");
    // The disk is back: it goes on, and there is no gap.
    fs::remove_dir(&repo).unwrap();
    fs::rename(&away, &repo).unwrap();
    world.protected(&protect);
    // The word for a new one, as it is said.
    fs::rename(&repo, &away).unwrap();
    let typed = said.replace('\n', " ").split_once("another reason: everpoint ").unwrap().1.trim().to_owned();
    let words: Vec<&str> = typed.split_whitespace().collect();
    let (code, said) = ran(world.command(&words));
    assert_eq!(code, 0, "{typed}: {said}");
    let said = world.protected(&protect);
    assert!(!said.contains("created") && !said.contains("NOT ENCRYPTED"), "{said}");
    // A new directory of configuration, as in a new container: a slot alone forbids nothing, and is told.
    fs::rename(&repo, repo.with_extension("second")).unwrap();
    fs::rename(&world.home, world.home.with_extension("kept")).unwrap();
    fs::create_dir(&world.home).unwrap();
    let said = world.protected(&protect);
    assert!(said.contains("created") && said.contains("by the slot everpoint_one already"), "{said}");
}

#[test]
fn what_is_known_of_a_place_says_nothing_of_another_one() {
    let Some(world) = World::new() else { return };
    let url = world.url(PASSWORD, world.cluster.port());
    protected_once(&world, &["protect", &url, "--repo", &world.path("repo"), "--name", "one"]);
    world.without_slots();
    let config = world.home.join("everpoint.toml");
    let text = fs::read_to_string(&config).unwrap().replace(&world.path("repo"), &world.path("other"));
    fs::write(&config, text).unwrap();
    let (code, said) = ran(world.command(&["init"]));
    assert_eq!(code, 0, "{said}");
    // One that nothing was ever in.
    let (code, said) = ran(world.command(&["init", "--repo", &world.path("more")]));
    assert_eq!(code, 0, "{said}");
}

#[test]
fn a_bare_mount_point_gets_no_repository() {
    let Some(world) = World::new() else { return };
    let url = world.url(PASSWORD, world.cluster.port());
    let (disk, fstab) = (world.scratch.subdir("disk").unwrap(), world.path("fstab"));
    fs::write(&fstab, format!("none {} tmpfs defaults 0 0\n", disk.display())).unwrap();
    let repo = disk.join("everpoint").display().to_string();
    let bind = format!("mount --bind {fstab} /etc/fstab");
    for arguments in [
        &["protect", &url, "--repo", &repo][..],
        &["init", "--repo", &repo],
        &["init", "--new", "--repo", &repo],
    ] {
        let Some(command) = world.mounted(&bind, arguments) else { return };
        let (code, said) = ran(command);
        assert!(code == 2 && said.contains("/etc/fstab") && said.contains("nothing was written"), "{said}");
        assert!(!Path::new(&repo).exists() && world.there().is_empty());
    }
    let mounted = format!("{bind}; mount -t tmpfs none {}", disk.display());
    let (code, said) = ran(world.mounted(&mounted, &["init", "--repo", &repo]).unwrap());
    assert_eq!(code, 0, "{said}");
}

/// A slot that is gone takes log with it: no backup from before is called good in the next line.
#[test]
fn behind_lost_log_no_backup_is_called_good() {
    let Some(world) = World::new() else { return };
    let url = world.url(PASSWORD, world.cluster.port());
    let arguments = ["protect", &url, "--repo", &world.path("repo"), "--name", "one"];
    protected_once(&world, &arguments);
    assert!(world.protected(&arguments).contains("there is a good backup already"));
    world.without_slots();
    for _ in 0..3 {
        world.cluster.psql("SELECT pg_switch_wal(); CHECKPOINT").unwrap();
        world.cluster.psql("CREATE TABLE IF NOT EXISTS t (n int); INSERT INTO t VALUES (1)").unwrap();
    }
    world.cluster.psql("SELECT pg_switch_wal(); CHECKPOINT").unwrap();
    let said = world.protected(&arguments);
    assert!(said.contains("take a backup now") && !said.contains("good backup already"), "{said}");
}
