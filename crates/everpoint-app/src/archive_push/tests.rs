//! Directories as PostgreSQL leaves them, pushed into a repository in memory, whose store dies at every possible step.

use std::sync::Arc;

use everpoint_core::{LogOffset, Micros};
use everpoint_engine::LogSink;
use everpoint_engine::fake::{FakeEngine, FakeLog};
use everpoint_store::{Fault, FaultKind, FaultyStore, MemoryStore, Store};
use tempfile::TempDir;

use super::*;
use crate::log_writer::LogWriter;
use crate::testing::{SEGMENT, SYSTEM, context, log, read_back, reopen, stored_log};
use crate::{Quiet, coverage};

fn engine() -> Arc<FakeEngine> {
    Arc::new(FakeEngine::new(log(0)))
}

/// A pg_wal with all whole segments of the log, ready to be archived.
fn directory(log: &FakeLog) -> (TempDir, Vec<String>) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("archive_status")).unwrap();
    let names = add(directory.path(), log);
    (directory, names)
}

fn add(directory: &Path, log: &FakeLog) -> Vec<String> {
    let (mut names, mut at) = (Vec::new(), log.start());
    while at.plus(SEGMENT) <= log.end() {
        let name = SegmentName::at(log.timeline(), at, SEGMENT).to_string();
        std::fs::write(directory.join(&name), log.slice(at, at.plus(SEGMENT))).unwrap();
        std::fs::write(directory.join(format!("archive_status/{name}.ready")), "").unwrap();
        names.push(name);
        at = at.plus(SEGMENT);
    }
    names
}

fn push(context: &ClusterContext, path: &Path, look_ahead: usize) -> Result<ArchivePushReport, AppError> {
    run(context, &ArchivePushRequest { path: path.to_owned(), look_ahead }, &Quiet)
}

#[test]
fn a_burst_is_stored_ahead_and_each_call_is_answered() {
    let (store, log) = (MemoryStore::new(), log(400));
    let (directory, names) = directory(&log);
    let context = context(Arc::new(store.clone()), &engine());
    let report = push(&context, &directory.path().join(&names[0]), 3).unwrap();
    assert_eq!((report.stored, report.ahead), (true, 3));
    for name in &names {
        let again = names.iter().position(|other| other == name).unwrap() < 4;
        let report = push(&context, &directory.path().join(name), 0).unwrap();
        assert_eq!((report.stored, report.ahead), (!again, 0), "{name}");
    }
    let stored = stored_log(&store, 1, &[]);
    let whole = LogOffset((1 + names.len() as u64) * SEGMENT);
    assert!(read_back(&stored, log.start()) == log.slice(log.start(), whole));
    let mut previous = None;
    let mut records = 0;
    for piece in stored.pieces().unwrap() {
        let digest = stored.digest(&piece).unwrap();
        assert_eq!((digest.previous_hash, digest.head_unknown), (previous, false));
        previous = Some(digest.content_hash);
        records += digest.records;
    }
    assert_eq!(records, log.records().iter().filter(|record| record.span.end <= whole).count() as u64);
}

#[test]
fn both_captures_make_the_same_digests() {
    let log = log(100);
    let (directory, names) = directory(&log);
    let pushed = MemoryStore::new();
    let context_of = |store: &MemoryStore| context(Arc::new(store.clone()), &engine());
    names.iter().for_each(|name| {
        push(&context_of(&pushed), &directory.path().join(name), 0).unwrap();
    });
    let streamed = MemoryStore::new();
    let context = context_of(&streamed);
    context.cluster.identity_for(SYSTEM, 150_000, SEGMENT, false).unwrap();
    let mut sink = LogWriter::open(&context, 1, SEGMENT).unwrap();
    sink.timeline(1, &[], log.start()).unwrap();
    sink.write(log.start(), log.slice(log.start(), log.end())).unwrap();
    sink.flush().unwrap();
    for at in [LogOffset(SEGMENT), LogOffset(2 * SEGMENT)] {
        let digest = |store| stored_log(store, 1, &[]).segment_digest(at).unwrap().unwrap();
        assert_eq!(digest(&pushed), digest(&streamed));
    }
    // And one finds what the other has stored.
    for name in &names {
        assert!(!push(&context, &directory.path().join(name), 9).unwrap().stored);
    }
}

