//! Files fetched from a repository in memory.

use std::sync::Arc;

use everpoint_core::Micros;
use everpoint_engine::LogSink;
use everpoint_engine::fake::{FakeEngine, FakeLog};
use everpoint_store::{Fault, FaultKind, FaultyStore, MemoryStore};
use tempfile::TempDir;

use super::*;
use crate::Quiet;
use crate::lineage::branch_id;
use crate::log_file::SegmentName;
use crate::log_writer::LogWriter;
use crate::testing::{SEGMENT, SYSTEM, context, log, reopen, stored_log};

fn engine() -> Arc<FakeEngine> {
    Arc::new(FakeEngine::new(log(0)))
}

fn store_log(context: &ClusterContext, log: &FakeLog, history: &[u8]) {
    context.cluster.identity_for(SYSTEM, 150_000, SEGMENT, false).unwrap();
    let mut sink = LogWriter::open(context, 1, SEGMENT).unwrap();
    sink.timeline(log.timeline(), history, log.start()).unwrap();
    sink.write(log.start(), log.slice(log.start(), log.end())).unwrap();
    sink.timeline_end(log.end()).unwrap();
}

fn request(directory: &TempDir, name: &str, branch: Option<&str>) -> ArchiveGetRequest {
    ArchiveGetRequest {
        name: name.to_owned(),
        destination: directory.path().join("RECOVERYXLOG"),
        branch: branch.map(str::to_owned),
        in_place_tablespaces: true,
        look_ahead_bytes: 0,
        until: None,
        recovery: None,
    }
}

fn get(context: &ClusterContext, name: &str, branch: Option<&str>) -> Result<Option<Vec<u8>>, AppError> {
    let directory = tempfile::tempdir().unwrap();
    let got = run(context, &request(&directory, name, branch), &Quiet)?;
    let found = std::fs::read(directory.path().join("RECOVERYXLOG")).ok();
    assert_eq!(got == Got::Found, found.is_some());
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(left.len(), usize::from(found.is_some()), "nothing else is left: {left:?}");
    Ok(found)
}

fn segment_name(timeline: u32, index: u64) -> String {
    SegmentName::at(timeline, LogOffset(index * SEGMENT), SEGMENT).to_string()
}

#[test]
fn segments_come_whole_or_padded_and_what_is_not_there_is_not_there() {
    let (store, log) = (MemoryStore::new(), log(100));
    let context = context(Arc::new(store), &engine());
    store_log(&context, &log, &[]);
    let at = |index: u64| LogOffset(index * SEGMENT);
    assert!(get(&context, &segment_name(1, 1), None).unwrap().unwrap() == log.slice(at(1), at(2)));
    let mut last = log.slice(at(3), log.end()).to_vec();
    assert!(last.len() < 1 << 20);
    last.resize(1 << 20, 0);
    assert!(get(&context, &segment_name(1, 3), None).unwrap().unwrap() == last);
    for name in
        [segment_name(1, 4), segment_name(2, 1), "00000002.history".to_owned(), "00000001.history".to_owned()]
    {
        assert_eq!(get(&context, &name, None).unwrap(), None, "{name}");
    }
    assert_eq!(get(&context, "backup_label", None).unwrap_err().class, FailureClass::Usage);
}

#[test]
fn the_branch_that_is_named_is_followed() {
    let (store, log) = (MemoryStore::new(), log(100));
    let context = context(Arc::new(store), &engine());
    store_log(&context, &log, &[]);
    let young = |at: LogOffset, xid: u64| {
        let mut young = log.fork(2, at);
        (1..100).for_each(|more| {
            young.commit(xid + more, Micros(0), 30_000);
        });
        let history = format!("1\t{at}\treason {xid}\n").into_bytes();
        store_log(&context, &young, &history);
        (young, history)
    };
    let (first, first_history) = young(log.records()[40].span.end, 1000);
    let (second, second_history) = young(log.records()[50].span.end, 2000);
    for (fork, history) in [(&first, &first_history), (&second, &second_history)] {
        let branch = branch_id(2, history);
        for hint in [branch.to_string(), format!("1/{branch}")] {
            let got = |name: &str| get(&context, name, Some(&hint)).unwrap();
            let at = LogOffset(2 * SEGMENT);
            assert!(got(&segment_name(2, 2)).unwrap() == fork.slice(at, at.plus(SEGMENT)));
            assert!(got(&segment_name(1, 1)).unwrap() == log.slice(LogOffset(SEGMENT), at));
            assert_eq!(got("00000002.history").as_ref(), Some(history));
            assert_eq!(got("00000003.history"), None);
        }
    }
    // A server on timeline 1 looks which numbers are taken.
    let one = branch_id(1, &[]).to_string();
    assert!(get(&context, "00000002.history", Some(&one)).unwrap().is_some());
    for bad in ["nonsense", "00000007-0000000000000000", "2/00000001-0000000000000000"] {
        assert_eq!(
            get(&context, &segment_name(1, 1), Some(bad)).unwrap_err().code,
            "archive.no_branch",
            "{bad}"
        );
    }
}

#[test]
fn what_can_not_be_told_is_never_not_there() {
    let log = log(100);
    let base = MemoryStore::new();
    store_log(&context(Arc::new(base.clone()), &engine()), &log, &[]);
    for (name, there) in [(segment_name(1, 1), true), (segment_name(1, 3), true), (segment_name(1, 4), false)]
    {
        for step in 1..200 {
            let faults = vec![Fault { step, kind: FaultKind::CrashBefore }];
            let faulty = Arc::new(FaultyStore::new(Arc::new(base.copy()), faults));
            let Some(context) = reopen(faulty.clone(), &engine()) else {
                continue;
            };
            match get(&context, &name, None) {
                Ok(found) => assert_eq!(found.is_some(), there, "{name} {step}"),
                Err(error) => assert!(faulty.crashed(), "{name} {step}: {error}"),
            }
        }
    }
    // Damaged bytes are never served.
    let stored = base.names().into_iter().find(|name| name.ends_with(&segment_name(1, 1))).unwrap();
    assert!(base.flip(&stored, 5000));
    let context = reopen(Arc::new(base), &engine()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let error = run(&context, &request(&directory, &segment_name(1, 1), None), &Quiet).unwrap_err();
    assert_eq!(error.class, FailureClass::Damaged);
    let trace = directory.path().join(crate::restore::salvage::FETCH_ERROR);
    assert!(std::fs::read_to_string(trace).unwrap().contains("\"damaged\":true"));
    assert!(!directory.path().join("RECOVERYXLOG").exists());
}

#[test]
fn partial_files_are_served_as_they_were_pushed() {
    let (store, log) = (MemoryStore::new(), log(40));
    let context = context(Arc::new(store.clone()), &engine());
    store_log(&context, &log, &[]);
    let name = format!("{}.partial", segment_name(1, 2));
    stored_log(&store, 1, &[]).put_other(&name, b"part").unwrap();
    assert_eq!(get(&context, &name, None).unwrap().as_deref(), Some(b"part".as_slice()));
}
