//! `protect` on a stock server, whose role has REPLICATION and nothing else: from nothing to restored rows.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail loudly"
)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use everpoint_testkit::{Account, Address, PgCluster, Scratch, Session, signal_child};
use rustix::process::Signal;

const PASSWORD: &str = "s3cret-of-the-test";

/// The program, copied to where the servers' account reaches it: root may have built it where nobody else may look.
fn everpoint(account: &Account, home: &Path) -> Command {
    let program = home.join("everpoint");
    if !program.exists() {
        // Not copied by this process, whose other threads start programs: they would hold it open.
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_everpoint")).arg(&program).status().unwrap();
        assert!(copied.success());
    }
    let mut command = account.command(program);
    command.current_dir(home).env_remove("EVERPOINT_CONFIG").env_remove("EVERPOINT_KEY").env("HOME", home);
    command
}

fn json(command: &mut Command) -> (i32, serde_json::Value) {
    let output = command.arg("--json").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let value = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text}\n{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), value)
}

/// A running `protect`; killed if the test fails.
struct Protecting(Child);

impl Drop for Protecting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Protecting {
    /// Starts it and waits until it says that the cluster is protected.
    fn start(account: &Account, home: &Path, url: &str) -> Self {
        let log = home.join("protect.log");
        let file = std::fs::File::create(&log).unwrap();
        let mut command = everpoint(account, home);
        command.args(["protect", url, "--repo", "./repo", "--name", "order-db"]);
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let running = Self(command.spawn().unwrap());
        let begun = Instant::now();
        loop {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            assert!(
                !text.contains(PASSWORD) && !text.contains("everpoint-key-1-"),
                "a secret was shown: {text}"
            );
            if text.contains("is protected") {
                // Told with each new key, whoever keeps it.
                assert_eq!(text.contains("everpoint key age"), text.contains("(encrypted)"), "{text}");
                return running;
            }
            assert!(begun.elapsed() < Duration::from_secs(60) && !text.contains("error:"), "{text}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Asks it to stop, which must take seconds and end well.
    fn stop(mut self) {
        signal_child(&self.0, Signal::TERM).unwrap();
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "it must stop within seconds");
            std::thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(status.code(), Some(0));
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_stock_server_is_protected_and_brought_back_13() {
    protected_and_brought_back(13);
}

#[test]
fn a_stock_server_is_protected_and_brought_back_14() {
    protected_and_brought_back(14);
}

#[test]
fn a_stock_server_is_protected_and_brought_back_15() {
    protected_and_brought_back(15);
}

#[test]
fn a_stock_server_is_protected_and_brought_back_16() {
    protected_and_brought_back(16);
}

#[test]
fn a_stock_server_is_protected_and_brought_back_17() {
    protected_and_brought_back(17);
}

#[test]
fn a_stock_server_is_protected_and_brought_back_18() {
    protected_and_brought_back(18);
}

fn protected_and_brought_back(major: u32) {
    let account = Account::of_servers().unwrap();
    let cluster = PgCluster::builder()
        .major(major)
        .hba("host replication backup 127.0.0.1/32 scram-sha-256")
        .start()
        .unwrap();
    // 13 would store an MD5 hash, which SCRAM can't use.
    let role = "SET password_encryption = 'scram-sha-256'; CREATE ROLE backup LOGIN REPLICATION";
    cluster.psql(&format!("{role} PASSWORD '{PASSWORD}'")).unwrap();
    cluster.psql("CREATE TABLE kept (n int)").unwrap();
    let scratch = Scratch::new("protect").unwrap();
    let home = scratch.subdir("home").unwrap();
    account.own(&home).unwrap();
    let url = format!("postgres://backup:{PASSWORD}@127.0.0.1:{}/postgres", cluster.port());

    let running = Protecting::start(&account, &home, &url);
    cluster.psql("INSERT INTO kept SELECT generate_series(1, 1000)").unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let config = std::fs::read_to_string(home.join("everpoint.toml")).unwrap();
    assert!(!config.contains(PASSWORD), "{config}");
    assert_eq!(mode(&home.join("everpoint-order-db.password")), 0o600);
    assert_eq!(mode(&home.join("everpoint-local.key")), 0o600);
    running.stop();

    // Again: it goes on where it was, and takes no second backup.
    Protecting::start(&account, &home, &url).stop();
    let (code, list) = json(everpoint(&account, &home).arg("list"));
    assert_eq!(code, 0, "{list}");
    let listed = &list["clusters"][0];
    assert_eq!(listed["backups"].as_array().unwrap().len(), 1, "{list}");
    assert_eq!(listed["windows"].as_array().unwrap().len(), 1, "{list}");

    let fetch = |name: &str| {
        everpoint(&account, &home).args(["archive-get", "order-db", name, "fetched"]).status().unwrap()
    };
    assert_eq!(fetch("0000000100000000000000FF").code(), Some(1), "certainly not stored");
    assert_eq!(fetch("00000002.history").code(), Some(1), "certainly not stored");
    assert!(!home.join("fetched").exists());

    let mut restore = everpoint(&account, &home);
    restore.env("EVERPOINT_PG_BIN", cluster.install().bin());
    restore.args(["restore", "order-db", "--start"]).arg(home.join("restored"));
    brought_back(restore, &home.join("restored"));
    // Root's server runs as another user, who may read neither key nor repository: the log is handed to it.
    if rustix::process::geteuid().is_root() {
        let locked = std::fs::Permissions::from_mode(0o700);
        for private in ["repo", "everpoint-local.key"] {
            rustix::fs::chown(home.join(private), Some(rustix::fs::Uid::ROOT), None).unwrap();
            std::fs::set_permissions(home.join(private), locked.clone()).unwrap();
        }
        let as_root = |program: &Path, target: &Path| {
            let mut restore = Command::new(program);
            restore.current_dir(&home).env_remove("EVERPOINT_CONFIG").env_remove("EVERPOINT_KEY");
            restore.env("EVERPOINT_PG_BIN", cluster.install().bin()).env("EVERPOINT_PG_USER", account.name());
            restore.args(["restore", "order-db", "--start"]).arg(target);
            restore
        };
        let program = home.join("everpoint");
        brought_back(as_root(&program, &home.join("restored-by-root")), &home.join("restored-by-root"));
        // Where that user can't even run the program, the log lies beside the image.
        let hidden = scratch.path().join("hidden");
        std::fs::create_dir(&hidden).unwrap();
        std::fs::set_permissions(&hidden, locked).unwrap();
        let moved = hidden.join("everpoint");
        std::fs::rename(&program, &moved).unwrap();
        brought_back(as_root(&moved, &home.join("restored-alone")), &home.join("restored-alone"));
        let unreachable = hidden.join("restored");
        let (code, refused) = json(&mut as_root(&moved, &unreachable));
        assert_eq!((code, &refused["error"]["code"]), (2, &"restore.directory".into()), "{refused}");
        assert!(!unreachable.exists());
    }
}

/// Runs a restore into `target` and counts the rows there.
fn brought_back(mut restore: Command, target: &Path) {
    let (code, restored) = json(&mut restore);
    assert_eq!(code, 0, "{restored}");
    let port = u16::try_from(restored["port"].as_u64().unwrap()).unwrap();
    let mut session = Session::connect(&Address::Socket(target.to_owned(), port), "postgres").unwrap();
    let count: u64 = session.value("SELECT count(*) FROM kept").unwrap();
    stop_server(target);
    assert_eq!(count, 1000);
}

/// Stops the server that the restore has started.
fn stop_server(directory: &Path) {
    let pid = std::fs::read_to_string(directory.join("postmaster.pid")).unwrap();
    let pid =
        pid.lines().next().and_then(|line| line.trim().parse().ok()).and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(pid.unwrap(), Signal::INT).unwrap();
}