#[test]
fn a_pushed_segment_replaces_its_tails() {
    let (store, log) = (MemoryStore::new(), log(60));
    let (directory, names) = directory(&log);
    let context = context(Arc::new(store.clone()), &engine());
    context.cluster.identity_for(SYSTEM, 150_000, SEGMENT, false).unwrap();
    let mut sink = LogWriter::open(&context, 1, SEGMENT).unwrap();
    sink.timeline(1, &[], log.start()).unwrap();
    sink.write(log.start(), log.slice(log.start(), log.start().plus(1000))).unwrap();
    sink.flush().unwrap();
    assert!(store.names().iter().any(|name| name.contains(".tail/")));
    push(&context, &directory.path().join(&names[0]), 0).unwrap();
    assert!(!store.names().iter().any(|name| name.contains(".tail/")));
}

#[test]
fn what_is_not_the_segment_that_it_claims_to_be_is_refused() {
    let (store, log) = (MemoryStore::new(), log(60));
    let (directory, names) = directory(&log);
    let context = context(Arc::new(store.clone()), &engine());
    let path = directory.path().join(&names[0]);
    push(&context, &path, 0).unwrap();
    let before = store.names();
    let code = |path: &Path| {
        let error = push(&context, path, 0).unwrap_err();
        (error.code, error.class)
    };
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[500_000] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(code(&path), ("archive.differs".to_owned(), FailureClass::Damaged));
    let misnamed = directory.path().join("000000010000000000000009");
    std::fs::write(&misnamed, &bytes).unwrap();
    assert_eq!(code(&misnamed), ("archive.wrong_segment".to_owned(), FailureClass::Damaged));
    let short = directory.path().join("000000010000000000000002");
    std::fs::write(&short, &bytes[..1000]).unwrap();
    assert_eq!(code(&short).0, "archive.wrong_segment");
    std::fs::write(&short, [0; 100]).unwrap();
    assert_eq!(code(&short).0, "fake.head");
    let mut other = FakeLog::new(1, 1, SEGMENT, LogOffset(2 * SEGMENT));
    (1..60).for_each(|xid| {
        other.commit(xid, Micros(0), 30_000);
    });
    add(directory.path(), &other);
    assert_eq!(
        code(&directory.path().join("000000010000000000000002")),
        ("archive.wrong_cluster".to_owned(), FailureClass::Damaged)
    );
    assert_eq!(code(&directory.path().join("000000010000000000000004")).0, "io");
    assert_eq!(
        code(&directory.path().join("postgresql.conf")),
        ("archive.file_name".to_owned(), FailureClass::Usage)
    );
    assert_eq!(store.names(), before);
}

