//! Streaming and `archive_command` on real servers: what is stored is, byte for byte, what the servers wrote.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail loudly"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use everpoint_core::{LogEvent, LogOffset, Verdict};
use everpoint_format::keyslot::KeyText;
use everpoint_repo::{LogStore, Repository};
use everpoint_store::LocalStore;
use everpoint_testkit::{Everpoint, PgCluster, StopMode};

/// Bytes of a segment: the smallest that servers can have, so that a test writes many.
const SEGMENT: u64 = 1 << 20;
/// A commit must be in the repository within this time. Servers, program and judge share two cores here.
const SOON: Duration = Duration::from_secs(2);

fn server(major: u32) -> PgCluster {
    PgCluster::builder()
        .major(major)
        .wal_segsize_mb(1)
        .settings([("archive_mode", "on"), ("wal_keep_size", "512MB"), ("max_wal_size", "1GB")])
        .start()
        .unwrap()
}

fn everpoint(cluster: &PgCluster) -> Everpoint {
    let everpoint = Everpoint::new(Path::new(env!("CARGO_BIN_EXE_everpoint")), &[("db", cluster)]).unwrap();
    everpoint.run(&["init"]).unwrap();
    everpoint
}

fn archive_with(cluster: &PgCluster, everpoint: &Everpoint) {
    let command = everpoint.archive_command("db");
    cluster.psql(&format!("ALTER SYSTEM SET archive_command = '{command}'")).unwrap();
    cluster.psql("SELECT pg_reload_conf()").unwrap();
}

fn repository(everpoint: &Everpoint) -> Repository {
    let home = everpoint.home().path();
    let key = std::fs::read_to_string(home.join("key")).unwrap();
    let store = LocalStore::open(&home.join("repository")).unwrap();
    Repository::open(Arc::new(store), Some(&KeyText::parse(key.trim()).unwrap())).unwrap()
}

/// The log of the newest branch of a timeline.
fn log(everpoint: &Everpoint, timeline: u32) -> LogStore {
    let cluster = repository(everpoint).cluster("db").unwrap();
    let (identity, known) = cluster.identities().unwrap().pop().unwrap();
    let branches = cluster.branches(identity).unwrap();
    let branch = branches.into_iter().find(|branch| branch.timeline() == timeline).unwrap();
    cluster.log(identity, branch, known.segment_size)
}

/// Compares everything that is stored with the server's own files; returns how much that was and how many transactions
/// the digests name.
fn compare(cluster: &PgCluster, log: &LogStore) -> (LogOffset, LogOffset, usize) {
    let pieces = log.pieces().unwrap();
    let (first, last) = (pieces.first().unwrap().span.from, pieces.last().unwrap().span.to);
    let (mut at, mut transactions, mut previous) = (first, 0, None);
    for piece in &pieces {
        assert_eq!(piece.span.from, at, "no hole");
        assert!(piece.has_digest);
        at = piece.span.to;
        let digest = log.digest(piece).unwrap();
        assert!(!matches!(digest.verdict, Verdict::Broken { .. }), "{:?}", digest.verdict);
        assert!(!digest.head_unknown || piece.span.from == first, "{:?}", digest.span);
        if digest.span.to.since(digest.span.from) == SEGMENT {
            assert!(piece.span.from == first || digest.previous_hash == previous, "{:?}", digest.span);
            previous = Some(digest.content_hash);
        }
        let ends = |event: &&LogEvent| matches!(event, LogEvent::Commit(_) | LogEvent::Abort(_));
        transactions += digest.events.iter().filter(ends).count();
    }
    let mut start = first;
    while start < last {
        let (stored, end) = log.read_stored(start, 2).unwrap().unwrap();
        let name = log.segment_name(start);
        let file = std::fs::read(cluster.data_dir().join("pg_wal").join(&name)).unwrap();
        let length = usize::try_from(end.since(start)).unwrap();
        assert!(stored[..length] == file[..length], "{name}");
        start = end;
    }
    (first, last, transactions)
}

