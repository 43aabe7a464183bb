//! Capture by physical replication against real servers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod client_rig;

use std::fs;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use client_rig::{MemoryLog, VERSIONS, config, options};
use everpoint_core::{LogOffset, Micros};
use everpoint_engine::{CaptureFrom, CaptureOptions, EngineError, LogSink};
use everpoint_pg::client::Config;
use everpoint_pg::history::History;
use everpoint_pg::replication::{CaptureSource, Replication, capture, drop_slot};
use everpoint_testkit::{PgCluster, StopMode};

const MIB: u64 = 1 << 20;

fn run(
    config: &Config,
    options: &CaptureOptions,
    sink: &MemoryLog,
) -> Result<(), everpoint_engine::EngineError> {
    let source = CaptureSource { config, system: None };
    capture(source, &sink.from(), options, &mut sink.clone())
}

fn write(cluster: &PgCluster, rows: u32) -> u64 {
    cluster
        .psql(&format!("INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(1, {rows}) i"))
        .unwrap();
    cluster.flushed().unwrap()
}

fn with_table(cluster: &PgCluster) {
    cluster.psql("CREATE TABLE t (i int, x text)").unwrap();
}

#[test]
fn a_slot_is_followed_over_restarts_of_the_server() {
    for major in VERSIONS {
        let mut cluster = PgCluster::builder().major(major).wal_segsize_mb(1).start().unwrap();
        with_table(&cluster);
        let config = config(&cluster);
        let sink = MemoryLog::default();
        let end = write(&cluster, 5000);
        run(&config, &options("keep", Some(end)), &sink).unwrap();
        cluster.restart(StopMode::Immediate).unwrap();
        let end = write(&cluster, 5000);
        run(&config, &options("keep", Some(end)), &sink).unwrap();
        assert!(sink.kept().now.unwrap().1 >= end);
        let compared = sink.compare(&cluster, MIB);
        assert!(compared > 4 * MIB, "{major}: only {compared} bytes compared");
        assert_eq!(sink.kept().gaps, [], "{major}");
        // The server learned how far we are, and nothing more than that.
        let restart =
            cluster.psql("SELECT restart_lsn - '0/0' FROM pg_replication_slots WHERE slot_name = 'keep'");
        assert_eq!(restart.unwrap(), sink.kept().now.unwrap().1.to_string(), "{major}");
        drop_slot(&config, "keep").unwrap();
        drop_slot(&config, "keep").unwrap();
        assert_eq!(cluster.psql("SELECT count(*) FROM pg_replication_slots").unwrap(), "0");
    }
}

#[test]
fn a_server_that_stops_is_a_retryable_error() {
    let mut cluster = PgCluster::builder().start().unwrap();
    let config = config(&cluster);
    let sink = MemoryLog::default();
    let running = {
        let (config, sink) = (config.clone(), sink.clone());
        thread::spawn(move || run(&config, &options("keep", None), &sink))
    };
    sleep(Duration::from_millis(500));
    cluster.stop(StopMode::Fast).unwrap();
    let error = running.join().unwrap().unwrap_err();
    assert!(error.retryable, "{error}");
    // A clean stop waits until everything has been sent: the shutdown checkpoint is there.
    cluster.start().unwrap();
    let checkpoint = cluster.psql("SELECT checkpoint_lsn - '0/0' FROM pg_control_checkpoint()").unwrap();
    assert!(sink.kept().now.unwrap().1 > checkpoint.parse::<u64>().unwrap());
}

#[test]
fn a_promoted_standby_is_followed_onto_its_new_timeline() {
    for major in [13, 15, 18] {
        let primary = PgCluster::builder().major(major).wal_segsize_mb(1).start().unwrap();
        with_table(&primary);
        write(&primary, 3000);
        let standby = primary.standby().unwrap();
        let stop = options("follow", None).stop;
        let sink = MemoryLog::default();
        let running = {
            let (config, sink, stop) = (config(&standby), sink.clone(), stop.clone());
            thread::spawn(move || run(&config, &CaptureOptions { stop, ..options("follow", None) }, &sink))
        };
        write(&primary, 3000);
        sleep(Duration::from_millis(500));
        drop(primary);
        standby.promote().unwrap();
        let end = write(&standby, 3000);
        wait_for("the new timeline", || sink.kept().now.is_some_and(|now| now.0 == 2 && now.1 >= end));
        stop.stop();
        running.join().unwrap().unwrap();
        let kept = sink.kept();
        let history = History::parse(2, &kept.logs[&2].history).unwrap();
        assert_eq!(history.fork(), Some((1, LogOffset(kept.logs[&1].end.unwrap()))), "{major}");
        assert_eq!(kept.logs[&2].from, kept.logs[&1].end.unwrap() / MIB * MIB);
        assert!(sink.compare(&standby, MIB) > 2 * MIB);
        // While it was a standby, nothing was promised.
        assert!(kept.covered.iter().all(|(to, _)| *to >= kept.logs[&2].from), "{major}");
    }
}

