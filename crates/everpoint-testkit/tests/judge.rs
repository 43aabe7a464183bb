//! The judge is judged by PostgreSQL itself: its own recovery to a moment must be found exact, anything else must not.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // helpers of tests, as in tests themselves

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use everpoint_testkit::{
    Account, History, Judge, PgCluster, Random, Record, Scratch, StopMode, WriterOptions, Writers, parse_lsn,
    print_time,
};

fn options(seed: u64) -> WriterOptions {
    WriterOptions { seed, sessions: 6, prepared: true, ..WriterOptions::default() }
}

fn builder(major: u32) -> everpoint_testkit::PgClusterBuilder {
    PgCluster::builder().major(major).wal_segsize_mb(1).settings([
        ("max_prepared_transactions", "20"),
        ("wal_keep_size", "4GB"),
        ("checkpoint_timeout", "30s"),
    ])
}

fn log_start(cluster: &PgCluster) -> u64 {
    let lsn = cluster.psql("SELECT redo_lsn FROM pg_control_checkpoint()").unwrap();
    parse_lsn(&lsn).unwrap()
}

fn write_for(cluster: &PgCluster, seed: u64, time: Duration) -> Record {
    let writers = Writers::start(cluster.address(), &options(seed)).unwrap();
    sleep(time);
    let record = writers.stop();
    assert!(record.refusals.is_empty(), "{:?}", record.refusals);
    assert!(record.acknowledged().count() > 20, "too little was written");
    record
}

#[test]
fn the_source_itself_is_what_its_log_says_also_after_crashes() {
    for major in [13, 16] {
        let mut cluster = builder(major).start().unwrap();
        Writers::prepare(&mut cluster.session().unwrap()).unwrap();
        let start = log_start(&cluster);
        let writers = Writers::start(cluster.address(), &options(7)).unwrap();
        for _ in 0..3 {
            sleep(Duration::from_millis(700));
            cluster.kill9().unwrap();
            cluster.start().unwrap();
        }
        sleep(Duration::from_millis(700));
        let record = writers.stop();
        assert!(record.losses > 0, "no writer noticed that the server was killed");
        let until = cluster.flushed().unwrap();
        let wal = cluster.data_dir().join("pg_wal");
        let history = History::read(cluster.install(), &wal, 1, start, until).unwrap();
        let judge = Judge::new(&record, history).unwrap();
        let expected = judge.expect(judge.history().ends());
        assert!(expected.transactions > 50, "{}", expected.transactions);
        let mut session = cluster.session().unwrap();
        let verdict = expected.compare(&mut session).unwrap();
        assert!(verdict.is_exact(), "PostgreSQL {major}: {verdict:#?}");

        // A judge that finds nothing when something is wrong is worth nothing.
        session.query("UPDATE account SET balance = balance + 1 WHERE id = 3").unwrap();
        session.query("DELETE FROM ledger WHERE id = (SELECT max(id) FROM ledger)").unwrap();
        let verdict = expected.compare(&mut session).unwrap();
        assert_eq!(verdict.count, 2, "{verdict:#?}");
        let before = judge.expect(judge.history().ends().split_last().unwrap().1);
        assert!(!before.compare(&mut session).unwrap().is_exact());
    }
}

