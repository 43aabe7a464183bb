//! The writer over a repository in memory, whose store dies at every possible step.

use std::sync::Arc;
use std::time::Duration;

use everpoint_core::{LogOffset, Micros, Verdict};
use everpoint_engine::LogSink;
use everpoint_engine::fake::{FakeEngine, FakeLog, log_sink};
use everpoint_repo::PieceKind;
use everpoint_store::{Fault, FaultKind, FaultyStore, MemoryStore, Store};

use super::*;
use crate::testing::{SEGMENT, SYSTEM, context, log, read_back, reopen, stored_log};

const EAGER: TailPolicy = TailPolicy { interval: Duration::ZERO, bytes: 0, merge: 3 };

fn engine() -> Arc<FakeEngine> {
    Arc::new(FakeEngine::new(log(0)))
}

fn writer(store: &MemoryStore) -> LogWriter {
    let context = context(Arc::new(store.clone()), &engine());
    context.cluster.identity_for(SYSTEM, 150_000, SEGMENT, false).unwrap();
    LogWriter::open(&context, 1, SEGMENT).unwrap()
}

#[test]
fn it_passes_the_suite_for_sinks() {
    for policy in [EAGER, TailPolicy { interval: Duration::from_millis(10), bytes: 1 << 18, merge: 32 }] {
        let store = MemoryStore::new();
        let mut make = || -> Box<dyn LogSink> { Box::new(writer(&store).with_policy(policy)) };
        let read =
            |timeline: u32, history: &[u8], from| read_back(&stored_log(&store, timeline, history), from);
        assert_eq!(log_sink(&mut make, &read, &log(100)), Ok(()));
    }
}

#[test]
fn digests_form_a_chain_and_name_every_commit_once() {
    let (store, log) = (MemoryStore::new(), log(100));
    let mut sink = writer(&store).with_policy(EAGER);
    sink.timeline(1, &[], log.start()).unwrap();
    for (at, chunk) in log.slice(log.start(), log.end()).chunks(100_003).enumerate() {
        sink.write(log.start().plus(at as u64 * 100_003), chunk).unwrap();
        sink.tick().unwrap();
    }
    sink.timeline_end(log.end()).unwrap();
    let stored = stored_log(&store, 1, &[]);
    let pieces = stored.pieces().unwrap();
    assert_eq!(pieces.iter().filter(|piece| piece.kind == PieceKind::Segment).count(), 2);
    let (mut records, mut previous) = (Vec::new(), None);
    for piece in &pieces {
        let digest = stored.digest(piece).unwrap();
        assert!(!digest.head_unknown && !matches!(digest.verdict, Verdict::Broken { .. }), "{digest:?}");
        assert_eq!((digest.system, digest.previous_hash), (SYSTEM, previous));
        records.extend(digest.events.iter().map(everpoint_core::LogEvent::record));
        if piece.kind == PieceKind::Segment {
            previous = Some(digest.content_hash);
        }
    }
    assert_eq!(records, log.records().iter().map(|record| record.span).collect::<Vec<_>>());
    assert!(
        store.names().iter().all(|name| !name.contains("000000010000000000000001.tail")),
        "{:?}",
        store.names()
    );
}

#[test]
fn digests_are_the_same_whether_it_was_interrupted_or_not() {
    let log = log(100);
    let digests = |store: &MemoryStore| {
        let stored = stored_log(store, 1, &[]);
        let segments = [LogOffset(SEGMENT), LogOffset(2 * SEGMENT)];
        segments.map(|start| stored.segment_digest(start).unwrap().unwrap())
    };
    let whole = MemoryStore::new();
    let mut sink = writer(&whole);
    sink.timeline(1, &[], log.start()).unwrap();
    sink.write(log.start(), log.slice(log.start(), log.end())).unwrap();
    let cut = MemoryStore::new();
    let mut at = log.start();
    while at < log.end() {
        let mut sink = writer(&cut).with_policy(EAGER);
        sink.timeline(1, &[], at).unwrap();
        let bytes = log.slice(at, at.plus(77_777));
        sink.write(at, bytes).unwrap();
        at = at.plus(bytes.len() as u64);
        while sink.tick().unwrap() < at {}
    }
    assert_eq!(digests(&whole), digests(&cut));
}