#[test]
fn after_a_failover_that_lost_the_tail_the_old_branch_is_kept() {
    let primary = PgCluster::builder().major(17).wal_segsize_mb(1).start().unwrap();
    with_table(&primary);
    let mut standby = primary.standby().unwrap();
    write(&primary, 1000);
    standby.stop(StopMode::Fast).unwrap();
    let end = write(&primary, 4000);
    let sink = MemoryLog::default();
    run(&config(&primary), &options("a", Some(end)), &sink).unwrap();
    let held = sink.kept().now.unwrap().1;
    drop(primary);
    standby.start().unwrap();
    // Alone, a standby that is behind us is no divergence.
    let error = run(&config(&standby), &options("a", Some(end)), &sink).unwrap_err();
    assert_eq!((error.code, error.retryable), ("pg.behind", true), "{error}");
    standby.promote().unwrap();
    let end = write(&standby, 6000);
    run(&config(&standby), &options("a", Some(end)), &sink).unwrap();
    let kept = sink.kept();
    assert_eq!(kept.logs[&1].end, Some(held), "closed where it stood");
    assert!(kept.logs[&2].from < held && kept.logs[&2].end() >= end);
    assert_eq!(kept.gaps, []);
}

#[test]
fn another_cluster_and_a_rewound_one_are_refused() {
    let mut cluster = PgCluster::builder().wal_segsize_mb(1).start().unwrap();
    with_table(&cluster);
    let config = config(&cluster);
    let source = CaptureSource { config: &config, system: Some(1) };
    let mut sink = MemoryLog::default();
    let error =
        capture(source, &CaptureFrom { at: None, anew: false }, &options("w", None), &mut sink).unwrap_err();
    assert_eq!(error.code, "pg.wrong_cluster");

    cluster.stop(StopMode::Fast).unwrap();
    let copy = cluster.home().path().join("copy");
    let copied =
        std::process::Command::new("cp").arg("-a").args([cluster.data_dir(), &copy]).status().unwrap();
    assert!(copied.success());
    cluster.start().unwrap();
    let end = write(&cluster, 3000);
    run(&config, &options("w", Some(end)), &sink).unwrap();
    let held = sink.kept();
    cluster.stop(StopMode::Fast).unwrap();
    fs::remove_dir_all(cluster.data_dir()).unwrap();
    fs::rename(&copy, cluster.data_dir()).unwrap();
    cluster.start().unwrap();
    let error = run(&config, &options("w", None), &sink).unwrap_err();
    assert_eq!((error.code, error.retryable), ("pg.diverged", false), "{error}");
    assert_eq!(sink.kept().logs[&1].bytes.len(), held.logs[&1].bytes.len(), "nothing was changed");
}

#[test]
fn a_slot_that_may_not_be_made_is_missed() {
    let cluster = PgCluster::builder().start().unwrap();
    let options = CaptureOptions { create_slot: false, ..options("none", None) };
    let error = run(&config(&cluster), &options, &MemoryLog::default()).unwrap_err();
    // Before 15 only an ordinary connection can tell; here there is one.
    assert_eq!(error.code, "pg.slot_missing", "{error}");
    assert!(error.hint.unwrap().contains("pg_create_physical_replication_slot"));
}

#[test]
fn an_idle_server_keeps_promising_and_a_busy_one_too() {
    for major in [13, 18] {
        let cluster = PgCluster::builder()
            .major(major)
            .settings([("autovacuum", "off"), ("bgwriter_lru_maxpages", "0"), ("checkpoint_timeout", "1h")])
            .start()
            .unwrap();
        with_table(&cluster);
        let stop = options("c", None).stop;
        let sink = MemoryLog::default();
        let running = {
            let (config, sink, stop) = (config(&cluster), sink.clone(), stop.clone());
            thread::spawn(move || run(&config, &CaptureOptions { stop, ..options("c", None) }, &sink))
        };
        let now = || -> i64 {
            let clock = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
            cluster.psql(clock).unwrap().parse().unwrap()
        };
        // Idle.
        let moment = now();
        wait_for("coverage while idle", || {
            sink.kept().covered.last().is_some_and(|(_, until)| *until > moment)
        });
        // Busy: a commit that is durable at a moment lies within what is covered until then.
        for _ in 0..20 {
            let position = write(&cluster, 500);
            let moment = now();
            sleep(Duration::from_millis(50));
            for (to, until) in sink.kept().covered {
                assert!(until < moment || to >= position, "{major}: covered until {until} at {to:X}");
            }
        }
        let (position, moment) = (cluster.flushed().unwrap(), now());
        wait_for("coverage after the load", || {
            sink.kept().covered.last().is_some_and(|(to, until)| *until > moment && *to >= position)
        });
        stop.stop();
        running.join().unwrap().unwrap();
    }
}

