//! Whoever runs a command, the service goes on: root's commands leave nothing in its places that it can't use.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail loudly"
)]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use everpoint_testkit::{Account, Everpoint, PgCluster, PgInstall, signal_child};

struct World {
    cluster: PgCluster,
    everpoint: Everpoint,
}

impl World {
    fn new() -> Option<Self> {
        // Only root can take what belongs to others.
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        PgInstall::find_or_skip(15).unwrap()?;
        let cluster =
            PgCluster::builder().major(15).wal_segsize_mb(1).setting("autovacuum", "off").start().unwrap();
        let binary = Path::new(env!("CARGO_BIN_EXE_everpoint"));
        let everpoint = Everpoint::new(binary, &[("db", &cluster)]).unwrap();
        let home = everpoint.home().path().display().to_string();
        fs::create_dir(format!("{home}/packages")).unwrap();
        Account::of_servers().unwrap().own(Path::new(&format!("{home}/packages"))).unwrap();
        everpoint
            .configure(&format!(
                "\n[serve]\nstate_dir = \"{home}/made/state\"\n[limits]\nscratch_dir = \"{home}/made/scratch\"\n\
                 [api]\nlisten = \"off\"\n[offsite.disk]\ntype = \"filesystem\"\npath = \"{home}/packages\"\ncalls = 50\n"
            ))
            .unwrap();
        Some(Self { cluster, everpoint })
    }

    fn home(&self) -> &Path {
        self.everpoint.home().path()
    }

    /// A command of root, with a umask that closes all to others.
    fn root(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("/bin/sh");
        everpoint_testkit::clean(&mut command).args(["-c", "umask 0077; exec \"$@\"", "sh"]);
        command.arg(self.everpoint.program()).arg("--config").arg(self.home().join("everpoint.toml"));
        command.arg("--no-progress").args(arguments).current_dir(self.home()).stdin(Stdio::null());
        command.env("EVERPOINT_PG_USER", Account::of_servers().unwrap().name());
        command
    }

