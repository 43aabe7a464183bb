//! The engine chooses how to read a cluster: files only where they are those of the very server.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail loudly")]

use std::path::Path;
use std::sync::Mutex;

use everpoint_engine::{
    BackupBegin, BackupOptions, CheckState, Engine, EngineError, FileMeta, ImageSink, ImageWorker, Part,
    StopFlag,
};
use everpoint_pg::client::{PasswordSource, Secret};
use everpoint_pg::engine::{PgEngine, PgOptions};
use everpoint_testkit::{PgCluster, StopMode};

/// Remembers how the backup began and drops the files.
#[derive(Default)]
struct Method(Mutex<Option<&'static str>>);

struct Nowhere;

impl ImageSink for Method {
    fn begin(&self, begin: &BackupBegin) -> Result<(), EngineError> {
        *self.0.lock().unwrap() = Some(begin.method);
        Ok(())
    }

    fn worker(&self) -> Result<Box<dyn ImageWorker + '_>, EngineError> {
        Ok(Box::new(Nowhere))
    }
}

impl ImageWorker for Nowhere {
    fn part(&mut self, _file: &FileMeta, _part: Part<'_>) -> Result<(), EngineError> {
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), EngineError> {
        Ok(())
    }
}

fn engine(cluster: &PgCluster, user: &str, data_dir: &Path) -> PgEngine {
    let socket = cluster.socket_dir().display();
    let address = format!("host={socket} port={} user={user} dbname=postgres", cluster.port());
    PgEngine::new(PgOptions {
        address: Some(address),
        data_dir: Some(data_dir.to_owned()),
        ..PgOptions::default()
    })
    .unwrap()
}

/// How a backup reads, and how `check` finds the directory.
fn method(engine: &PgEngine) -> (&'static str, CheckState) {
    let sink = Method::default();
    let options = BackupOptions {
        label: "test".to_owned(),
        workers: 2,
        rate_limit: None,
        fast_checkpoint: true,
        leave_out: Vec::new(),
        stop: StopFlag::default(),
    };
    engine.backup(&options, &sink).unwrap();
    let lines = engine.check(None);
    let line = lines.iter().find(|line| line.name == "data_dir").unwrap();
    let method = sink.0.lock().unwrap().unwrap();
    (method, line.state)
}

fn choices(major: u32) {
    let mut primary = PgCluster::builder().major(major).start().unwrap();
    let mut standby = primary.standby().unwrap();
    let other = PgCluster::builder().major(major).start().unwrap();
    primary.psql("CREATE ROLE plain LOGIN REPLICATION").unwrap();
    let files = ("files", CheckState::Ok);
    let network = ("replication", CheckState::Warning);
    assert_eq!(method(&engine(&primary, "postgres", primary.data_dir())), files);
    assert_eq!(method(&engine(&primary, "postgres", other.data_dir())), network, "another cluster's");
    assert_eq!(method(&engine(&primary, "postgres", standby.data_dir())), network, "the standby's");
    assert_eq!(method(&engine(&primary, "postgres", Path::new("/nowhere"))), network, "not there");
    assert_eq!(method(&engine(&primary, "plain", primary.data_dir())), network, "a role that may not");
    // A standby is read by its own files, too.
    let by_standby = method(&engine(&standby, "postgres", standby.data_dir()));
    assert_eq!(by_standby, files);
    standby.stop(StopMode::Fast).unwrap();
    primary.stop(StopMode::Fast).unwrap();
}

#[test]
fn files_are_read_only_where_they_are_the_servers_own_13() {
    choices(13);
}

#[test]
fn files_are_read_only_where_they_are_the_servers_own_18() {
    choices(18);
}

#[test]
fn a_password_never_shows() {
    let options = PgOptions {
        address: Some("postgres://me:s3cret@db1/shop".to_owned()),
        password: Some(PasswordSource::new(|| Ok(Secret::new("hidden")))),
        ..PgOptions::default()
    };
    let engine = PgEngine::new(options).unwrap();
    let shown = format!("{engine:?} {}", engine.describe());
    assert!(!shown.contains("s3cret") && !shown.contains("hidden"), "{shown}");
    let options =
        PgOptions { address: Some("postgres://me:s3cret%zz@db1".to_owned()), ..PgOptions::default() };
    let error = PgEngine::new(options).unwrap_err();
    assert!(!format!("{error:?}").contains("s3cret"));
}

#[test]
fn without_an_address_only_directories_can_be_worked_on() {
    let engine = PgEngine::new(PgOptions::default()).unwrap();
    assert_eq!(engine.identify().unwrap_err().code, "pg.no_address");
    assert_eq!(engine.check(None).len(), 1);
    assert!(engine.history(b"1\t0/3000148\tno recovery target specified\n").unwrap().len() == 1);
}
