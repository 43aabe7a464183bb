//! Base backups over the replication protocol against real servers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod client_rig;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::thread;

use client_rig::{DirectoryImage, MemoryLog, VERSIONS, config, options, write_segments};
use everpoint_core::LogOffset;
use everpoint_engine::{BackupEnd, BackupOptions, CaptureOptions, EngineError, StopFlag, TablespaceLink};
use everpoint_pg::basebackup::base_backup;
use everpoint_pg::files::{Class, classify};
use everpoint_pg::replication::{CaptureSource, Replication, capture};
use everpoint_testkit::{Account, PgCluster, Scratch, StopMode};

const MIB: u64 = 1 << 20;

fn backup_options() -> BackupOptions {
    BackupOptions {
        label: "it's a test".into(),
        workers: 3,
        rate_limit: None,
        fast_checkpoint: true,
        leave_out: Vec::new(),
        stop: StopFlag::default(),
    }
}

fn back_up(cluster: &PgCluster, to: &Path) -> (DirectoryImage, BackupEnd) {
    let image = DirectoryImage::new(to);
    let end = base_backup(&config(cluster), None, &backup_options(), &image).unwrap();
    image.assert_whole();
    (image, end)
}

/// A cluster with a tablespace, an unlogged table, a large and an empty relation.
fn filled(major: u32) -> PgCluster {
    let cluster = PgCluster::builder()
        .major(major)
        .wal_segsize_mb(1)
        .settings([("autovacuum", "off"), ("max_wal_size", "64MB"), ("wal_keep_size", "64MB")])
        .start()
        .unwrap();
    let space = cluster.home().subdir("space").unwrap();
    cluster.psql(&format!("CREATE TABLESPACE s LOCATION '{}'", space.display())).unwrap();
    for sql in [
        "CREATE TABLE big AS SELECT i, md5(i::text) x FROM generate_series(1, 60000) i",
        "CREATE TABLE apart TABLESPACE s AS SELECT i FROM generate_series(1, 5000) i",
        "CREATE UNLOGGED TABLE fleeting AS SELECT i FROM generate_series(1, 5000) i",
        "CREATE TABLE nothing (i int)",
        "CREATE INDEX ON big (x)",
        "VACUUM big",
    ] {
        cluster.psql(sql).unwrap();
    }
    cluster
}

/// All files and directories below, by relative path; links are followed.
fn walk(root: &Path, below: &str, found: &mut BTreeMap<String, bool>) {
    for entry in fs::read_dir(root.join(below)).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        let is_directory = root.join(&path).is_dir();
        found.insert(path.clone(), is_directory);
        if is_directory {
            walk(root, &path, found);
        }
    }
}

/// What of a stopped server's directory an image must hold.
fn expected_files(cluster: &PgCluster) -> BTreeMap<String, bool> {
    let mut found = BTreeMap::new();
    walk(cluster.data_dir(), "", &mut found);
    let unlogged: Vec<String> =
        found.keys().filter_map(|path| path.strip_suffix("_init").map(str::to_owned)).collect();
    found.retain(|path, is_directory| {
        *is_directory
            || !matches!(classify(path), Class::Skip(_))
                && !unlogged.iter().any(|base| {
                    path == base || *path == format!("{base}_fsm") || *path == format!("{base}_vm")
                })
    });
    // The slot directories' and statistics' contents come and go with the server.
    found.retain(|path, _| !path.starts_with("pg_stat/"));
    found
}

