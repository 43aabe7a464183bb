//! Log that the server no longer has when capture comes back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod client_rig;

use std::thread::sleep;
use std::time::{Duration, Instant};

use client_rig::{MemoryLog, config, options};
use everpoint_engine::{CaptureOptions, EngineError};
use everpoint_pg::client::Config;
use everpoint_pg::replication::{CaptureSource, capture};
use everpoint_testkit::PgCluster;

const MIB: u64 = 1 << 20;

fn run(config: &Config, options: &CaptureOptions, sink: &MemoryLog) -> Result<(), EngineError> {
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

fn wait_for(what: &str, mut met: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !met() {
        assert!(Instant::now() < deadline, "{what} does not come");
        sleep(Duration::from_millis(50));
    }
}

#[test]
fn log_that_a_lost_slot_no_longer_holds_is_a_recorded_gap() {
    for major in [13, 14, 15, 18] {
        let cluster = PgCluster::builder()
            .major(major)
            .wal_segsize_mb(1)
            .settings([("max_slot_wal_keep_size", "2MB"), ("max_wal_size", "4MB"), ("min_wal_size", "2MB")])
            .start()
            .unwrap();
        with_table(&cluster);
        let config = config(&cluster);
        let sink = MemoryLog::default();
        let end = write(&cluster, 100);
        run(&config, &options("lose", Some(end)), &sink).unwrap();
        sink.compare(&cluster, MIB);
        let before = sink.kept().now.unwrap().1;
        write(&cluster, 60_000);
        cluster.psql("CHECKPOINT").unwrap();
        wait_for("the loss", || {
            cluster.psql("CHECKPOINT").unwrap();
            let state = cluster.psql("SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'lose'");
            state.unwrap() == "lost"
        });
        let refused = CaptureOptions { create_slot: false, ..options("lose", None) };
        let error = run(&config, &refused, &sink).unwrap_err();
        assert_eq!(error.code, "pg.slot_lost", "{major}: {error}");
        let end = write(&cluster, 100);
        run(&config, &options("lose", Some(end)), &sink).unwrap();
        let kept = sink.kept();
        let [(timeline, from, to)] = kept.gaps[..] else { panic!("{major}: {:?}", kept.gaps) };
        assert_eq!((timeline, from), (1, before), "{major}");
        assert!(to > before && to.is_multiple_of(MIB), "{major}");
        assert_eq!(kept.logs[&1].from, to);
        assert!(sink.compare(&cluster, MIB) > 0);
        let state = cluster.psql("SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'lose'");
        assert_eq!(state.unwrap(), "reserved", "{major}: the slot was made anew");
    }
}

#[test]
fn without_a_slot_of_its_own_a_loss_is_stepped_over_too() {
    let cluster = PgCluster::builder()
        .wal_segsize_mb(1)
        .settings([("max_wal_size", "4MB"), ("min_wal_size", "2MB")])
        .start()
        .unwrap();
    with_table(&cluster);
    let config = config(&cluster);
    let sink = MemoryLog::default();
    let slotless = |until| CaptureOptions { slot: None, create_slot: false, ..options("none", until) };
    let end = write(&cluster, 100);
    run(&config, &slotless(Some(end)), &sink).unwrap();
    let before = sink.kept().now.unwrap().1;
    let first = cluster.psql("SELECT pg_walfile_name(pg_current_wal_lsn())").unwrap();
    write(&cluster, 60_000);
    wait_for("the old segments are gone", || {
        cluster.psql("CHECKPOINT").unwrap();
        !cluster.data_dir().join("pg_wal").join(&first).exists()
    });
    let end = write(&cluster, 100);
    run(&config, &slotless(Some(end)), &sink).unwrap();
    let kept = sink.kept();
    let [(1, from, to)] = kept.gaps[..] else { panic!("{:?}", kept.gaps) };
    assert!(from == before && to > before);
    assert!(sink.compare(&cluster, MIB) > 0);
}
