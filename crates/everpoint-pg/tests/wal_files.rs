//! Backup by reading files, from real servers under load: what was read must become a server again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod wal_rig;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use everpoint_core::{LogOffset, Micros};
use everpoint_engine::{
    BackupBegin, BackupOptions, EngineError, FileKind, FileMeta, ImageSink, ImageWorker, Part, StopFlag,
};
use everpoint_pg::files::{BackupSession, SessionStart, SessionStop, backup_files, label_start};
use everpoint_pg::lsn::Lsn;
use wal_rig::{Server, programs, run};

/// One psql that lives as long as the backup.
struct PsqlSession {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    major: u32,
}

impl PsqlSession {
    fn new(server: &Server) -> Self {
        let mut child = server.psql("postgres").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, input, output, major: server.major }
    }

    fn ask(&mut self, sql: &str) -> String {
        writeln!(self.input, "{sql};\n\\echo ---").unwrap();
        let mut answer = String::new();
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "{sql}: {answer}");
            if line.trim() == "---" {
                return answer.trim_end().to_owned();
            }
            answer.push_str(&line);
        }
    }
}

impl Drop for PsqlSession {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl BackupSession for PsqlSession {
    fn start(&mut self, label: &str, fast: bool) -> Result<SessionStart, EngineError> {
        let call = if self.major >= 15 {
            format!("pg_backup_start('{label}', {fast})")
        } else {
            format!("pg_start_backup('{label}', {fast}, false)")
        };
        let position: Lsn = self.ask(&format!("select {call}")).parse().unwrap();
        Ok(SessionStart { position: position.into(), timeline: 1, started_at: Micros(0), expected_bytes: 0 })
    }

    fn stop(&mut self) -> Result<SessionStop, EngineError> {
        let call = if self.major >= 15 { "pg_backup_stop(false)" } else { "pg_stop_backup(false, false)" };
        let answer = self.ask(&format!(
            "select lsn || E'\\x01' || labelfile || E'\\x01' || coalesce(spcmapfile, '') from {call}"
        ));
        let parts: Vec<&str> = answer.split('\u{1}').collect();
        Ok(SessionStop {
            position: parts[0].parse::<Lsn>().unwrap().into(),
            timeline: 1,
            stopped_at: Micros(0),
            label_file: parts[1].to_owned(),
            tablespace_map: parts[2].to_owned(),
            facts: Vec::new(),
        })
    }
}

/// Keeps an image as a directory, and checks the order and the shape of the parts.
struct DirectorySink {
    root: PathBuf,
    begin: Mutex<Option<BackupBegin>>,
    /// Per file: next offset, whether the last part came.
    files: Mutex<BTreeMap<String, (u64, bool)>>,
    damaged: Mutex<Vec<(String, u32)>>,
}

impl DirectorySink {
    fn new(root: &Path) -> Self {
        fs::create_dir(root).unwrap();
        Self {
            root: root.to_owned(),
            begin: Mutex::default(),
            files: Mutex::default(),
            damaged: Mutex::default(),
        }
    }
}

struct DirectoryWorker<'a>(&'a DirectorySink);

impl ImageSink for DirectorySink {
    fn begin(&self, begin: &BackupBegin) -> Result<(), EngineError> {
        *self.begin.lock().unwrap() = Some(begin.clone());
        Ok(())
    }

    fn worker(&self) -> Result<Box<dyn ImageWorker + '_>, EngineError> {
        Ok(Box::new(DirectoryWorker(self)))
    }
}

impl ImageWorker for DirectoryWorker<'_> {
    fn part(&mut self, file: &FileMeta, part: Part<'_>) -> Result<(), EngineError> {
        let mut files = self.0.files.lock().unwrap();
        let (next, done) = files.entry(file.path.clone()).or_default();
        assert!(!*done && *next == part.offset, "{} {}", file.path, part.offset);
        assert!(part.last || part.data.len() == everpoint_engine::PART_BYTES);
        (*next, *done) = (part.offset + part.data.len() as u64, part.last);
        drop(files);
        let mut damaged = self.0.damaged.lock().unwrap();
        damaged.extend(part.damaged_pages.iter().map(|page| (file.path.clone(), *page)));
        drop(damaged);
        let path = self.0.root.join(&file.path);
        if file.kind == FileKind::Directory {
            fs::create_dir_all(&path).unwrap();
            return Ok(());
        }
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let target = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path).unwrap();
        target.write_all_at(part.data, part.offset).unwrap();
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), EngineError> {
        Ok(())
    }
}