#[test]
fn a_fork_has_its_own_branch_and_is_chained_to_its_parent() {
    let (store, log) = (MemoryStore::new(), log(100));
    let (directory, names) = directory(&log);
    let context = context(Arc::new(store.clone()), &engine());
    push(&context, &directory.path().join(&names[0]), 0).unwrap();
    let at = log.records()[50].span.end;
    let mut young = log.fork(2, at);
    (1..100).for_each(|xid| {
        young.commit(900 + xid, Micros(0), 30_000);
    });
    let forked = add(directory.path(), &young);
    let history = format!("1\t{at}\tno recovery target specified\n");
    let history_path = directory.path().join("00000002.history");
    std::fs::write(&history_path, &history).unwrap();
    assert!(push(&context, &history_path, 0).unwrap().stored);
    assert!(!push(&context, &history_path, 0).unwrap().stored);
    push(&context, &directory.path().join(&forked[0]), 10).unwrap();
    let branch = stored_log(&store, 2, history.as_bytes());
    let digest = branch.segment_digest(young.start()).unwrap().unwrap();
    assert_eq!(digest.previous_hash, stored_log(&store, 1, &[]).segment_hash(LogOffset(SEGMENT)).unwrap());
    assert!(digest.previous_hash.is_some() && !digest.head_unknown);
    assert_eq!(branch.history().unwrap().as_deref(), Some(history.as_bytes()));
    // Without the file beside it, the only branch of that number is meant; of two, nobody knows.
    std::fs::remove_file(&history_path).unwrap();
    assert!(!push(&context, &directory.path().join(&forked[0]), 0).unwrap().stored);
    std::fs::write(&history_path, history.replace("specified", "given")).unwrap();
    push(&context, &history_path, 0).unwrap();
    std::fs::remove_file(&history_path).unwrap();
    assert_eq!(push(&context, &directory.path().join(&forked[0]), 0).unwrap_err().code, "archive.no_history");
}

#[test]
fn partial_and_backup_files_are_kept() {
    let (store, log) = (MemoryStore::new(), log(60));
    let (directory, names) = directory(&log);
    let context = context(Arc::new(store.clone()), &engine());
    let partial = format!("{}.partial", names[0]);
    let backup = format!("{}.00000028.backup", names[0]);
    std::fs::copy(directory.path().join(&names[0]), directory.path().join(&partial)).unwrap();
    std::fs::write(directory.path().join(&backup), "START WAL LOCATION").unwrap();
    for name in [&partial, &backup] {
        assert!(push(&context, &directory.path().join(name), 0).unwrap().stored);
        assert!(!push(&context, &directory.path().join(name), 0).unwrap().stored);
    }
    std::fs::write(directory.path().join(&backup), "another").unwrap();
    assert_eq!(push(&context, &directory.path().join(&backup), 0).unwrap_err().code, "archive.differs");
    assert_eq!(
        stored_log(&store, 1, &[]).other(&backup).unwrap().as_deref(),
        Some(b"START WAL LOCATION".as_slice())
    );
}

/// Pushes as PostgreSQL would until the store dies; returns the names that were acknowledged.
fn archiver(store: Arc<dyn Store>, directory: &Path, names: &[String]) -> usize {
    let acknowledged =
        |context: &ClusterContext, name: &&String| push(context, &directory.join(name), 2).is_ok();
    reopen(store, &engine())
        .map_or(0, |context| names.iter().take_while(|name| acknowledged(&context, name)).count())
}

#[test]
fn nothing_acknowledged_is_lost_whenever_it_dies() {
    let log = log(110);
    let (directory, names) = directory(&log);
    let base = MemoryStore::new();
    drop(context(Arc::new(base.clone()), &engine()));
    let counting = Arc::new(FaultyStore::new(Arc::new(base.copy()), Vec::new()));
    assert_eq!(archiver(counting.clone(), directory.path(), &names), names.len());
    for kind in [FaultKind::CrashBefore, FaultKind::CrashAfter] {
        for step in 1..=counting.steps() {
            let memory = base.copy();
            let faulty = Arc::new(FaultyStore::new(Arc::new(memory.clone()), vec![Fault { step, kind }]));
            let count = archiver(faulty, directory.path(), &names);
            let end = LogOffset((1 + count as u64) * SEGMENT);
            let reached = coverage::contiguous_end(&stored_log(&memory, 1, &[]), log.start()).unwrap();
            assert!(reached >= end, "{kind:?} {step}: {reached} of {end}");
            assert_eq!(
                archiver(Arc::new(memory.clone()), directory.path(), &names),
                names.len(),
                "{kind:?} {step}"
            );
            let end = LogOffset((1 + names.len() as u64) * SEGMENT);
            assert!(
                read_back(&stored_log(&memory, 1, &[]), log.start()) == log.slice(log.start(), end),
                "{kind:?} {step}"
            );
        }
    }
}