#[test]
fn an_image_is_the_data_directory_byte_for_byte() {
    for major in VERSIONS {
        let mut cluster = filled(major);
        cluster.psql("CHECKPOINT").unwrap();
        let scratch = Scratch::new("image").unwrap();
        let root = scratch.path().join("image");
        let (image, end) = back_up(&cluster, &root);
        let begin = image.begin.lock().unwrap().clone().unwrap();
        assert!(begin.start < end.stop && begin.timeline == 1 && end.timeline == 1);
        assert!(begin.started_at <= end.stopped_at);
        assert_eq!((begin.page_size, begin.method), (8192, "replication"));
        assert!(begin.expected_bytes > 8 * MIB, "{major}: {}", begin.expected_bytes);
        let [space] = &begin.tablespaces[..] else { panic!("{:?}", begin.tablespaces) };
        assert_eq!(space.path.as_deref(), cluster.home().path().join("space").to_str());
        assert!(image.damaged.lock().unwrap().is_empty());
        let fact = |name: &str| end.facts.iter().find(|fact| fact.0 == name).map(|fact| fact.1.as_str());
        assert_eq!((fact("checksum_version"), fact("from_standby")), (Some("1"), Some("false")), "{major}");
        assert_eq!(
            (fact("wal_segment_size"), fact("wal_level")),
            (Some("1048576"), Some("replica")),
            "{major}"
        );
        assert!(fact("extension plpgsql").is_some(), "{major}: {:?}", end.facts);

        cluster.stop(StopMode::Fast).unwrap();
        let expected = expected_files(&cluster);
        let mut found = BTreeMap::new();
        walk(&root, "", &mut found);
        let label = fs::read_to_string(root.join("backup_label")).unwrap();
        assert!(label.contains("LABEL: it's a test"), "{label}");
        assert!(fs::read_to_string(root.join("tablespace_map")).unwrap().starts_with(&space.oid.to_string()));
        for made in ["backup_label", "tablespace_map"] {
            found.remove(made);
        }
        let names = |files: &BTreeMap<String, bool>| files.keys().cloned().collect::<Vec<_>>();
        let tablespace = format!("pg_tblspc/{}", space.oid);
        assert!(found.keys().filter(|path| path.starts_with(&tablespace)).count() >= 3, "{major}");
        assert_eq!(names(&found), names(&expected), "{major}");
        let mut compared = 0;
        for (path, is_directory) in &expected {
            // The shutdown wrote its checkpoint.
            if *is_directory || path == "global/pg_control" || path.starts_with("pg_logical/") {
                continue;
            }
            let same = fs::read(root.join(path)).unwrap() == fs::read(cluster.data_dir().join(path)).unwrap();
            assert!(same, "{major}: {path}");
            compared += 1;
        }
        assert!(compared > 800, "{major}: {compared}");
    }
}

/// Starts a server on an image and the log beside it.
fn start_copy(cluster: &PgCluster, scratch: Scratch, image: &DirectoryImage, log: &MemoryLog) -> PgCluster {
    let root = image.root.clone();
    let begin = image.begin.lock().unwrap().clone().unwrap();
    fs::remove_file(root.join("tablespace_map")).unwrap();
    for space in &begin.tablespaces {
        let link = root.join(format!("pg_tblspc/{}", space.oid));
        let place = scratch.path().join(format!("space-{}", space.oid));
        fs::rename(&link, &place).unwrap();
        symlink(&place, &link).unwrap();
    }
    write_segments(&log.kept().logs[&1], 1, MIB, &root.join("pg_wal"));
    let owner = Account::of_servers().unwrap();
    let files = Command::new("find").arg(scratch.path()).output().unwrap().stdout;
    for path in String::from_utf8(files).unwrap().lines() {
        owner.own(Path::new(path)).unwrap();
    }
    let mut copy = PgCluster::on_directory(cluster.install().clone(), scratch, root).unwrap();
    copy.start().unwrap();
    copy
}

#[test]
fn an_image_taken_under_load_starts_with_the_log_captured_beside_it() {
    for major in VERSIONS {
        let cluster = filled(major);
        let scratch = Scratch::new("copy").unwrap();
        let stop = StopFlag::default();
        let log = MemoryLog::default();
        let capturing = {
            let (config, sink, stop) = (config(&cluster), log.clone(), stop.clone());
            let options = CaptureOptions { stop, ..options("b", None) };
            thread::spawn(move || {
                let source = CaptureSource { config: &config, system: None };
                capture(source, &sink.from(), &options, &mut sink.clone())
            })
        };
        let writing = StopFlag::default();
        let writer = {
            let (mut session, writing) = (cluster.session().unwrap(), writing.clone());
            thread::spawn(move || {
                while !writing.is_set() {
                    session.query("UPDATE big SET x = md5(x) WHERE i % 10 = 0").unwrap();
                    session.query("INSERT INTO apart SELECT i FROM generate_series(1, 100) i").unwrap();
                }
            })
        };
        let (image, end) = back_up(&cluster, &scratch.path().join("data"));
        writing.stop();
        writer.join().unwrap();
        assert!(image.damaged.lock().unwrap().is_empty(), "{major}");
        let flushed = cluster.flushed().unwrap();
        while log.kept().now.unwrap().1 < flushed {
            thread::yield_now();
        }
        stop.stop();
        capturing.join().unwrap().unwrap();
        assert!(log.kept().logs[&1].from <= image.begin.lock().unwrap().as_ref().unwrap().start.0);
        assert!(end.stop.0 <= flushed);
        let facts = "SELECT count(*), sum(hashtext(x)), (SELECT count(*) FROM apart), (SELECT count(*) FROM nothing) FROM big";
        let expected = cluster.psql(facts).unwrap();
        let copy = start_copy(&cluster, scratch, &image, &log);
        assert_eq!(copy.psql(facts).unwrap(), expected, "{major}");
        assert_eq!(copy.psql("SELECT count(*) FROM fleeting").unwrap(), "0", "{major}: unlogged");
    }
}