/// Runs a capture until the store dies; returns the position that was acknowledged last.
fn capture_until_crash(store: Arc<dyn Store>, log: &FakeLog) -> LogOffset {
    let mut acknowledged = LogOffset(0);
    let mut run = || -> Option<()> {
        let context = reopen(store.clone(), &engine())?;
        let mut sink = LogWriter::open(&context, 1, SEGMENT).ok()?.with_policy(EAGER);
        let from = sink.position(1, &[]).ok()?.unwrap_or_else(|| log.start());
        sink.timeline(1, &[], from).ok()?;
        let mut at = from;
        while at < log.end() {
            let bytes = log.slice(at, at.plus(150_000));
            sink.write(at, bytes).ok()?;
            at = at.plus(bytes.len() as u64);
            acknowledged = acknowledged.max(sink.tick().ok()?);
            sink.covered(acknowledged, Micros(1)).ok()?;
        }
        sink.flush().ok()?;
        acknowledged = acknowledged.max(sink.tick().ok()?);
        Some(())
    };
    let _ = run();
    acknowledged
}

#[test]
fn nothing_acknowledged_is_lost_whenever_it_dies() {
    let log = log(80);
    let base = MemoryStore::new();
    drop(writer(&base));
    let counting = Arc::new(FaultyStore::new(Arc::new(base.copy()), Vec::new()));
    capture_until_crash(counting.clone(), &log);
    let steps = counting.steps();
    assert!(steps > 50, "{steps}");
    for kind in [FaultKind::CrashBefore, FaultKind::CrashAfter] {
        for step in 1..=steps {
            let memory = base.copy();
            let faulty = Arc::new(FaultyStore::new(Arc::new(memory.clone()), vec![Fault { step, kind }]));
            let acknowledged = capture_until_crash(faulty, &log);
            let held = read_back(&stored_log(&memory, 1, &[]), log.start());
            let needed = usize::try_from(acknowledged.since(log.start())).unwrap();
            assert!(held.len() >= needed, "{kind:?} {step}: {} of {needed}", held.len());
            let reached = capture_until_crash(Arc::new(memory.clone()), &log);
            assert_eq!(reached, log.end(), "{kind:?} {step}");
            let held = read_back(&stored_log(&memory, 1, &[]), log.start());
            assert!(held == log.slice(log.start(), log.end()), "{kind:?} {step}");
            let pieces = stored_log(&memory, 1, &[]).pieces().unwrap();
            assert!(pieces.iter().all(|piece| piece.has_digest), "{kind:?} {step}");
        }
    }
}

#[test]
fn one_failed_call_of_the_store_costs_nothing() {
    let log = log(80);
    let base = MemoryStore::new();
    drop(writer(&base));
    for kind in [FaultKind::Fail, FaultKind::LoseAnswer] {
        for step in (1..120).step_by(3) {
            let memory = base.copy();
            let faulty = Arc::new(FaultyStore::new(Arc::new(memory.clone()), vec![Fault { step, kind }]));
            for _ in 0..3 {
                capture_until_crash(faulty.clone(), &log);
            }
            let held = read_back(&stored_log(&memory, 1, &[]), log.start());
            assert!(held == log.slice(log.start(), log.end()), "{kind:?} {step}");
        }
    }
}

#[test]
fn it_agrees_with_a_segment_that_was_pushed_meanwhile() {
    let (store, log) = (MemoryStore::new(), log(80));
    let mut pushed = writer(&store);
    let mut streamed = writer(&store).with_policy(EAGER);
    streamed.timeline(1, &[], log.start()).unwrap();
    streamed.write(log.start(), log.slice(log.start(), log.start().plus(500_000))).unwrap();
    streamed.tick().unwrap();
    pushed.timeline(1, &[], log.start()).unwrap();
    pushed.write(log.start(), log.slice(log.start(), LogOffset(2 * SEGMENT))).unwrap();
    let at = log.start().plus(500_000);
    streamed.write(at, log.slice(at, log.end())).unwrap();
    assert_eq!(streamed.flush().map_err(|error| error.to_string()), Ok(()));
    assert!(read_back(&stored_log(&store, 1, &[]), log.start()) == log.slice(log.start(), log.end()));
}

