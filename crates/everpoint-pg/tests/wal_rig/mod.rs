//! A real server of a given version for the tests of the log, the files and recovery.
//!
//! Fault model: none of its own; it only starts, asks and stops servers, by their own process id.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub(crate) mod production;
pub(crate) mod workload;

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A port that nobody uses now.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// Where the programs of a version are: `$EVERPOINT_PG_BINARIES/pg<major>/bin`, or where the test kit keeps them.
pub(crate) fn programs(major: u32) -> PathBuf {
    let directory = match std::env::var_os("EVERPOINT_PG_BINARIES") {
        Some(root) => Path::new(&root).join(format!("pg{major}/bin")),
        None => everpoint_testkit::PgInstall::find(major).unwrap().bin(),
    };
    assert!(directory.join("postgres").exists(), "no PostgreSQL {major} in {}", directory.display());
    directory
}

/// The user that servers run as: ourselves, or an unprivileged one when we are root.
pub(crate) fn server_user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let field = |name: &str| {
        users.lines().find_map(|line| {
            let parts: Vec<&str> = line.split(':').collect();
            (parts[0] == name).then(|| (parts[2].parse().unwrap(), parts[3].parse().unwrap()))
        })
    };
    field("postgres").or_else(|| field("nobody"))
}

/// A command that runs as the server's user.
pub(crate) fn as_server_user(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    everpoint_testkit::clean(&mut command);
    if let Some((uid, gid)) = server_user() {
        command.uid(uid).gid(gid).current_dir("/tmp");
    }
    command
}

pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A directory of the test's own, open to the server's user.
pub(crate) fn scratch() -> tempfile::TempDir {
    let directory = tempfile::Builder::new().prefix("ep-wal-").tempdir_in("/tmp").unwrap();
    if let Some((uid, gid)) = server_user() {
        chown(directory.path(), Some(uid), Some(gid)).unwrap();
    }
    directory
}

pub(crate) struct Server {
    pub(crate) major: u32,
    pub(crate) data: PathBuf,
    pub(crate) port: u16,
    pub(crate) sockets: PathBuf,
    child: Option<Child>,
    _scratch: Option<tempfile::TempDir>,
}

impl Server {
    /// A new cluster, running.
    pub(crate) fn start(major: u32, segment_mib: u32, checksums: bool, settings: &[&str]) -> Self {
        let scratch = scratch();
        let data = scratch.path().join("data");
        let mut initdb = as_server_user(programs(major).join("initdb"));
        initdb.args(["-N", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "-D"]);
        initdb.arg(&data).arg(format!("--wal-segsize={segment_mib}"));
        if checksums {
            initdb.arg("-k");
        } else if major >= 18 {
            initdb.arg("--no-data-checksums");
        }
        run(&mut initdb);
        let mut configuration = fs::read_to_string(data.join("postgresql.conf")).unwrap();
        for line in ["fsync=off", "max_wal_size=8GB", "max_prepared_transactions=10", "shared_buffers=32MB"]
            .iter()
            .chain(settings)
        {
            configuration.push_str(&format!("{line}\n"));
        }
        configuration.push_str(&format!("{}=4GB\n", "wal_keep_size"));
        fs::write(data.join("postgresql.conf"), configuration).unwrap();
        let mut server = Self {
            major,
            data,
            port: free_port(),
            sockets: scratch.path().to_owned(),
            child: None,
            _scratch: Some(scratch),
        };
        server.run();
        server
    }

    /// Runs the server (again).
    pub(crate) fn run(&mut self) {
        let log = fs::File::create(self.sockets.join("server.log")).unwrap();
        let mut command = as_server_user(programs(self.major).join("postgres"));
        command.arg("-D").arg(&self.data).arg("-k").arg(&self.sockets);
        command.args(["-p", &self.port.to_string(), "-c", "listen_addresses="]);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.try_sql("select 1").is_err() {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.sockets.join("server.log")).unwrap_or_default()
    }

    /// psql of the newest version: the oldest comes without one.
    pub(crate) fn psql(&self, database: &str) -> Command {
        let mut command = as_server_user(programs(18).join("psql"));
        command.args(["-XAtq", "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-d", database]);
        command.arg("-h").arg(&self.sockets).args(["-p", &self.port.to_string()]);
        command
    }

    pub(crate) fn try_sql(&self, sql: &str) -> Result<String, String> {
        let output = self.psql("postgres").args(["-c", sql]).output().unwrap();
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    pub(crate) fn sql(&self, sql: &str) -> String {
        self.try_sql(sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    pub(crate) fn segment_size(&self) -> u64 {
        self.sql("select setting::bigint from pg_settings where name = 'wal_segment_size'").parse().unwrap()
    }

    fn signal(&mut self, signal: rustix::process::Signal) {
        if let Some(mut child) = self.child.take() {
            let pid = rustix::process::Pid::from_child(&child);
            let _ = rustix::process::kill_process(pid, signal);
            child.wait().unwrap();
        }
    }

    /// Stops it with a shutdown checkpoint.
    pub(crate) fn stop(&mut self) {
        self.signal(rustix::process::Signal::INT);
    }

    /// Stops it as a crash would.
    pub(crate) fn crash(&mut self) {
        self.signal(rustix::process::Signal::QUIT);
    }

    /// Segments in `pg_wal` by name, in order.
    pub(crate) fn segments(&self) -> Vec<(String, Vec<u8>)> {
        let mut segments: Vec<_> = fs::read_dir(self.data.join("pg_wal"))
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_name().len() == 24)
            .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
            .collect();
        segments.sort();
        segments
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.crash();
    }
}