#[test]
fn a_damaged_page_is_named_and_the_backup_goes_on() {
    for major in VERSIONS {
        let mut cluster = filled(major);
        let file = cluster.psql("SELECT pg_relation_filepath('big')").unwrap();
        let map = format!("{file}_fsm");
        cluster.stop(StopMode::Fast).unwrap();
        for (path, page) in [(&file, 7), (&map, 1)] {
            let broken = File::options().write(true).open(cluster.data_dir().join(path)).unwrap();
            broken.write_all_at(&[0xAA; 16], page * 8192 + 4096).unwrap();
        }
        cluster.start().unwrap();
        let scratch = Scratch::new("damaged").unwrap();
        let (image, _) = back_up(&cluster, &scratch.path().join("image"));
        assert_eq!(*image.damaged.lock().unwrap(), [(file, 7)], "{major}");
        let stored = fs::read(image.root.join(map)).unwrap();
        assert!(stored[8192..16384].iter().all(|byte| *byte == 0), "{major}: a map page is stored empty");
        // The server is left in good order.
        assert!(Replication::open(&config(&cluster)).unwrap().identify().is_ok());
    }
}

#[test]
fn a_page_from_the_future_is_damaged_and_one_being_written_is_not() {
    let mut cluster = filled(16);
    let file = cluster.psql("SELECT pg_relation_filepath('big')").unwrap();
    cluster.stop(StopMode::Fast).unwrap();
    let broken = File::options().write(true).open(cluster.data_dir().join(&file)).unwrap();
    // A page LSN beyond the end of the log: no record in it can heal the page.
    broken.write_all_at(&[0, 0, 0, 9, 0, 0, 0, 9], 3 * 8192).unwrap();
    cluster.start().unwrap();
    let scratch = Scratch::new("future").unwrap();
    let (image, _) = back_up(&cluster, &scratch.path().join("image"));
    assert_eq!(*image.damaged.lock().unwrap(), [(file, 3)]);
}

#[test]
fn a_standby_is_backed_up_too() {
    for major in [13, 18] {
        let primary = PgCluster::builder().major(major).start().unwrap();
        let standby = primary.standby().unwrap();
        let scratch = Scratch::new("from-standby").unwrap();
        let (_, end) = back_up(&standby, &scratch.path().join("image"));
        assert!(end.facts.contains(&("from_standby".into(), "true".into())), "{major}");
        assert!(end.stop > LogOffset(0));
    }
}

#[test]
fn a_role_with_replication_and_no_database_is_enough() {
    let cluster = PgCluster::builder()
        .major(17)
        .hba("host replication backup 127.0.0.1/32 scram-sha-256\nhost all backup 127.0.0.1/32 reject")
        .start()
        .unwrap();
    cluster.psql("CREATE ROLE backup LOGIN REPLICATION PASSWORD 'pässword'").unwrap();
    let url = format!("postgres://backup:p%C3%A4ssword@127.0.0.1:{}/postgres", cluster.port());
    let config = everpoint_pg::client::Config::parse(&url).unwrap();
    let scratch = Scratch::new("poor").unwrap();
    let image = DirectoryImage::new(&scratch.path().join("image"));
    base_backup(&config, None, &backup_options(), &image).unwrap();
    image.assert_whole();
    let sink = MemoryLog::default();
    let until = cluster.flushed().unwrap();
    let source = CaptureSource { config: &config, system: None };
    capture(source, &sink.from(), &options("poor", Some(until)), &mut sink.clone()).unwrap();
    let lines = everpoint_pg::catalog::check(&config, Some("poor"), everpoint_core::Micros(60_000_000));
    assert!(lines.iter().all(|line| line.state != everpoint_engine::CheckState::Error), "{lines:#?}");
}

