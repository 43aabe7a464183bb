//! A production server with an archive, and copies of it that recover.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use everpoint_core::{LogEvent, LogOffset};
use everpoint_engine::{
    EngineError, RecoveryEvent, RecoveryReached, RecoverySettings, StartOptions, StopAt, StopFlag,
};
use everpoint_pg::recovery::start;
use everpoint_pg::wal::{SegmentHead, digest_of_segment};

use super::{Server, as_server_user, programs, run, server_user};

pub(crate) const SEGMENT: u64 = 1 << 20;

/// A server with an archive, and a cold copy of it to recover from.
pub(crate) struct Production {
    pub(crate) server: Server,
    pub(crate) archive: PathBuf,
    pub(crate) base: PathBuf,
}

pub(crate) fn own(path: &Path) {
    if let Some((uid, gid)) = server_user() {
        chown(path, Some(uid), Some(gid)).unwrap();
    }
}

pub(crate) fn make_directory(path: &Path) {
    fs::create_dir_all(path).unwrap();
    own(path);
}

impl Production {
    pub(crate) fn new(major: u32, settings: &[&str]) -> Self {
        let mut all = vec!["archive_mode=on", "archive_command='cp %p ../archive/%f'", "wal_level=logical"];
        all.extend(settings);
        let mut server = Server::start(major, 1, true, &all);
        let archive = server.sockets.join("archive");
        make_directory(&archive);
        server.sql("create table t(i int primary key); insert into t values (1)");
        server.sql("select pg_create_physical_replication_slot('left_behind', true)");
        server.sql("alter system set work_mem = '5MB'");
        server.stop();
        // A cold copy with the label that an online one would have: recovery begins at its checkpoint.
        let base = server.sockets.join("base");
        run(as_server_user("cp").arg("-a").arg(&server.data).arg(&base));
        for segment in fs::read_dir(base.join("pg_wal")).unwrap() {
            let path = segment.unwrap().path();
            if path.is_file() {
                fs::remove_file(path).unwrap();
            }
        }
        server.run();
        Self { server, archive, base }
    }

    pub(crate) fn insert(&self, row: u32) -> u64 {
        let xid =
            self.server.sql(&format!("begin; insert into t values ({row}); select txid_current(); commit"));
        xid.lines().last().unwrap().parse().unwrap()
    }

    /// Everything so far is in the archive.
    pub(crate) fn archived(&self) -> Vec<(LogOffset, Vec<u8>)> {
        let last = self.server.sql("select pg_walfile_name(pg_switch_wal())");
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.archive.join(&last).exists() {
            assert!(Instant::now() < deadline, "{last} is not archived: {}", self.server.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        std::thread::sleep(Duration::from_millis(100));
        let mut segments: Vec<_> = fs::read_dir(&self.archive)
            .unwrap()
            .map(|entry| fs::read(entry.unwrap().path()).unwrap())
            .filter_map(|bytes| Some((SegmentHead::parse(&bytes).ok()?.start, bytes)))
            .collect();
        segments.sort();
        segments
    }

    /// The record that ends a transaction.
    pub(crate) fn commit_of(&self, xid: u64) -> LogOffset {
        let segments = self.archived();
        let all: Vec<u8> = segments.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect();
        let events = digest_of_segment(&all, segments[0].0, SEGMENT, None).events;
        let commit = events.iter().find(|it| matches!(it, LogEvent::Commit(end) if end.xid == xid));
        commit.unwrap_or_else(|| panic!("no commit of {xid}")).record().start
    }

    pub(crate) fn copy(&self, name: &str) -> PathBuf {
        let copy = self.server.sockets.join(name);
        run(as_server_user("cp").arg("-a").arg(&self.base).arg(&copy));
        copy
    }

    pub(crate) fn settings(
        &self,
        directory: &Path,
        archive: &Path,
        stop: Option<StopAt>,
    ) -> RecoverySettings {
        RecoverySettings {
            directory: directory.to_owned(),
            stop,
            timeline: 1,
            fetch_command: format!("cp \"{}/%f\" \"%p\"", archive.display()),
            facts: vec![("max_connections".to_owned(), "20".to_owned())],
            links: Vec::new(),
            unfinished: Vec::new(),
            libraries: Vec::new(),
            kept: Vec::new(),
            keep_configuration: false,
            copy_of: None,
            promote: false,
        }
    }
}

/// A recovered server, stopped at the end of the test.
pub(crate) struct Recovered {
    pub(crate) directory: PathBuf,
    pub(crate) reached: RecoveryReached,
    pub(crate) events: Vec<RecoveryEvent>,
}

impl Recovered {
    pub(crate) fn start(
        major: u32,
        directory: &Path,
        stop: Option<StopAt>,
        port: Option<u16>,
    ) -> Result<Self, EngineError> {
        let options = StartOptions {
            directory: directory.to_owned(),
            port,
            programs: Some(programs(major)),
            stop,
            settings: Vec::new(),
            stop_flag: StopFlag::default(),
        };
        let mut events = Vec::new();
        let reached = start(&options, &mut |event| events.push(event))?;
        Ok(Self { directory: directory.to_owned(), reached, events })
    }

    pub(crate) fn sql(&self, sql: &str) -> String {
        let mut psql = as_server_user(programs(18).join("psql"));
        psql.args(["-XAtq", "-U", "postgres", "-d", "postgres", "-h", "127.0.0.1"]);
        psql.args(["-p", &self.reached.port.to_string(), "-c", sql]);
        run(&mut psql).trim().to_owned()
    }
}

impl Drop for Recovered {
    fn drop(&mut self) {
        let Ok(text) = fs::read_to_string(self.directory.join("postmaster.pid")) else {
            return;
        };
        let pid =
            text.lines().next().and_then(|line| line.parse().ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
            while rustix::process::test_kill_process(pid).is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}