#[test]
fn a_clone_is_told_apart_and_changes_nothing() {
    let (store, log) = (MemoryStore::new(), log(80));
    let mut sink = writer(&store);
    sink.timeline(1, &[], log.start()).unwrap();
    sink.write(log.start(), log.slice(log.start(), log.end())).unwrap();
    sink.timeline_end(log.end()).unwrap();
    let before = store.names();
    let mut other = FakeLog::new(SYSTEM, 1, SEGMENT, LogOffset(SEGMENT));
    (1..=80).for_each(|xid| {
        other.commit(xid + 5000, Micros(0), 30_000);
    });
    // Bytes that differ from stored ones are found when their segment is full, others at once.
    let mut clone = writer(&store);
    clone.timeline(1, &[], log.end()).unwrap();
    clone.write(log.end(), b"12345678").unwrap();
    let error = clone.write(log.end(), b"12345679").unwrap_err();
    assert_eq!((error.code, error.class), ("capture.diverged", FailureClass::Damaged));
    assert!(clone.write(log.end(), b"12345678").is_err(), "closed after an error");
    assert_eq!(store.names(), before);
    let wrong = FakeLog::new(1, 1, SEGMENT, LogOffset(SEGMENT));
    let mut wrong = wrong;
    wrong.commit(1, Micros(0), 100);
    let mut sink = writer(&MemoryStore::new());
    sink.timeline(1, &[], wrong.start()).unwrap();
    sink.write(wrong.start(), wrong.slice(wrong.start(), wrong.end())).unwrap();
    assert_eq!(sink.flush().unwrap_err().code, "capture.wrong_cluster");
}

#[test]
fn gaps_are_recorded_where_nothing_is_stored_and_capture_goes_on_behind_them() {
    let (store, log) = (MemoryStore::new(), log(200));
    let at = |segment: u64| LogOffset(segment * SEGMENT);
    let mut sink = writer(&store);
    sink.timeline(1, &[], at(1)).unwrap();
    sink.write(at(1), log.slice(at(1), at(2).plus(100))).unwrap();
    // Somebody else has stored segment 4.
    let mut other = writer(&store);
    other.timeline(1, &[], at(4)).unwrap();
    other.write(at(4), log.slice(at(4), at(5))).unwrap();
    assert_eq!(other.position(1, &[]).unwrap(), Some(at(2)), "the hole is to be filled first");
    sink.gap(1, at(2).plus(100), at(5), "removed").unwrap();
    sink.timeline(1, &[], at(5)).unwrap();
    sink.write(at(5), log.slice(at(5), at(6))).unwrap();
    let stored = stored_log(&store, 1, &[]);
    let gaps: Vec<_> = stored.gaps().unwrap().into_iter().map(|(span, _)| (span.from, span.to)).collect();
    assert_eq!(gaps, [(at(2).plus(100), at(4))]);
    assert_eq!(sink.position(1, &[]).unwrap(), Some(at(6)));
    assert!(coverage::covers(&stored, at(4), at(6)).unwrap());
    assert!(coverage::covers(&stored, at(1), at(2).plus(100)).unwrap());
    assert!(!coverage::covers(&stored, at(1), at(2).plus(101)).unwrap());
}

#[test]
fn what_a_damaged_tail_held_is_received_again() {
    let log = log(80);
    let begin = log.start();
    let stop = begin.plus(600_000);
    // Of three tails each one is damaged: in its bytes, or cut off.
    for (number, cut) in [(0, false), (1, true), (2, false)] {
        let store = MemoryStore::new();
        let mut sink = writer(&store).with_policy(TailPolicy { merge: 32, ..EAGER });
        sink.timeline(1, &[], begin).unwrap();
        for part in 0..3 {
            let at = begin.plus(part * 200_000);
            sink.write(at, log.slice(at, at.plus(200_000))).unwrap();
            sink.tick().unwrap();
        }
        drop(sink);
        let tails: Vec<String> = store.names().into_iter().filter(|name| name.contains(".tail/")).collect();
        let name = tails.get(number).unwrap();
        assert!(if cut { store.cut(name, 300) } else { store.flip(name, 900) }, "{tails:?}");
        let mut sink = writer(&store).with_policy(EAGER);
        let error = sink.timeline(1, &[], stop).unwrap_err();
        assert_eq!(error.code, "capture.position", "{number}: the server has to begin before the damage");
        sink.timeline(1, &[], begin).unwrap();
        let damaged_at = begin.plus(number as u64 * 200_000);
        assert_eq!(sink.place().unwrap().position, damaged_at);
        // As a server that has written nothing since sends it: the new tail has the name of the damaged one.
        for at in (damaged_at.0..stop.0).step_by(200_000).map(LogOffset) {
            sink.write(at, log.slice(at, at.plus(200_000))).unwrap();
            sink.tick().unwrap();
        }
        assert!(read_back(&stored_log(&store, 1, &[]), begin) == log.slice(begin, stop), "{number}");
        sink.write(stop, log.slice(stop, log.end())).unwrap();
        sink.flush().unwrap();
        assert!(read_back(&stored_log(&store, 1, &[]), begin) == log.slice(begin, log.end()), "{number}");
    }
}

