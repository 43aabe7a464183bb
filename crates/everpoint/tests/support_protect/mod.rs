//! A server that `protect` is called for, again and again, in a home of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use everpoint_testkit::{PgCluster, PgInstall, Scratch, clean, signal_child};
use rustix::process::Signal;

/// Everything that has a meaning in an address.
pub(crate) const PASSWORD: &str = "Zq7w@Kx:9v/Jh?5u#Lm%2 $'\"\\n&=ß";

/// A server, and a home without a configuration.
pub(crate) struct World {
    pub(crate) cluster: PgCluster,
    pub(crate) scratch: Scratch,
    pub(crate) home: PathBuf,
}

impl World {
    /// `None` where this machine has no server.
    pub(crate) fn new() -> Option<Self> {
        PgInstall::find_or_skip(15).unwrap()?;
        let cluster = PgCluster::builder()
            .major(15)
            .hba("host all backup 127.0.0.1/32 scram-sha-256")
            .hba("host replication backup 127.0.0.1/32 scram-sha-256")
            .start()
            .unwrap();
        cluster
            .psql(&format!(
                "CREATE ROLE backup LOGIN REPLICATION PASSWORD '{}'",
                PASSWORD.replace('\'', "''")
            ))
            .unwrap();
        let scratch = Scratch::new("protect-first").unwrap();
        let home = scratch.subdir("home").unwrap();
        Some(Self { cluster, scratch, home })
    }

    /// With a password.
    pub(crate) fn url(&self, password: &str, port: u16) -> String {
        let encoded: String = password.bytes().map(|byte| format!("%{byte:02X}")).collect();
        format!("postgres://backup:{encoded}@127.0.0.1:{port}/postgres")
    }

    /// Stands for the configuration of the whole system.
    pub(crate) fn system(&self) -> PathBuf {
        self.scratch.path().join("system.toml")
    }

    /// The program, at home.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_everpoint"));
        clean(&mut command).current_dir(&self.home).env("EVERPOINT_SYSTEM_CONFIG", self.system());
        // Root's usual place is the host's.
        command.env("STATE_DIRECTORY", self.path("state"));
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs what must fail; returns what it said.
    pub(crate) fn refused(&self, arguments: &[&str]) -> String {
        let ran = self.command(arguments).output().unwrap();
        assert!(!ran.status.success());
        String::from_utf8(ran.stderr).unwrap()
    }

    /// Runs until it says that the cluster is protected; returns what it said.
    pub(crate) fn protected(&self, arguments: &[&str]) -> String {
        self.protected_by(self.command(arguments))
    }

    /// The same of a command.
    pub(crate) fn protected_by(&self, mut command: Command) -> String {
        let log = self.scratch.path().join("said");
        let file = fs::File::create(&log).unwrap();
        let mut running = Running(command.stdout(Stdio::null()).stderr(file).spawn().unwrap());
        let since = Instant::now();
        loop {
            let said = fs::read_to_string(&log).unwrap();
            if said.contains("is protected") {
                signal_child(&running.0, Signal::TERM).unwrap();
                assert!(running.0.wait().unwrap().success());
                return said;
            }
            assert!(since.elapsed() < Duration::from_secs(60) && !said.contains("error:"), "{said}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What there is at home.
    pub(crate) fn there(&self) -> Vec<String> {
        let names =
            fs::read_dir(&self.home).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }
}

/// Killed if the test fails.
pub(crate) struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// No part of the password is in it.
pub(crate) fn no_piece(text: &str) {
    let secret: Vec<char> = PASSWORD.chars().collect();
    for piece in secret.windows(4) {
        let piece: String = piece.iter().collect();
        assert!(!text.contains(&piece), "{piece:?} in {text}");
    }
}

/// The permissions of a file.
pub(crate) fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

impl World {
    /// The program, after a script of root's whose mounts are gone at its end; `None`: we may not mount.
    pub(crate) fn mounted(&self, script: &str, arguments: &[&str]) -> Option<Command> {
        let unshare = ["--mount", "--propagation", "private"];
        if !Command::new("unshare").args(unshare).arg("true").status().is_ok_and(|it| it.success()) {
            return None;
        }
        let mut command = Command::new("unshare");
        let script = format!("set -e; {script}; cd .; exec \"$@\"");
        clean(&mut command).args(unshare).args(["sh", "-c", &script, "sh"]);
        command.arg(env!("CARGO_BIN_EXE_everpoint")).args(arguments).stdin(Stdio::null());
        // A mount over the directory that one is in is seen by its path alone.
        command.current_dir(&self.home).env("EVERPOINT_SYSTEM_CONFIG", self.system());
        command.env("STATE_DIRECTORY", self.path("state"));
        Some(command)
    }

    /// A path below the scratch directory, as text.
    pub(crate) fn path(&self, name: &str) -> String {
        self.scratch.path().join(name).display().to_string()
    }

    /// Nothing of the server holds its log any more.
    pub(crate) fn without_slots(&self) {
        self.cluster.psql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots").unwrap();
    }
}