    fn as_root(&self, arguments: &[&str]) {
        let ran = self.root(arguments).output().unwrap();
        assert!(ran.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
        self.is_the_services(arguments);
    }

    /// Everything belongs to the service, and is as open as what it makes itself.
    fn is_the_services(&self, after: &[&str]) {
        let wanted = fs::metadata(self.home()).unwrap();
        for path in tree(self.home()) {
            let Ok(found) = fs::symlink_metadata(&path) else { continue };
            // What a command printed, as the test keeps it.
            if path.parent() == Some(self.home())
                && path.extension().is_some_and(|end| end == "out" || end == "err")
            {
                continue;
            }
            let shown = path.strip_prefix(self.home()).unwrap().display();
            assert_eq!((found.uid(), found.gid()), (wanted.uid(), wanted.gid()), "{shown} after {after:?}");
            if path.starts_with(self.home().join("repository")) {
                let mode = if found.is_dir() { 0o750 } else { 0o640 };
                assert_eq!(found.mode() & 0o7777, mode, "{shown} after {after:?}");
            }
        }
    }
}

fn tree(root: &Path) -> Vec<PathBuf> {
    let (mut found, mut waiting) = (Vec::new(), vec![root.to_owned()]);
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                waiting.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found
}

#[test]
fn roots_commands_leave_nothing_that_the_service_cannot_use() {
    let Some(world) = World::new() else { return };
    let home = world.home().display().to_string();
    world.everpoint.run(&["init"]).unwrap();
    world.everpoint.run(&["backup", "db"]).unwrap();
    world
        .cluster
        .psql("CREATE TABLE t AS SELECT generate_series(1, 20000) AS n; SELECT pg_switch_wal()")
        .unwrap();
    let segment = world.cluster.psql("SELECT pg_walfile_name(pg_current_wal_lsn())").unwrap();
    world.cluster.psql("INSERT INTO t SELECT generate_series(1, 20000); SELECT pg_switch_wal()").unwrap();
    let pushed = world.cluster.data_dir().join("pg_wal").join(segment.trim()).display().to_string();
    let points = format!("{home}/points.json");
    world.as_root(&["archive-push", "db", &pushed]);
    world.as_root(&["capture", "db", "--once"]);
    world.as_root(&["backup", "db"]);
    world.as_root(&["restore-point", "db", "before"]);
    world.as_root(&["archive-get", "db", segment.trim(), &format!("{home}/fetched")]);
    world.as_root(&["bundle", "db", "--close", "--restore-points", &points]);
    world.as_root(&["backup", "db", "--full"]);
    for command in [&["list"][..], &["status"], &["check"], &["expire"], &["offsite", "push", "--yes"]] {
        world.root(command).output().unwrap();
        world.is_the_services(command);
    }
    world.as_root(&["offsite", "pack", "--directory", &home]);
    let label = world.everpoint.json(&["list", "db"]).unwrap()["clusters"][0]["backups"][0]["label"].clone();
    world.as_root(&["hold", "db", label.as_str().unwrap(), "--until", "2099-01-01"]);
    world.as_root(&["restore", "db", &format!("{home}/copy"), "--stage-log"]);
    world.as_root(&["key", "rotate"]);
    world.as_root(&["key", "confirm"]);
    serves(&world);

    for command in [
        &["capture", "db", "--once"][..],
        &["backup", "db"],
        &["bundle", "db", "--close", "--restore-points", &points],
        &["expire", "db"],
        &["hold", "db", label.as_str().unwrap(), "--release"],
        &["offsite", "push", "--yes"],
        &["key", "rotate"],
        &["key", "confirm"],
        &["restore", "db", &format!("{home}/copy-2"), "--stage-log"],
    ] {
        world.everpoint.run(command).unwrap();
    }
    let daemon = world.everpoint.spawn(&["serve"]).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let stopped = daemon.stop().unwrap();
    assert!(stopped.status.success() && !stopped.err.contains("ERROR"), "{}", stopped.told(&["serve"]));
}

/// Root's daemon makes the state, and ends.
fn serves(world: &World) {
    let mut command = world.root(&["serve"]);
    let mut daemon = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let since = Instant::now();
    let made = |name: &str| world.home().join("made/state").join(name).exists();
    while !(made("state.db") && made("lock") && made("alerting.json"))
        && since.elapsed() < Duration::from_secs(30)
    {
        std::thread::sleep(Duration::from_millis(100));
    }
    world.is_the_services(&["serve", "while it runs"]);
    signal_child(&daemon, rustix::process::Signal::TERM).unwrap();
    assert!(daemon.wait().unwrap().success());
    assert!(made("state.db") && made("lock"));
    world.is_the_services(&["serve"]);
}

#[test]
fn archive_push_needs_the_repositorys_key_and_no_other_secret() {
    let Some(world) = World::new() else { return };
    world.everpoint.run(&["init"]).unwrap();
    let path = world.home().join("everpoint.toml");
    let plain = fs::read_to_string(&path).unwrap();
    let port = world.cluster.port();
    let text = plain
        .lines()
        .map(|line| match line.starts_with("postgres = ") {
            true => format!("postgres = \"postgres://u:${{NO_SUCH}}@127.0.0.1:{port}/d\"\npassword_file = \"/nonexistent/password\"\n"),
            false => format!("{line}\n"),
        })
        .collect::<String>();
    let more = "[[alerts.sink]]\ntype = \"slack\"\nurl = \"${NO_SUCH_HOOK}\"\n[[alerts.sink]]\ntype = \"webhook\"\n\
                url = \"https://h/\"\ntoken_file = \"/nonexistent/token\"\n";
    fs::write(&path, format!("{text}{more}")).unwrap();
    let segment = world.cluster.psql("SELECT pg_walfile_name(pg_current_wal_lsn())").unwrap();
    let segment = segment.trim();
    world.cluster.psql("CREATE TABLE t (n int); SELECT pg_switch_wal()").unwrap();
    let pushed = world.cluster.data_dir().join("pg_wal").join(segment).display().to_string();
    world.everpoint.run(&["archive-push", "db", &pushed]).unwrap();
    world.everpoint.run(&["archive-get", "db", segment, &format!("{}/got", world.home().display())]).unwrap();

    // What a daemon needs is missing for `check` alike, and both say what to do.
    fs::write(
        &path,
        format!(
            "{plain}\n[[alerts.sink]]\ntype = \"webhook\"\nurl = \"https://h/\"\ntoken_file = \"token\"\n"
        ),
    )
    .unwrap();
    fs::write(world.home().join("token"), "of-root").unwrap();
    let private = fs::Permissions::from_mode(0o600);
    fs::set_permissions(world.home().join("token"), private).unwrap();
    for command in ["check", "serve"] {
        let ran = world.everpoint.try_run(&[command]).unwrap();
        assert_eq!(ran.status.code(), Some(2), "{}", ran.told(&[command]));
        assert!(ran.err.contains("token") && ran.err.contains("read it"), "{}", ran.told(&[command]));
    }
}
