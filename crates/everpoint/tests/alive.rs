//! Whatever can refuse a restore does so before its first byte: a server that runs or may run, a port, room, rights, and
//! Everpoint's own files inside of what is written over.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail loudly"
)]

#[allow(dead_code, reason = "shared with other scenarios")]
mod support_scenarios;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use everpoint_testkit::{Account, StopMode};
use rustix::process::{Pid, Signal, kill_process};
use support_scenarios::{CLUSTER, World, configure, forget_files, found, quiet};

const MAJOR: u32 = 15;

/// What a command ended with.
struct Said {
    code: Option<i32>,
    text: String,
}

impl Said {
    fn refused(&self, code: &str) {
        assert_eq!(self.code, Some(2), "{}", self.text);
        assert!(self.text.contains(code), "{code}: {}", self.text);
    }

    fn went_on(&self) {
        assert_eq!(self.code, Some(0), "{}", self.text);
    }
}

/// As the servers' user.
fn everpoint(world: &World, arguments: &[&str]) -> Said {
    let ran = world.everpoint.try_run(&[&["--json"], arguments].concat()).unwrap();
    Said { code: ran.status.code(), text: format!("{}{}", ran.out, ran.err) }
}

/// As root, behind other programs: what they run is `"$@"`.
fn as_root(world: &World, before: &[&str], arguments: &[&str]) -> Said {
    let mut command = Command::new(before[0]);
    command.args(&before[1..]).arg(world.everpoint.program());
    command.arg("--config").arg(world.everpoint.home().path().join("everpoint.toml"));
    command.args(["--json", "--no-progress"]).args(arguments).current_dir("/").stdin(Stdio::null());
    let ran = everpoint_testkit::clean(&mut command).output().unwrap();
    let text = [ran.stdout, ran.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    Said { code: ran.status.code(), text }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The restore's own word where this test does not see all processes either.
fn word() -> &'static [&'static str] {
    let first = fs::metadata("/proc/self/ns/pid").is_ok_and(|found| found.ino() == 0xEFFF_FFFC);
    if first { &[] } else { &["--server-is-stopped"] }
}

/// Names, sizes and times of all that lies below.
fn look(directory: &Path) -> BTreeMap<PathBuf, (u64, i64, i64)> {
    let mut seen = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let found = fs::symlink_metadata(&path).unwrap();
            seen.insert(path.clone(), (found.size(), found.mtime(), found.mtime_nsec()));
            if found.is_dir() {
                open.push(path);
            }
        }
    }
    seen
}

fn world() -> World {
    let world = World::new(quiet(MAJOR).setting("max_wal_size", "100MB").start().unwrap());
    world.source.psql("CREATE TABLE rows AS SELECT n FROM generate_series(1, 1000) n").unwrap();
    world.backup(&[]);
    world
}