#[test]
fn the_servers_clock_and_identity_come_over_replication_alone() {
    for major in VERSIONS {
        let cluster = PgCluster::builder().major(major).wal_segsize_mb(4).start().unwrap();
        let mut replication = Replication::open(&config(&cluster)).unwrap();
        let identity = replication.identify().unwrap();
        assert_eq!(identity.system, cluster.system_identifier().unwrap());
        assert_eq!((identity.version / 10_000, identity.segment_size), (major, 4 * MIB));
        assert!(!identity.in_recovery);
        let time = replication.server_time().unwrap();
        let epoch = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
        let expected: i64 = cluster.psql(epoch).unwrap().parse().unwrap();
        assert!((expected - time.0).abs() < 5_000_000, "{major}");
        // The connection serves on.
        assert_eq!(replication.identify().unwrap().timeline, 1);
    }
}

fn wait_for(what: &str, mut met: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !met() {
        assert!(Instant::now() < deadline, "{what} does not come");
        sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_server_that_falls_silent_is_noticed() {
    let cluster = PgCluster::builder().start().unwrap();
    let (config, sink) = (config(&cluster), MemoryLog::default());
    let running = {
        let (config, sink) = (config, sink.clone());
        thread::spawn(move || run(&config, &options("silent", None), &sink))
    };
    wait_for("the stream", || cluster.psql("SELECT count(*) FROM pg_stat_replication").unwrap() == "1");
    let pid = cluster.psql("SELECT pid FROM pg_stat_replication").unwrap();
    let signal = |name: &str| {
        assert!(std::process::Command::new("kill").args([name, &pid]).status().unwrap().success());
    };
    signal("-STOP");
    let error = running.join().unwrap().unwrap_err();
    signal("-CONT");
    assert_eq!((error.code, error.retryable), ("pg.timeout", true), "{error}");
}

/// Takes everything, but says that nothing beyond a position is durable.
struct Slow {
    inner: MemoryLog,
    durable: LogOffset,
}

impl LogSink for Slow {
    fn stands(&mut self, timeline: u32, history: &[u8]) -> Result<Option<LogOffset>, EngineError> {
        self.inner.stands(timeline, history)
    }
    fn timeline(&mut self, timeline: u32, history: &[u8], from: LogOffset) -> Result<(), EngineError> {
        self.inner.timeline(timeline, history, from)
    }
    fn write(&mut self, from: LogOffset, bytes: &[u8]) -> Result<(), EngineError> {
        self.inner.write(from, bytes)
    }
    fn covered(&mut self, to: LogOffset, until: Micros) -> Result<(), EngineError> {
        self.inner.covered(to, until)
    }
    fn tick(&mut self) -> Result<LogOffset, EngineError> {
        self.inner.tick().map(|held| held.min(self.durable))
    }
    fn timeline_end(&mut self, at: LogOffset) -> Result<(), EngineError> {
        self.inner.timeline_end(at)
    }
    fn gap(
        &mut self,
        timeline: u32,
        from: LogOffset,
        to: LogOffset,
        reason: &str,
    ) -> Result<(), EngineError> {
        self.inner.gap(timeline, from, to, reason)
    }
}

#[test]
fn only_what_is_durable_is_acknowledged_and_lets_commits_return() {
    let cluster = PgCluster::builder()
        .major(17)
        .setting("synchronous_standby_names", "everpoint")
        .setting("synchronous_commit", "local")
        .start()
        .unwrap();
    with_table(&cluster);
    let durable = LogOffset(write(&cluster, 100));
    let inner = MemoryLog::default();
    let stop = options("ack", None).stop;
    let running = {
        let (config, inner, stop) = (config(&cluster), inner.clone(), stop.clone());
        thread::spawn(move || {
            let options = CaptureOptions { stop, ..options("ack", None) };
            let source = CaptureSource { config: &config, system: None };
            capture(source, &CaptureFrom { at: None, anew: false }, &options, &mut Slow { inner, durable })
        })
    };
    wait_for("the first acknowledgement", || {
        cluster.psql("SELECT flush_lsn - '0/0' FROM pg_stat_replication").unwrap() == durable.0.to_string()
    });
    let end = write(&cluster, 100);
    wait_for("the data", || inner.kept().now.is_some_and(|now| now.1 >= end));
    sleep(Duration::from_millis(700));
    let seen = "SELECT write_lsn - '0/0', flush_lsn - '0/0', replay_lsn IS NULL FROM pg_stat_replication";
    assert_eq!(cluster.psql(seen).unwrap(), format!("{0}|{0}|t", durable.0));
    let slot = cluster.psql("SELECT restart_lsn - '0/0' FROM pg_replication_slots").unwrap();
    assert_eq!(slot, durable.0.to_string());
    for level in ["remote_write", "on"] {
        let mut session = cluster.session().unwrap();
        session.query(&format!("SET synchronous_commit = {level}")).unwrap();
        let committing = thread::spawn(move || session.query("INSERT INTO t VALUES (1)").unwrap());
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        wait_for("the wait for us", || cluster.psql(waiting).unwrap() == "1");
        sleep(Duration::from_millis(300));
        assert!(!committing.is_finished(), "{level} did not wait");
        // Cancelled while it waits, a commit returns with a warning.
        let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        assert_eq!(cluster.psql(cancel).unwrap(), "t");
        committing.join().unwrap();
    }
    stop.stop();
    running.join().unwrap().unwrap();
}