#[test]
fn the_small_reader_agrees_with_pg_waldump() {
    let cluster = builder(14).start().unwrap();
    Writers::prepare(&mut cluster.session().unwrap()).unwrap();
    let start = log_start(&cluster);
    // A switch of segments, and a record longer than a page, lie on the way.
    cluster.psql("SELECT pg_switch_wal()").unwrap();
    cluster.psql("SELECT pg_logical_emit_message(true, 'long', repeat('x', 3000000))").unwrap();
    let record = write_for(&cluster, 11, Duration::from_secs(2));
    let until = cluster.flushed().unwrap();
    let wal = cluster.data_dir().join("pg_wal");
    let by_waldump = History::read(cluster.install(), &wal, 1, start, until).unwrap();
    let without = everpoint_testkit::PgInstall::find(13).unwrap();
    assert!(without.tool("pg_waldump").is_err(), "13 has pg_waldump: its reader is not needed any more");
    let by_reader = History::read(&without, &wal, 1, start, until).unwrap();
    assert_eq!(by_waldump.ends(), by_reader.ends());
    let aborted = by_waldump.ends().iter().filter(|end| !end.committed).count();
    assert!(aborted > 3 && by_waldump.ends().len() > record.acknowledged().count());

    // A timeline may begin with a segment: its first record is behind the header.
    let segment = 1 << 20;
    let begun =
        parse_lsn(&cluster.psql("SELECT pg_switch_wal() + 1").unwrap()).unwrap().next_multiple_of(segment);
    cluster.psql("SELECT pg_logical_emit_message(true, 'long', repeat('x', 3000000))").unwrap();
    let until = cluster.flushed().unwrap();
    let whole = History::read(&without, &wal, 1, begun, until).unwrap();
    assert_eq!(whole.ends(), History::read(cluster.install(), &wal, 1, begun, until).unwrap().ends());
    // The log writer flushes whole pages: what is flushed may end within a record.
    let within = begun + segment;
    let name = format!("{:08X}{:08X}{:08X}", 1, 0, within / segment);
    std::fs::remove_file(wal.join(name)).unwrap();
    assert!(History::read(&without, &wal, 1, begun, within).unwrap().ends().is_empty());
    assert!(History::read(&without, &wal, 1, begun, until).is_err());
}

#[test]
fn a_recovery_by_postgresql_is_exact() {
    for major in [13, 17] {
        let mut source = builder(major).start().unwrap();
        Writers::prepare(&mut source.session().unwrap()).unwrap();
        let start = log_start(&source);
        let home = Scratch::new("recovered").unwrap();
        let base = home.path().join("base");
        let copy = Account::of_servers()
            .unwrap()
            .command(source.install().client_tool("pg_basebackup").unwrap())
            .args(["-U", "postgres", "-c", "fast", "-X", "fetch", "-h"])
            .arg(source.socket_dir())
            .args(["-p", &source.port().to_string(), "-D"])
            .arg(&base)
            .status()
            .unwrap();
        assert!(copy.success());
        let record = write_for(&source, 23, Duration::from_secs(3));
        source.psql("SELECT pg_switch_wal()").unwrap();
        let until = source.flushed().unwrap();
        let wal = source.data_dir().join("pg_wal");
        let history = History::read(source.install(), &wal, 1, start, until).unwrap();
        let judge = Judge::new(&record, history).unwrap();
        source.stop(StopMode::Fast).unwrap();

        let times: Vec<i64> = record.acknowledged().map(|(done, _)| done.sent).collect();
        let (first, last) = (*times.first().unwrap(), *times.last().unwrap());
        let mut random = Random::new(5);
        let exactly = judge.history().ends()[judge.history().ends().len() / 2].time;
        for moment in [random.between(first, last), random.between(first, last), exactly, exactly - 1] {
            let expected = judge.at_time(moment);
            let recovered = recover(&source, &base, &wal, moment);
            let verdict = expected.compare(&mut recovered.session().unwrap()).unwrap();
            assert!(verdict.is_exact(), "PostgreSQL {major} at {}: {verdict:#?}", print_time(moment));
        }
    }
}

fn recover(source: &PgCluster, base: &Path, wal: &Path, moment: i64) -> PgCluster {
    let home = Scratch::new("recovering").unwrap();
    let data = home.path().join("data");
    let copied = std::process::Command::new("cp").arg("-a").arg(base).arg(&data).status().unwrap();
    assert!(copied.success());
    let settings = format!(
        "restore_command = 'cp {}/%f %p'\nrecovery_target_time = '{}'\nrecovery_target_action = promote\n",
        wal.display(),
        print_time(moment)
    );
    std::fs::write(data.join("postgresql.auto.conf"), settings).unwrap();
    std::fs::write(data.join("recovery.signal"), "").unwrap();
    Account::of_servers().unwrap().own(&data).unwrap();
    let mut recovered = PgCluster::on_directory(source.install().clone(), home, data).unwrap();
    recovered.start().unwrap();
    for _ in 0..600 {
        if recovered.psql("SELECT pg_is_in_recovery()").unwrap() == "f" {
            return recovered;
        }
        sleep(Duration::from_millis(20));
    }
    panic!("it stays in recovery: {}", recovered.log());
}