fn copy_tree(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

/// A server whose processes and shared memory other namespaces don't see. Ends when dropped.
struct Elsewhere(Child, PathBuf);

impl Elsewhere {
    fn start(world: &World) -> Self {
        let owner = fs::metadata(world.source.data_dir()).unwrap();
        let mut command = Command::new("unshare");
        everpoint_testkit::clean(&mut command).args([
            "--pid",
            "--fork",
            "--mount-proc",
            "--ipc",
            "setpriv",
            "--clear-groups",
        ]);
        command.arg(format!("--reuid={}", owner.uid())).arg(format!("--regid={}", owner.gid()));
        command.arg(world.source.install().bin().join("postgres")).arg("-D").arg(world.source.data_dir());
        command.arg("-c").arg(format!("port={}", world.source.port()));
        command.arg("-c").arg(format!("unix_socket_directories={}", world.source.socket_dir().display()));
        let quiet = command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self(quiet.spawn().unwrap(), world.source.data_dir().to_owned());
        let since = Instant::now();
        while world.source.session().is_err() {
            assert!(since.elapsed() < Duration::from_secs(60), "it does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        // The namespace ends with its first process, a moment later.
        let id = self.0.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|child| Pid::from_raw(child.parse().ok()?)) {
            let _ = kill_process(child, Signal::KILL);
        }
        let _ = self.0.wait();
        let works_in = |process: fs::DirEntry| fs::read_link(process.path().join("cwd")).ok();
        let runs = || fs::read_dir("/proc").unwrap().flatten().filter_map(works_in).any(|it| it == self.1);
        let since = Instant::now();
        while runs() && since.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn a_server_that_runs_or_may_run_is_not_written_over_and_a_dead_one_is() {
    if !found(MAJOR) {
        return;
    }
    let mut world = world();
    let data = world.source.data_dir().to_owned();
    let place = data.to_str().unwrap().to_owned();
    let restore = ["restore", CLUSTER, &place, "--delta", "--replace-production"];
    let stopped = [&restore[..], &["--server-is-stopped"]].concat();

    let untouched = |world: &World, what: &str| {
        assert_eq!(world.source.psql("SELECT count(*) FROM rows").unwrap(), "1000", "{what}");
        assert!(!data.join("everpoint.restore-incomplete").exists(), "{what}");
    };
    for arguments in [&restore[..], &stopped, &[&restore[..], &["--dry-run"]].concat()] {
        everpoint(&world, arguments).refused("restore.live_server");
        untouched(&world, "seen");
    }
    let without_file = fs::read(data.join("postmaster.pid")).unwrap();
    fs::remove_file(data.join("postmaster.pid")).unwrap();
    everpoint(&world, &stopped).refused("restore.live_server");
    fs::write(data.join("postmaster.pid"), &without_file).unwrap();
    Account::of_servers().unwrap().own(&data.join("postmaster.pid")).unwrap();
    if is_root() {
        let sockets = world.source.socket_dir().display().to_string();
        let hide = format!("mount -t tmpfs none {sockets} && exec \"$@\"");
        // Docker's root: what other users' processes do is not for it.
        let docker = ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"];
        let namespace = ["unshare", "--pid", "--fork", "--mount-proc"];
        let container = [&namespace[..], &["--ipc", "--net"]].concat();
        for before in [&docker[..], &namespace, &container] {
            as_root(&world, before, &stopped).refused("restore.live_server");
            untouched(&world, &before.join(" "));
        }
        // Nothing is seen of it from there: that is no proof.
        let blind = [&container[..], &["--mount", "sh", "-c", &hide, "sh"]].concat();
        let said = as_root(&world, &blind, &restore);
        said.refused("restore.live_server");
        assert!(said.text.contains("may run") && said.text.contains("--server-is-stopped"), "{}", said.text);
        untouched(&world, "blind");
    }
    // What was copied from a running server with the note of that one has none of its own.
    let copy = world.everpoint.home().path().join("copied");
    copy_tree(&data, &copy);
    let refresh = ["restore", CLUSTER, copy.to_str().unwrap(), "--delta", "--dry-run"];
    everpoint(&world, &[&refresh[..], word()].concat()).went_on();

    world.source.stop(StopMode::Fast).unwrap();
    everpoint(&world, &[&restore[..], &["--dry-run"]].concat()).went_on();
    if is_root() {
        let server = Elsewhere::start(&world);
        everpoint(&world, &stopped).refused("restore.live_server");
        drop(server);
        everpoint(&world, &[&restore[..], &["--dry-run"], word()].concat()).went_on();
        fs::remove_file(data.join("postmaster.pid")).unwrap();
    }
    world.source.start().unwrap();
    world.source.kill9().unwrap();
    // Its number belongs to somebody else now.
    let note = fs::read_to_string(data.join("postmaster.pid")).unwrap();
    let (_, rest) = note.split_once('\n').unwrap();
    fs::write(data.join("postmaster.pid"), format!("{}\n{rest}", std::process::id())).unwrap();
    let note = data.join("postmaster.pid");
    Account::of_servers().unwrap().own(&note).unwrap();
    if is_root() {
        let namespace = ["unshare", "--pid", "--fork", "--mount-proc"];
        let dry = [&restore[..], &["--dry-run"]].concat();
        as_root(&world, &namespace, &dry).refused("may run");
        as_root(&world, &namespace, &[&stopped[..], &["--dry-run"]].concat()).went_on();
    }
    everpoint(&world, &[&restore[..], word()].concat()).went_on();
    world.source.start().unwrap();
    world.wait_for("it is promoted", || world.source.psql("SELECT pg_is_in_recovery()").unwrap() == "f");
    untouched(&world, "restored");
}

#[test]
fn what_does_not_fit_or_can_not_start_is_refused_before_the_first_byte() {
    if !found(MAJOR) {
        return;
    }
    let world = world();
    let place = world.place();
    let name = place.to_str().unwrap();
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(taken) = TcpListener::bind(address) else { continue };
        let port = taken.local_addr().unwrap().port().to_string();
        let start = ["restore", CLUSTER, name, "--start", "--port", &port];
        for arguments in [&start[..], &[&start[..], &["--dry-run"]].concat()] {
            everpoint(&world, arguments).refused("restore.port");
            assert!(!place.exists());
        }
    }
    everpoint(&world, &["restore", CLUSTER, name, "--start", "--dry-run"]).went_on();
    assert!(!place.exists(), "a dry run wrote");
    fs::write(&place, "").unwrap();
    everpoint(&world, &["restore", CLUSTER, name, "--dry-run"]).refused("restore.directory");
    fs::remove_file(&place).unwrap();
    if is_root() {
        fs::create_dir(&place).unwrap();
        for (options, code, what) in
            [("size=8m", 1, "restore.no_room"), ("size=8m,ro", 2, "restore.directory"), ("size=400m", 0, "")]
        {
            let script = format!(
                "mount -t tmpfs -o {options} none {name} && {{ \"$@\"; code=$?; ls {name} | wc -l >&2; exit $code; }}"
            );
            let mounted =
                ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", &script, "sh"];
            for dry in [&["--dry-run"][..], &[]] {
                let said = as_root(&world, &mounted, &[&["restore", CLUSTER, name], dry].concat());
                assert_eq!(said.code, Some(code), "{options}: {}", said.text);
                let empty = said.text.trim_end().ends_with("\n0");
                assert_eq!(empty, code != 0 || !dry.is_empty(), "{options}: {}", said.text);
                assert!(said.text.contains(what), "{options}: {}", said.text);
            }
        }
    }
}

#[test]
fn a_delta_that_changes_little_needs_little_room() {
    if !found(MAJOR) || !is_root() {
        return;
    }
    let world = world();
    let place = world.place();
    fs::create_dir(&place).unwrap();
    let name = place.to_str().unwrap();
    let program = world.everpoint.program().display().to_string();
    let config = world.everpoint.home().path().join("everpoint.toml").display().to_string();
    // More than the image and its log, and less than twice that.
    let script = format!(
        "mount -t tmpfs -o size=36m none {name} && {program} --config {config} restore {CLUSTER} {name} && \"$@\""
    );
    // And one that was never started is known to be dead where its processes would not be seen.
    let mounted = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", &script, "sh"];
    as_root(&world, &mounted, &["restore", CLUSTER, name, "--delta"]).went_on();
}

#[test]
fn a_delta_into_a_disk_that_its_log_has_filled_makes_its_room_itself() {
    if !found(MAJOR) || !is_root() {
        return;
    }
    let world = world();
    let place = world.place();
    fs::create_dir(&place).unwrap();
    let name = place.to_str().unwrap();
    let program = world.everpoint.program().display().to_string();
    let config = world.everpoint.home().path().join("everpoint.toml").display().to_string();
    let data = format!("{name}/data");
    for (more, code, what) in [("", 0, ""), ("touch $log && ln $log ../twin &&", 1, "restore.no_room")] {
        // As its server leaves it: no byte is free. And some tables have files of other names by now.
        let script = format!(
            "mount -t tmpfs -o size=64m none {name} && {program} --config {config} restore {CLUSTER} {data} && \
             cd {data} && rm -r base && echo options > postmaster.opts && log=pg_wal/000000010000000000000099 && {more} \
             ! cat /dev/zero > $log && \"$@\" --dry-run && \"$@\""
        );
        let mounted = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", &script, "sh"];
        let said = as_root(&world, &mounted, &["restore", CLUSTER, &data, "--delta"]);
        assert_eq!(said.code, Some(code), "{}", said.text);
        assert!(said.text.contains(what), "{}", said.text);
    }
}

#[test]
fn own_files_inside_a_data_directory_are_told_left_out_and_never_written_over() {
    if !found(MAJOR) {
        return;
    }
    let mut world = world();
    let (data, home) = (world.source.data_dir().to_owned(), world.everpoint.home().path().to_owned());
    let account = Account::of_servers().unwrap();
    let inside = data.join("backups/repository");
    // By its own name, and by a link that leads there.
    let link = home.join("link");
    symlink(&data, &link).unwrap();
    let original = fs::read_to_string(home.join("everpoint.toml")).unwrap();
    let url = format!("{}/repository\"", home.display());
    for place in [inside.display().to_string(), link.join("backups/repository").display().to_string()] {
        configure(&world, |text| text.replace(&url, &format!("{place}\"")));
        everpoint(&world, &["init"]).refused("config.inside_server");
        assert!(!inside.exists());
        fs::write(home.join("everpoint.toml"), &original).unwrap();
    }
    if is_root() {
        // A part of it, mounted elsewhere: no name and no directory above tells.
        let (part, mount) = (data.join("base"), home.join("mounted"));
        fs::create_dir(&mount).unwrap();
        let place = mount.join("repository");
        configure(&world, |text| text.replace(&url, &format!("{}\"", place.display())));
        let script = format!("mount --bind {} {} && exec \"$@\"", part.display(), mount.display());
        as_root(&world, &["unshare", "--mount", "sh", "-c", &script, "sh"], &["init"])
            .refused("config.inside_server");
        assert!(!part.join("repository").exists());
        fs::write(home.join("everpoint.toml"), &original).unwrap();
    }
    let protect = ["--repo", inside.to_str().unwrap(), "--config"];
    let (fresh, address) = (home.join("fresh.toml"), world.source.url());
    let protect = [&protect[..], &[fresh.to_str().unwrap(), "protect", &address]].concat();
    let mut command = account.command(world.everpoint.program());
    let ran = command.args(&protect).stdin(Stdio::null()).output().unwrap();
    assert_eq!(ran.status.code(), Some(2), "{}", String::from_utf8_lossy(&ran.stderr));
    assert!(!inside.exists() && !fresh.exists());

    // An older version let it be made there.
    fs::create_dir(inside.parent().unwrap()).unwrap();
    account.own(inside.parent().unwrap()).unwrap();
    fs::rename(home.join("repository"), &inside).unwrap();
    configure(&world, |text| text.replace(&url, &format!("{}\"", inside.display())));
    let check = everpoint(&world, &["check"]);
    assert!(check.code == Some(1) && check.text.contains("\"location\""), "{}", check.text);
    left_out(&world, &inside);
    // The server's own copying ends at names as long as a repository's: over the wire it is a key that lies there.
    fs::rename(&inside, home.join("repository")).unwrap();
    let key = data.join("backups/key");
    fs::rename(home.join("key"), &key).unwrap();
    let old = format!("{}/key\"", home.display());
    fs::write(home.join("everpoint.toml"), original.replace(&old, &format!("{}\"", key.display()))).unwrap();
    forget_files(&world);
    left_out(&world, &key);

    configure(&world, |text| text.replace("pg_bin", &format!("data_dir = \"{}\"\npg_bin", data.display())));
    for wrong in [data.join("copy"), home.join("link/copy")] {
        everpoint(&world, &["restore", CLUSTER, wrong.to_str().unwrap()]).refused("restore.directory");
    }
    let above = data.parent().unwrap().to_str().unwrap();
    everpoint(&world, &["restore", CLUSTER, above, "--delta"]).refused("restore.own_files");
    world.source.stop(StopMode::Fast).unwrap();
    let before = look(&data);
    let place = data.to_str().unwrap();
    for more in [&["--dry-run"][..], &[], &["--replace-production"]] {
        let arguments = [&["restore", CLUSTER, place, "--delta"], more].concat();
        everpoint(&world, &arguments).refused("restore.own_files");
    }
    assert!(look(&data) == before, "something was touched");
}

/// A backup goes on without what lies there, and a restore elsewhere says where it lies.
fn left_out(world: &World, inside: &Path) {
    let backup = everpoint(world, &["backup", CLUSTER, "--skip-checks"]);
    backup.went_on();
    assert!(backup.text.contains("left out"), "{}", backup.text);
    let copy = world.place();
    let restored = everpoint(world, &["restore", CLUSTER, copy.to_str().unwrap()]);
    restored.went_on();
    assert!(restored.text.contains("lies inside"), "{}", restored.text);
    let relative = inside.strip_prefix(world.source.data_dir()).unwrap();
    assert!(copy.join("base").exists() && !copy.join(relative).exists(), "it is in the image");
}
