//! Sessions of our own against real servers: what ends them, what limits them, what stands between.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod client_rig;

use std::fs;
use std::path::Path;
use std::process::Child;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use client_rig::{VERSIONS, config};
use everpoint_engine::{
    BackupBegin, BackupOptions, CheckState, Engine, EngineError, FileMeta, ImageSink, ImageWorker, Part,
    StopFlag,
};
use everpoint_pg::catalog::SqlBackup;
use everpoint_pg::client::{Config, Purpose, connect};
use everpoint_pg::engine::{PgEngine, PgOptions};
use everpoint_pg::files::backup_files;
use everpoint_testkit::{Account, PgCluster, Port, Scratch, StopMode, server_tool};

/// Takes parts as slowly as a slow repository does.
struct Slow(Duration, Mutex<Vec<String>>);

impl Slow {
    fn new(millis: u64) -> Self {
        Self(Duration::from_millis(millis), Mutex::default())
    }
}

struct SlowWorker(Duration);

impl ImageSink for Slow {
    fn begin(&self, _begin: &BackupBegin) -> Result<(), EngineError> {
        Ok(())
    }

    fn worker(&self) -> Result<Box<dyn ImageWorker + '_>, EngineError> {
        Ok(Box::new(SlowWorker(self.0)))
    }

    fn warn(&self, text: &str) {
        self.1.lock().unwrap().push(text.to_owned());
    }
}

impl ImageWorker for SlowWorker {
    fn part(&mut self, _file: &FileMeta, _part: Part<'_>) -> Result<(), EngineError> {
        thread::sleep(self.0);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), EngineError> {
        Ok(())
    }
}

fn options(stop: &StopFlag) -> BackupOptions {
    BackupOptions {
        label: "test".to_owned(),
        workers: 1,
        rate_limit: None,
        fast_checkpoint: true,
        leave_out: Vec::new(),
        stop: stop.clone(),
    }
}

/// Runs a slow backup of a cluster's files, and `then` once it has begun; returns how it ended, and how long after.
fn broken(
    cluster: &mut PgCluster,
    stop: &StopFlag,
    then: impl FnOnce(&mut PgCluster),
) -> (EngineError, Duration) {
    let (config, data) = (config(cluster), cluster.data_dir().to_owned());
    thread::scope(|scope| {
        let backup = scope.spawn(|| {
            let mut session = SqlBackup::open(&config, stop).unwrap();
            backup_files(&data, &[], &mut session, &options(stop), &Slow::new(100))
        });
        thread::sleep(Duration::from_secs(2));
        assert!(!backup.is_finished());
        then(cluster);
        let since = Instant::now();
        let error = backup.join().unwrap().unwrap_err();
        (error, since.elapsed())
    })
}

const END_IT: &str =
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'everpoint'";

#[test]
fn a_backup_whose_session_is_gone_ends_at_once() {
    let mut cluster = PgCluster::builder().major(15).start().unwrap();
    let never = StopFlag::default();
    let (error, after) = broken(&mut cluster, &never, |cluster| drop(cluster.psql(END_IT).unwrap()));
    assert_eq!(error.code, "pg.backup_stopped", "{error}");
    assert!(error.retryable && error.to_string().contains("terminating connection"), "{error}");
    assert!(after < Duration::from_secs(3), "{after:?}");
    let (error, after) = broken(&mut cluster, &never, |cluster| cluster.kill9().unwrap());
    assert_eq!(error.code, "pg.backup_stopped", "{error}");
    assert!(after < Duration::from_secs(3), "{after:?}");
}

#[test]
fn a_backup_is_stopped_while_the_server_does_not_answer() {
    let mut cluster = PgCluster::builder().major(15).start().unwrap();
    let stop = StopFlag::default();
    // A server that hangs: the kernel keeps its connections, and nobody answers.
    let hung: Mutex<Vec<i32>> = Mutex::default();
    let signal = |pid: i32, signal: &str| {
        assert!(
            std::process::Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success()
        );
    };
    let (error, after) = broken(&mut cluster, &stop, |cluster| {
        let pid = "SELECT pid FROM pg_stat_activity WHERE application_name = 'everpoint'";
        let pid: i32 = cluster.psql(pid).unwrap().parse().unwrap();
        signal(pid, "-STOP");
        hung.lock().unwrap().push(pid);
        stop.stop();
    });
    hung.lock().unwrap().iter().for_each(|pid| signal(*pid, "-CONT"));
    assert!(matches!(error.code, "pg.stopped" | "pg.timeout"), "{error}");
    assert!(after < Duration::from_secs(8), "{after:?}");
    cluster.stop(StopMode::Immediate).unwrap();
}

