//! Recovery on real servers: to the very record, never past it, and never into production's directories.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod wal_rig;

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use everpoint_core::{FailureClass, LogEvent, LogOffset};
use everpoint_engine::{
    EngineError, RecoveryEvent, RecoveryReached, RecoverySettings, StartOptions, StopAt, StopFlag,
};
use everpoint_pg::lsn::{Lsn, SegmentName};
use everpoint_pg::recovery::{local_log, prepare_recovery, rewrite_for_copy, start};
use everpoint_pg::wal::{SegmentHead, digest_of_segment};
use wal_rig::{Server, free_port, programs, run};

const SEGMENT: u64 = 1 << 20;

/// A server with an archive, and a cold copy of it to recover from.
struct Production {
    server: Server,
    archive: PathBuf,
    base: PathBuf,
}

fn own(path: &Path) {
    if let Some((uid, gid)) = wal_rig::server_user() {
        chown(path, Some(uid), Some(gid)).unwrap();
    }
}

fn make_directory(path: &Path) {
    fs::create_dir_all(path).unwrap();
    own(path);
}

impl Production {
    fn new(major: u32, settings: &[&str]) -> Self {
        let mut all = vec![
            "archive_mode=on",
            "archive_command='cp %p ../archive/%f'",
            "wal_level=logical",
        ];
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
        run(wal_rig::as_server_user("cp")
            .arg("-a")
            .arg(&server.data)
            .arg(&base));
        for segment in fs::read_dir(base.join("pg_wal")).unwrap() {
            let path = segment.unwrap().path();
            if path.is_file() {
                fs::remove_file(path).unwrap();
            }
        }
        server.run();
        Self {
            server,
            archive,
            base,
        }
    }

    fn insert(&self, row: u32) -> u64 {
        let xid = self.server.sql(&format!(
            "begin; insert into t values ({row}); select txid_current(); commit"
        ));
        xid.lines().last().unwrap().parse().unwrap()
    }