#[test]
fn covered_until_waits_for_what_it_speaks_of() {
    let (store, log) = (MemoryStore::new(), log(10));
    let mut sink = writer(&store).with_policy(TailPolicy {
        interval: Duration::from_secs(60),
        bytes: 1 << 30,
        merge: 32,
    });
    sink.timeline(1, &[], log.start()).unwrap();
    sink.write(log.start(), log.slice(log.start(), log.end())).unwrap();
    sink.covered(log.end(), Micros(7)).unwrap();
    assert_eq!(sink.tick().unwrap(), log.start());
    assert_eq!(stored_log(&store, 1, &[]).covered().unwrap(), None);
    sink.flush().unwrap();
    assert_eq!(stored_log(&store, 1, &[]).covered().unwrap(), Some((log.end(), Micros(7))));
    // An idle server: stored again, but not for every word of it.
    for second in 8..20 {
        sink.covered(log.end(), Micros(second)).unwrap();
        sink.tick().unwrap();
    }
    assert_eq!(stored_log(&store, 1, &[]).covered().unwrap(), Some((log.end(), Micros(7))));
    assert_eq!(store.names().iter().filter(|name| name.contains("/covered/")).count(), 1);
}

#[test]
fn tails_wait_for_a_segment_that_is_nearly_full() {
    let (store, log) = (MemoryStore::new(), log(80));
    let policy = TailPolicy { interval: Duration::from_millis(40), bytes: 1 << 30, merge: 32 };
    let mut sink = writer(&store).with_policy(policy);
    sink.timeline(1, &[], log.start()).unwrap();
    sink.write(log.start(), log.slice(log.start(), log.start().plus(700_000))).unwrap();
    std::thread::sleep(Duration::from_millis(45));
    assert_eq!(sink.tick().unwrap(), log.start(), "soon full");
    std::thread::sleep(Duration::from_millis(45));
    assert_eq!(sink.tick().unwrap(), log.start().plus(700_000), "it was not");
}

#[test]
fn a_server_that_commits_a_little_all_day_leaves_few_tails() {
    let (store, log) = (MemoryStore::new(), log(30));
    let count = |store: &MemoryStore| store.names().iter().filter(|name| name.contains(".tail/")).count();
    let policy = TailPolicy { merge: 8, ..EAGER };
    let mut at = log.start();
    let (mut most, mut tails) = (0, 0);
    while at < log.end() {
        // Now and then by another process.
        let mut sink = writer(&store).with_policy(policy);
        sink.timeline(1, &[], at).unwrap();
        for _ in 0..100 {
            let bytes = log.slice(at, at.plus(1500));
            sink.write(at, bytes).unwrap();
            at = at.plus(bytes.len() as u64);
            assert_eq!(sink.tick().unwrap(), at);
            (most, tails) = (most.max(count(&store)), tails + 1);
        }
    }
    assert!(tails > 500 && most < 40, "{most} of {tails}");
    let stored = stored_log(&store, 1, &[]);
    assert!(read_back(&stored, log.start()) == log.slice(log.start(), log.end()));
    let events = stored
        .pieces()
        .unwrap()
        .iter()
        .map(|piece| stored.digest(piece).unwrap().events.len())
        .sum::<usize>();
    assert_eq!(events, log.records().len());
}