/// All time limits that this version has.
fn limits(major: u32) -> Vec<&'static str> {
    let mut names = vec!["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"];
    names.extend((major >= 14).then_some("idle_session_timeout"));
    names.extend((major >= 17).then_some("transaction_timeout"));
    names
}

#[test]
fn time_limits_of_servers_databases_and_roles_do_not_hold_for_our_sessions() {
    for major in VERSIONS {
        let cluster = PgCluster::builder().major(major).start().unwrap();
        for (i, name) in limits(major).into_iter().enumerate() {
            cluster.psql(&format!("ALTER SYSTEM SET {name} = '500ms'")).unwrap();
            let whose = if i % 2 == 0 { "ROLE" } else { "DATABASE" };
            cluster.psql(&format!("ALTER {whose} postgres SET {name} = '400ms'")).unwrap();
        }
        cluster.psql("SELECT pg_reload_conf()").unwrap();
        thread::sleep(Duration::from_millis(300));
        let mut sessions: Vec<_> = [Purpose::Sql, Purpose::Replication]
            .map(|purpose| connect(&config(&cluster), purpose).unwrap())
            .into();
        for name in limits(major) {
            for session in &mut sessions {
                assert_eq!(session.show(name).unwrap(), "0", "{major} {name}");
            }
        }
        thread::sleep(Duration::from_millis(1200));
        sessions[1].query("IDENTIFY_SYSTEM").unwrap();
        sessions[0].query("SELECT pg_sleep(1)").unwrap();
    }
}

/// PgBouncer before a cluster.
struct Pooler {
    child: Child,
    port: Port,
    _home: Scratch,
}

impl Pooler {
    fn start(program: &Path, cluster: &PgCluster, mode: &str) -> Self {
        let (home, port) = (Scratch::new("pooler").unwrap(), Port::free().unwrap());
        fs::write(home.path().join("users"), "\"postgres\" \"\"\n").unwrap();
        let file = home.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\n\
             auth_type = trust\nauth_file = {}/users\npool_mode = {mode}\nunix_socket_dir =\ndefault_pool_size = 2\n",
            cluster.port(),
            port.number(),
            home.path().display()
        );
        fs::write(&file, text).unwrap();
        let account = Account::of_servers().unwrap();
        account.own(home.path()).unwrap();
        let said = fs::File::create(home.path().join("log")).unwrap();
        let child = account.command(program).arg("-q").arg(&file).stderr(said).spawn().unwrap();
        Self { child, port, _home: home }
    }

    fn address(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable", self.port.number())
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn a_pooler_is_named_refused_and_left_as_it_was() {
    let Some(program) = server_tool("bin/pgbouncer").unwrap() else { return };
    let cluster = PgCluster::builder().major(15).start().unwrap();
    for mode in ["session", "transaction", "statement"] {
        let pooler = Pooler::start(&program, &cluster, mode);
        let engine = PgEngine::new(PgOptions {
            address: Some(pooler.address()),
            data_dir: Some(cluster.data_dir().to_owned()),
            ..PgOptions::default()
        })
        .unwrap();
        let config = Config::parse(&pooler.address()).unwrap();
        let begun = Instant::now();
        while connect(&config, Purpose::Sql).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "no pooler");
            thread::sleep(Duration::from_millis(100));
        }
        let lines = engine.check(Some("slot"));
        let of =
            |name: &str| lines.iter().find(|line| line.name == name).unwrap_or_else(|| panic!("{lines:?}"));
        assert_eq!(of("pooler").state, CheckState::Error, "{mode}");
        assert!(of("connection").hint.as_ref().unwrap().contains("pooler"), "{mode}: {lines:?}");
        let refused = SqlBackup::open(&config, &StopFlag::default()).unwrap_err();
        assert_eq!(refused.code, "pg.pooler", "{mode}");
        let refused = engine.backup(&options(&StopFlag::default()), &Slow::new(0)).unwrap_err();
        assert_eq!((refused.code, refused.retryable), ("pg.pooler", false), "{mode}: {refused}");
        // The session of the server that we were lent goes on to somebody else.
        let mut next = connect(&config, Purpose::Sql).unwrap();
        let changed =
            "SELECT string_agg(name, ',') FROM pg_settings WHERE source = 'session' AND name LIKE '%timeout'";
        assert_eq!(next.query(changed).unwrap().single(), None, "{mode}");
        assert_eq!(next.show("statement_timeout").unwrap(), "0");
    }
    assert!(!cluster.log().contains("ERROR"), "{}", cluster.log());
}