#[test]
fn a_stop_is_heeded_and_leaves_no_backup_running() {
    let cluster = filled(15);
    let scratch = Scratch::new("stopped").unwrap();
    let image = DirectoryImage::new(&scratch.path().join("image"));
    let options = BackupOptions { rate_limit: Some(1 << 20), ..backup_options() };
    let stop = options.stop.clone();
    let stopper = thread::spawn(move || {
        thread::sleep(std::time::Duration::from_secs(1));
        stop.stop();
    });
    let error = base_backup(&config(&cluster), None, &options, &image).unwrap_err();
    stopper.join().unwrap();
    assert_eq!(error.code, "pg.stopped");
    let left = "SELECT count(*) FROM pg_stat_replication";
    for _ in 0..100 {
        if cluster.psql(left).unwrap() == "0" {
            return;
        }
        thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("a sender still runs");
}

#[test]
fn a_sink_that_fails_fails_the_backup_with_its_own_error() {
    struct Full(bool);
    struct FullWorker(u32, bool);
    impl everpoint_engine::ImageSink for Full {
        fn begin(&self, _: &everpoint_engine::BackupBegin) -> Result<(), EngineError> {
            Ok(())
        }
        fn worker(&self) -> Result<Box<dyn everpoint_engine::ImageWorker + '_>, EngineError> {
            Ok(Box::new(FullWorker(0, self.0)))
        }
    }
    impl everpoint_engine::ImageWorker for FullWorker {
        fn part(
            &mut self,
            _: &everpoint_engine::FileMeta,
            _: everpoint_engine::Part<'_>,
        ) -> Result<(), EngineError> {
            self.0 += 1;
            assert!(self.0 < 20 || !self.1, "as wanted");
            if self.0 < 50 {
                Ok(())
            } else {
                Err(EngineError::new("test.full", "store", "part", "disk full"))
            }
        }
        fn finish(self: Box<Self>) -> Result<(), EngineError> {
            Ok(())
        }
    }
    let cluster = filled(14);
    let error = base_backup(&config(&cluster), None, &backup_options(), &Full(false)).unwrap_err();
    assert_eq!(error.code, "test.full");
    // Nobody is left to take what the server sends.
    let error = base_backup(&config(&cluster), None, &backup_options(), &Full(true)).unwrap_err();
    assert_eq!(error.code, "pg.backup_stopped", "a worker that panics");
    let error = base_backup(&config(&cluster), Some(1), &backup_options(), &Full(false)).unwrap_err();
    assert_eq!(error.code, "pg.wrong_cluster");
}

#[test]
fn images_hold_the_servers_permissions() {
    let cluster = filled(18);
    let scratch = Scratch::new("modes").unwrap();
    let (image, _) = back_up(&cluster, &scratch.path().join("image"));
    for path in ["PG_VERSION", "base", "global/pg_control"] {
        let mode = |root: &Path| fs::metadata(root.join(path)).unwrap().permissions().mode();
        assert_eq!(mode(&image.root), mode(cluster.data_dir()), "{path}");
    }
}

#[test]
fn an_in_place_tablespace_is_a_directory() {
    for major in [13, 14, 15, 16, 18] {
        let cluster = PgCluster::builder().major(major).start().unwrap();
        let mut session = cluster.session().unwrap();
        session.query("SET allow_in_place_tablespaces = on").unwrap();
        session.query("CREATE TABLESPACE inside LOCATION ''").unwrap();
        session.query("CREATE TABLE t TABLESPACE inside AS SELECT 1 i").unwrap();
        let file = cluster.psql("SELECT pg_relation_filepath('t')").unwrap();
        let scratch = Scratch::new("in-place").unwrap();
        let (image, end) = back_up(&cluster, &scratch.path().join("image"));
        assert!(image.root.join(&file).is_file(), "{major}: {file}");
        let warned = end.facts.iter().find(|(name, _)| name.starts_with("server warning"));
        assert_eq!(warned, None, "{major}");
        let tablespaces = image.begin.lock().unwrap().clone().unwrap().tablespaces;
        let inside = |space: &TablespaceLink| space.path.is_none();
        assert!(tablespaces.len() == 1 && tablespaces.iter().all(inside), "{major}: {tablespaces:?}");
    }
}