    /// Everything so far is in the archive.
    fn archived(&self) -> Vec<(LogOffset, Vec<u8>)> {
        let last = self.server.sql("select pg_walfile_name(pg_switch_wal())");
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.archive.join(&last).exists() {
            assert!(
                Instant::now() < deadline,
                "{last} is not archived: {}",
                self.server.log()
            );
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
    fn commit_of(&self, xid: u64) -> LogOffset {
        let segments = self.archived();
        let all: Vec<u8> = segments
            .iter()
            .flat_map(|(_, bytes)| bytes.iter().copied())
            .collect();
        let events = digest_of_segment(&all, segments[0].0, SEGMENT, None).events;
        let commit = events
            .iter()
            .find(|it| matches!(it, LogEvent::Commit(end) if end.xid == xid));
        commit
            .unwrap_or_else(|| panic!("no commit of {xid}"))
            .record()
            .start
    }

    fn copy(&self, name: &str) -> PathBuf {
        let copy = self.server.sockets.join(name);
        run(wal_rig::as_server_user("cp").arg("-a").arg(&self.base).arg(&copy));
        copy
    }

    fn settings(&self, directory: &Path, archive: &Path, stop: Option<StopAt>) -> RecoverySettings {
        RecoverySettings {
            directory: directory.to_owned(),
            stop,
            timeline: 1,
            fetch_command: format!("cp \"{}/%f\" \"%p\"", archive.display()),
            facts: vec![("max_connections".to_owned(), "20".to_owned())],
            links: Vec::new(),
            keep_configuration: false,
            promote: false,
        }
    }
}

/// A recovered server, stopped at the end of the test.
struct Recovered {
    directory: PathBuf,
    reached: RecoveryReached,
    events: Vec<RecoveryEvent>,
}

impl Recovered {
    fn start(
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
            stop_flag: StopFlag::default(),
        };
        let mut events = Vec::new();
        let reached = start(&options, &mut |event| events.push(event))?;
        Ok(Self {
            directory: directory.to_owned(),
            reached,
            events,
        })
    }

    fn sql(&self, sql: &str) -> String {
        let mut psql = wal_rig::as_server_user(programs(18).join("psql"));
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
        let pid = text
            .lines()
            .next()
            .and_then(|line| line.parse().ok())
            .and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
            while rustix::process::test_kill_process(pid).is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

fn stops_at_the_record(major: u32) {
    let production = Production::new(major, &[]);
    let _ = production.insert(2);
    let wanted = production.insert(3);
    let _ = production.insert(4);
    let record = production.commit_of(wanted);
    for (name, inclusive, rows) in [("before", false, "1,2"), ("after", true, "1,2,3")] {
        let stop = Some(StopAt { record, inclusive });
        let copy = production.copy(name);
        prepare_recovery(&production.settings(&copy, &production.archive, stop)).unwrap();
        assert_eq!(fs::read_dir(copy.join("pg_replslot")).unwrap().count(), 0);
        let port = free_port();
        let copy = Recovered::start(major, &copy, stop, Some(port)).unwrap();
        assert_eq!(
            copy.sql("select string_agg(i::text, ',' order by i) from t"),
            rows
        );
        assert_eq!(copy.reached.port, port);
        assert_eq!(copy.reached.position > record, inclusive);
        assert!(copy.reached.last_commit.is_some());
        assert!(matches!(copy.events.first(), Some(RecoveryEvent::Started { .. })));
        assert!(copy.events.contains(&RecoveryEvent::Promoting));
        copy.sql("insert into t values (100)");
        let shown = |name: &str| copy.sql(&format!("show {name}"));
        assert_eq!(
            (shown("archive_mode").as_str(), shown("work_mem").as_str()),
            ("off", "4MB")
        );
        assert_eq!(shown("max_logical_replication_workers"), "0");
        assert!(copy.directory.join("postgresql.conf.production").exists());
    }
}

#[test]
fn recovery_of_13_stops_at_the_record() {
    stops_at_the_record(13);
}

#[test]
fn recovery_of_15_stops_at_the_record() {
    stops_at_the_record(15);
}

#[test]
fn recovery_of_18_stops_at_the_record() {
    stops_at_the_record(18);
}

#[test]
fn a_target_that_is_not_reached_is_a_shortfall_and_leaves_no_server() {
    let production = Production::new(16, &[]);
    let xid = production.insert(2);
    let record = production.commit_of(xid);
    let copy = production.copy("copy");
    let stop = Some(StopAt {
        record: record.plus(64 << 20),
        inclusive: true,
    });
    prepare_recovery(&production.settings(&copy, &production.archive, stop)).unwrap();
    let error = Recovered::start(16, &copy, stop, Some(free_port()))
        .err()
        .unwrap();
    assert_eq!(
        (error.code, error.class),
        ("pg.recovery_short", FailureClass::Shortfall),
        "{error}"
    );
    assert!(!copy.join("postmaster.pid").exists());

    // A record that is none: the server would stop after the next one; we notice.
    let stop = Some(StopAt {
        record: LogOffset(record.0 - 8),
        inclusive: true,
    });
    let copy = production.copy("between");
    prepare_recovery(&production.settings(&copy, &production.archive, stop)).unwrap();
    let error = Recovered::start(16, &copy, stop, Some(free_port()))
        .err()
        .unwrap();
    assert_eq!(error.code, "pg.recovery_short", "{error}");
    assert!(!copy.join("postmaster.pid").exists());
}

#[test]
fn kept_configuration_gains_only_recovery() {
    let production = Production::new(17, &[]);
    let xid = production.insert(2);
    let stop = Some(StopAt {
        record: production.commit_of(xid),
        inclusive: true,
    });
    let copy = production.copy("copy");
    let mut settings = production.settings(&copy, &production.archive, stop);
    settings.keep_configuration = true;
    settings
        .facts
        .push(("max_connections".to_owned(), "333".to_owned()));
    prepare_recovery(&settings).unwrap();
    prepare_recovery(&settings).unwrap();
    let text = fs::read_to_string(copy.join("postgresql.auto.conf")).unwrap();
    assert_eq!(text.matches("recovery_target_lsn").count(), 1, "{text}");
    let copy = Recovered::start(17, &copy, stop, Some(free_port())).unwrap();
    assert_eq!(copy.sql("show work_mem"), "5MB");
    assert_eq!(copy.sql("show archive_mode"), "on");
    assert_eq!(copy.sql("show max_connections"), "333");
    assert_eq!(copy.sql("select count(*) from t"), "2");
}

/// Names and contents of all files under a directory.
fn contents(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            found.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

/// Everything that creates and drops tablespaces, with a production that still lives in one of them.
fn never_touches_production(major: u32) {
    let production = Production::new(major, &["allow_in_place_tablespaces=on"]);
    let spaces: Vec<PathBuf> = ["one", "two"]
        .iter()
        .map(|name| production.server.sockets.join(name))
        .collect();
    let server = &production.server;
    make_directory(&spaces[0]);
    make_directory(&spaces[1]);
    let create = |name: &str, place: &Path| {
        server.sql(&format!(
            "create tablespace {name} location '{}'",
            place.display()
        ));
    };
    create("gone", &spaces[0]);
    server.sql("create table g tablespace gone as select generate_series(1, 1000) i");
    server.sql("drop table g");
    server.sql("drop tablespace gone");
    create("kept", &spaces[0]);
    server.sql("create table k tablespace kept as select generate_series(1, 5000) i");
    // Many, so that some records cross pages and a segment's end.
    for round in 0..60 {
        let filler = "x".repeat(40 + round * 13 % 400);
        server.sql(&format!(
            "select pg_logical_emit_message(false, 'fill', repeat('{filler}', 90))"
        ));
        create("short", &spaces[1]);
        server.sql("drop tablespace short");
    }
    create("mapped", &spaces[1]);
    server.sql("create table m tablespace mapped as select generate_series(1, 700) i");
    let mapped: u32 = server
        .sql("select oid from pg_tablespace where spcname = 'mapped'")
        .parse()
        .unwrap();
    let xid = production.insert(2);
    let stop = Some(StopAt {
        record: production.commit_of(xid),
        inclusive: true,
    });
    server.sql("checkpoint");

    let segments = production.archived();
    let safe = server.sockets.join("safe");
    make_directory(&safe);
    let mut changed = 0;
    for (start, bytes) in &segments {
        let mut bytes = bytes.clone();
        let mut neighbour = |at: LogOffset| {
            Ok(segments
                .iter()
                .find(|(start, _)| *start == at)
                .map(|(_, bytes)| bytes.clone()))
        };
        changed += u32::from(rewrite_for_copy(&mut bytes, *start, SEGMENT, &mut neighbour).unwrap());
        let path = safe.join(SegmentName::containing(1, *start, SEGMENT).to_string());
        fs::write(&path, bytes).unwrap();
        own(&path);
    }
    assert!(changed > 1, "{changed} segments of {}", segments.len());
    let all: Vec<u8> = segments
        .iter()
        .flat_map(|(start, _)| {
            fs::read(safe.join(SegmentName::containing(1, *start, SEGMENT).to_string())).unwrap()
        })
        .collect();
    let digest = digest_of_segment(&all, segments[0].0, SEGMENT, None);
    let paths: Vec<_> = digest
        .events
        .iter()
        .filter_map(|event| match event {
            LogEvent::TablespaceCreate { path, .. } => Some(path.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!((paths.len(), paths.concat()), (63, String::new()));

    let before: Vec<_> = spaces.iter().map(|space| contents(space)).collect();
    let copy = production.copy("copy");
    let mut settings = production.settings(&copy, &safe, stop);
    let place = server.sockets.join("place");
    settings.links = vec![(mapped, place.clone())];
    prepare_recovery(&settings).unwrap();
    let copy = Recovered::start(major, &copy, stop, Some(free_port())).unwrap();
    assert_eq!(copy.sql("select count(*), sum(i) from k"), "5000|12502500");
    assert_eq!(copy.sql("select count(*) from m"), "700");
    assert!(!contents(&place).is_empty());
    copy.sql("insert into k select generate_series(1, 5000)");
    copy.sql("checkpoint");
    let after: Vec<_> = spaces.iter().map(|space| contents(space)).collect();
    assert!(before == after, "production's tablespaces changed");
    assert_eq!(server.sql("select count(*) from k"), "5000");
}

#[test]
fn replay_of_tablespaces_of_13_stays_inside_the_copy() {
    never_touches_production(13);
}

#[test]
fn replay_of_tablespaces_of_15_stays_inside_the_copy() {
    never_touches_production(15);
}

#[test]
fn replay_of_tablespaces_of_18_stays_inside_the_copy() {
    never_touches_production(18);
}

#[test]
fn the_log_left_in_a_directory_is_found_to_its_last_record() {
    let mut production = Production::new(18, &["wal_recycle=on"]);
    for row in 2..40 {
        let _ = production.insert(row);
    }
    production
        .server
        .sql("select pg_logical_emit_message(true, 'big', repeat('0123456789', 500000))");
    let end: Lsn = production
        .server
        .sql("select pg_current_wal_insert_lsn()")
        .parse()
        .unwrap();
    production.server.crash();
    let found = local_log(&production.server.data, 1, SEGMENT).unwrap().unwrap();
    assert!(
        found.to >= LogOffset::from(end) || LogOffset::from(end).since(found.to) < 8,
        "{found:?} {end}"
    );
    assert!(found.from < found.to);
    assert_eq!(local_log(&production.base, 1, SEGMENT).unwrap(), None);
    assert_eq!(local_log(&production.server.data, 2, SEGMENT).unwrap(), None);
}