/// Ends of transactions that the server's own tool finds.
fn transactions(cluster: &PgCluster, timeline: u32, from: LogOffset, to: LogOffset) -> usize {
    let show = |at: LogOffset| format!("{:X}/{:X}", at.0 >> 32, at.0 & 0xFFFF_FFFF);
    let output = cluster
        .install()
        .command("pg_waldump")
        .unwrap()
        .args(["-r", "Transaction", "-t", &timeline.to_string(), "-s", &show(from), "-e", &show(to), "-p"])
        .arg(cluster.data_dir().join("pg_wal"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    text.lines().filter(|line| line.contains("desc: COMMIT ") || line.contains("desc: ABORT ")).count()
}

fn captured(everpoint: &Everpoint) -> Option<u64> {
    let ran = everpoint.try_run(&["--json", "status", "db"]).unwrap();
    let value: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let clusters = value["clusters"].as_array().map_or(&value, |clusters| &clusters[0]);
    let (high, low) = clusters["capture"]["lsn"].as_str()?.split_once('/')?;
    Some(u64::from_str_radix(high, 16).ok()? << 32 | u64::from_str_radix(low, 16).ok()?)
}

fn await_captured(everpoint: &Everpoint, to: u64, patience: Duration) -> Duration {
    let begun = Instant::now();
    while captured(everpoint).is_none_or(|at| at < to) {
        assert!(begun.elapsed() < patience, "{:?} of {to:X} after {patience:?}", captured(everpoint));
    }
    begun.elapsed()
}

fn write(cluster: &PgCluster, rows: u32) {
    cluster
        .psql(&format!("INSERT INTO t SELECT repeat(md5(n::text), 20) FROM generate_series(1, {rows}) n"))
        .unwrap();
}

#[test]
fn both_captures_at_once_survive_kill_9_and_store_what_the_server_wrote() {
    let mut cluster = server(15);
    let everpoint = everpoint(&cluster);
    cluster.psql("CREATE TABLE t (x text)").unwrap();
    archive_with(&cluster, &everpoint);
    for round in 0..6 {
        let mut capture = everpoint.spawn(&["capture", "db"]).unwrap();
        for _ in 0..3 {
            write(&cluster, 2500);
            cluster.psql("BEGIN; INSERT INTO t VALUES ('gone'); ROLLBACK").unwrap();
        }
        if round == 3 {
            cluster.kill9().unwrap();
            cluster.start().unwrap();
        }
        await_captured(&everpoint, cluster.flushed().unwrap(), Duration::from_secs(30));
        cluster.psql("INSERT INTO t VALUES ('soon')").unwrap();
        let took = await_captured(&everpoint, cluster.flushed().unwrap(), Duration::from_secs(30));
        assert!(round == 0 || took < SOON, "a commit was stored after {took:?}");
        assert!(capture.runs().unwrap(), "{}", capture.said());
        capture.kill9().unwrap();
    }
    cluster.psql("INSERT INTO t VALUES ('last')").unwrap();
    let end = cluster.flushed().unwrap();
    everpoint.run(&["capture", "db", "--once"]).unwrap();
    let (first, last, found) = compare(&cluster, &log(&everpoint, 1));
    assert!(last.0 >= end);
    assert_eq!(found, transactions(&cluster, 1, first, last));
    assert_eq!(cluster.psql("SELECT failed_count FROM pg_stat_archiver").unwrap().trim(), "0");
}

#[test]
fn archive_command_drains_a_burst_and_refuses_what_is_not_the_clusters_log() {
    for major in [13, 16, 18] {
        let cluster = server(major);
        let everpoint = everpoint(&cluster);
        cluster.psql("CREATE TABLE t (x text)").unwrap();
        (0..6).for_each(|_| write(&cluster, 4000));
        cluster.psql("SELECT pg_switch_wal()").unwrap();
        let ready = cluster.data_dir().join("pg_wal/archive_status");
        let waiting = || {
            let entries = std::fs::read_dir(&ready).unwrap().flatten();
            entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(".ready")).count()
        };
        assert!(waiting() > 10, "{}", waiting());
        archive_with(&cluster, &everpoint);
        // An archiver that has found nothing to do looks again when a segment is finished.
        write(&cluster, 1);
        cluster.psql("SELECT pg_switch_wal()").unwrap();
        let begun = Instant::now();
        while waiting() > 0 {
            assert!(begun.elapsed() < Duration::from_secs(60), "{} wait, {}", waiting(), cluster.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        let (_, last, _) = compare(&cluster, &log(&everpoint, 1));
        assert_eq!(cluster.psql("SELECT failed_count FROM pg_stat_archiver").unwrap().trim(), "0");
        // The last one again is success; changed, or of another cluster, it is refused.
        let name = log(&everpoint, 1).segment_name(LogOffset(last.0 - SEGMENT));
        let bytes = std::fs::read(cluster.data_dir().join("pg_wal").join(&name)).unwrap();
        let copy = everpoint.home().path().join(&name);
        let push = |bytes: &[u8]| {
            std::fs::write(&copy, bytes).unwrap();
            let ran = everpoint.try_run(&["--json", "archive-push", "db", copy.to_str().unwrap()]).unwrap();
            (ran.status.code().unwrap(), ran.out)
        };
        assert_eq!(push(&bytes).0, 0);
        let changed = |at: usize| {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x55;
            bytes
        };
        let (code, said) = push(&changed(700_000));
        assert!(code == 4 && said.contains("archive.differs"), "{code} {said}");
        let (code, said) = push(&changed(25));
        assert!(code == 4 && said.contains("archive.wrong_cluster"), "{code} {said}");
        assert!(log(&everpoint, 1).read_segment_into(LogOffset(last.0 - SEGMENT), 1).unwrap() == bytes);
    }
}

#[test]
fn a_failover_is_followed_and_both_branches_are_kept() {
    let mut primary = server(17);
    let everpoint = everpoint(&primary);
    primary.psql("CREATE TABLE t (x text)").unwrap();
    let standby = primary.standby().unwrap();
    let mut capture = everpoint.spawn(&["capture", "db"]).unwrap();
    write(&primary, 6000);
    await_captured(&everpoint, primary.flushed().unwrap(), Duration::from_secs(30));
    primary.stop(StopMode::Fast).unwrap();
    standby.promote().unwrap();
    capture.kill9().unwrap();
    let config = everpoint.home().path().join("everpoint.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace(&primary.port().to_string(), &standby.port().to_string())).unwrap();
    archive_with(&standby, &everpoint);
    write(&standby, 6000);
    everpoint.run(&["capture", "db", "--once"]).unwrap();
    let young = log(&everpoint, 2);
    let (first, last, found) = compare(&standby, &young);
    assert!(last.0 >= standby.flushed().unwrap() - SEGMENT);
    // The records before the fork in its segment are of the older timeline, and name its pages.
    assert_eq!(found, transactions(&standby, 2, first, last));
    let history = std::fs::read(standby.data_dir().join("pg_wal/00000002.history")).unwrap();
    assert_eq!(young.history().unwrap(), Some(history));
    compare(&primary, &log(&everpoint, 1));
}