fn options(workers: usize) -> BackupOptions {
    BackupOptions {
        label: "test".to_owned(),
        workers,
        rate_limit: None,
        fast_checkpoint: true,
        leave_out: Vec::new(),
        stop: StopFlag::default(),
    }
}

fn give_to_server(path: &Path) {
    if let Some((uid, gid)) = wal_rig::server_user() {
        chown(path, Some(uid), Some(gid)).unwrap();
    }
    if path.is_dir() && !path.is_symlink() {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
        for entry in fs::read_dir(path).unwrap() {
            give_to_server(&entry.unwrap().path());
        }
    }
}

fn bench(server: &Server, arguments: &[&str]) -> std::process::Command {
    let mut command = wal_rig::as_server_user(programs(18).join("pgbench"));
    command.args(arguments).args(["-U", "postgres", "-h"]).arg(&server.sockets);
    command.args(["-p", &server.port.to_string(), "postgres"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn backup_and_restore(major: u32) {
    // Recovery refuses to end with an in-place tablespace unless they are allowed.
    let mut server = Server::start(major, 16, true, &["allow_in_place_tablespaces=on"]);
    let space = server.sockets.join("space");
    run(wal_rig::as_server_user("mkdir").arg(&space));
    server.sql(&format!("create tablespace outside location '{}'", space.display()));
    // In one psql -c a tablespace can't be made together with something else.
    let mut in_place = server.psql("postgres");
    run(in_place
        .args(["-c", "set allow_in_place_tablespaces = on"])
        .args(["-c", "create tablespace inside location ''"]));
    run(&mut bench(&server, &["-iq", "-s", "3", "--unlogged-tables", "--tablespace=outside"]));
    server.sql("alter table pgbench_accounts set logged; alter table pgbench_tellers set logged");
    server.sql("alter table pgbench_branches set logged; alter table pgbench_history set logged");
    server.sql("create unlogged table unlogged as select generate_series(1, 5000) i");
    server.sql("create table kept tablespace inside as select generate_series(1, 5000) i");
    let unlogged_path = server.sql("select pg_relation_filepath('unlogged')");
    let load = bench(&server, &["-n", "-c", "3", "-T", "60"]).spawn().unwrap();
    let mut load = Killed(load);
    let mut churn = Killed(
        server
            .psql("postgres")
            .args(["-c", "set client_min_messages = error", "-c"])
            .arg("do $$ begin loop create table churn as select generate_series(1, 9000) i; create temp table temp as select 1 i; drop table churn, temp; commit; end loop; end $$")
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    std::thread::sleep(Duration::from_millis(700));

    let image = server.sockets.join("image");
    let sink = DirectorySink::new(&image);
    let mut session = PsqlSession::new(&server);
    let end = backup_files(&server.data, &[], &mut session, &options(3), &sink).unwrap();
    load.stop();
    churn.stop();
    let begin = sink.begin.lock().unwrap().clone().unwrap();
    assert!(begin.start < end.stop);
    assert!(sink.files.lock().unwrap().values().all(|(_, done)| *done));
    assert_eq!(*sink.damaged.lock().unwrap(), []);
    let label = fs::read_to_string(image.join("backup_label")).unwrap();
    assert_eq!(label_start(&label), Some(begin.start));
    assert!(!image.join(&unlogged_path).exists() && image.join(unlogged_path + "_init").exists());
    assert!(!image.join("postmaster.pid").exists());
    assert_eq!(fs::read_dir(image.join("pg_wal")).unwrap().count(), 0);

    // Becomes a server: links, log, replay to the end of the log, which the stopped server completes.
    server.stop();
    let moved = server.sockets.join("moved");
    let mut map = String::new();
    for link in &begin.tablespaces {
        let Some(path) = &link.path else { continue };
        assert_eq!(Path::new(path), space);
        let inside = image.join(format!("pg_tblspc/{}", link.oid));
        fs::rename(&inside, &moved).unwrap();
        symlink(&moved, &inside).unwrap();
        map.push_str(&format!("{} {}\n", link.oid, moved.display()));
    }
    assert_eq!(begin.tablespaces.len(), 2);
    fs::write(image.join("tablespace_map"), map).unwrap();
    for (name, bytes) in server.segments() {
        fs::write(image.join("pg_wal").join(name), bytes).unwrap();
    }
    give_to_server(&image);
    give_to_server(&moved);
    let rows = "select (select sum(abalance) from pgbench_accounts) || ' ' || (select sum(tbalance) from pgbench_tellers) || ' ' || (select count(*) from pgbench_history) || ' ' || (select count(*) from kept)";
    let original = std::mem::replace(&mut server.data, image);
    server.run();
    let restored = server.sql(rows);
    assert_eq!(server.sql("select count(*) from unlogged"), "0");
    server.stop();
    server.data = original;
    server.run();
    assert_eq!(server.sql(rows), restored);
    assert!(!restored.starts_with("0 "), "{restored}");
}

struct Killed(Child);

impl Killed {
    fn stop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        self.stop();
    }
}

#[test]
fn a_backup_of_13_becomes_a_server_again() {
    backup_and_restore(13);
}

#[test]
fn a_backup_of_14_becomes_a_server_again() {
    backup_and_restore(14);
}

#[test]
fn a_backup_of_15_becomes_a_server_again() {
    backup_and_restore(15);
}

#[test]
fn a_backup_of_18_becomes_a_server_again() {
    backup_and_restore(18);
}

#[test]
fn damaged_pages_are_told_and_maps_are_emptied() {
    let server = Server::start(17, 16, true, &[]);
    server.sql("create table t as select i, repeat('x', 500) v from generate_series(1, 50000) i");
    server.sql("vacuum t");
    server.sql("checkpoint");
    let path = server.sql("select pg_relation_filepath('t')");
    let flip = |path: &str, at: u64| {
        let file = fs::OpenOptions::new().read(true).write(true).open(server.data.join(path)).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 4], at).unwrap();
    };
    flip(&path, 200 * 8192 + 4000);
    flip(&path, 3 * 8192 + 100);
    let map = format!("{path}_fsm");
    flip(&map, 8192 + 100);
    let image = server.sockets.join("image");
    let sink = DirectorySink::new(&image);
    let mut session = PsqlSession::new(&server);
    backup_files(&server.data, &[], &mut session, &options(2), &sink).unwrap();
    assert_eq!(*sink.damaged.lock().unwrap(), [(path.clone(), 3), (path, 200)]);
    assert!(fs::read(image.join(map)).unwrap()[8192..16384].iter().all(|byte| *byte == 0));
}

#[test]
fn a_sink_that_fails_ends_the_backup_with_its_error() {
    struct Failing;
    struct FailingWorker(u32);
    impl ImageSink for Failing {
        fn begin(&self, _: &BackupBegin) -> Result<(), EngineError> {
            Ok(())
        }
        fn worker(&self) -> Result<Box<dyn ImageWorker + '_>, EngineError> {
            Ok(Box::new(FailingWorker(0)))
        }
    }
    impl ImageWorker for FailingWorker {
        fn part(&mut self, file: &FileMeta, _: Part<'_>) -> Result<(), EngineError> {
            self.0 += 1;
            if self.0 == 20 {
                return Err(EngineError::new("test.full", "store", file.path.clone(), "full"));
            }
            Ok(())
        }
        fn finish(self: Box<Self>) -> Result<(), EngineError> {
            Ok(())
        }
    }
    let server = Server::start(16, 16, false, &[]);
    let mut session = PsqlSession::new(&server);
    let error = backup_files(&server.data, &[], &mut session, &options(2), &Failing).unwrap_err();
    assert_eq!(error.code, "test.full");
    // The session's backup has ended: another one may begin in it.
    assert!(session.start("again", true).unwrap().position > LogOffset(0));
    let stopping = options(2);
    stopping.stop.stop();
    session.stop().unwrap();
    let error = backup_files(&server.data, &[], &mut session, &stopping, &Failing).unwrap_err();
    assert_eq!(error.code, "pg.stopped");
}

/// Every worker panics at its tenth part: nobody is left to empty the queue of files.
#[test]
fn a_sink_that_panics_ends_the_backup() {
    struct Panicking;
    struct PanickingWorker(u32);
    impl ImageSink for Panicking {
        fn begin(&self, _: &BackupBegin) -> Result<(), EngineError> {
            Ok(())
        }
        fn worker(&self) -> Result<Box<dyn ImageWorker + '_>, EngineError> {
            Ok(Box::new(PanickingWorker(0)))
        }
    }
    impl ImageWorker for PanickingWorker {
        fn part(&mut self, _: &FileMeta, _: Part<'_>) -> Result<(), EngineError> {
            self.0 += 1;
            assert!(self.0 < 10, "as wanted");
            Ok(())
        }
        fn finish(self: Box<Self>) -> Result<(), EngineError> {
            Ok(())
        }
    }
    let server = Server::start(16, 16, false, &[]);
    let mut session = PsqlSession::new(&server);
    let error = backup_files(&server.data, &[], &mut session, &options(2), &Panicking).unwrap_err();
    assert_eq!(error.code, "pg.files");
}
