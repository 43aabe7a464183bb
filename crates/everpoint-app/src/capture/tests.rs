//! The use-case with a scripted server.

use std::sync::Arc;

use everpoint_engine::fake::{FakeEngine, FakeServer, FakeTimeline};
use everpoint_store::MemoryStore;

use std::time::Instant;

use everpoint_core::Micros;

use super::*;
use crate::Quiet;
use crate::testing::{Heard, SYSTEM, context, log, read_back, stored_log};

fn request(once: bool, stop: &StopFlag) -> CaptureRequest {
    CaptureRequest { once, slot: "everpoint_db".to_owned(), create_slot: true, stop: stop.clone() }
}

fn wait(what: &str, done: &dyn Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn once_stores_everything_that_the_server_has() {
    let (store, log) = (MemoryStore::new(), log(100));
    let engine = Arc::new(FakeEngine::new(log.clone()));
    let context = context(Arc::new(store.clone()), &engine);
    let stop = StopFlag::default();
    let report = run(&context, &request(true, &stop), &Quiet).unwrap();
    assert_eq!((report.timeline, report.position), (1, text::lsn(log.end())));
    assert_eq!((report.segments, report.bytes), (2, log.end().since(log.start())));
    assert!(read_back(&stored_log(&store, 1, &[]), log.start()) == log.slice(log.start(), log.end()));
    let again = run(&context, &request(true, &stop), &Quiet).unwrap();
    assert_eq!((again.segments, again.bytes), (0, 0));
}

#[test]
fn it_reconnects_and_follows_a_promotion_until_stopped() {
    let (store, old) = (MemoryStore::new(), log(100));
    let at = old.records()[90].span.end;
    let mut young = old.fork(2, at);
    (1..80).for_each(|xid| {
        young.commit(500 + xid, Micros(0), 30_000);
    });
    let history = format!("1\t{at}\tx\n").into_bytes();
    let timeline = |log, history, ends| FakeTimeline { log, history, ends };
    let engine = Arc::new(FakeEngine::scripted(FakeServer {
        removed_before: old.start(),
        timelines: vec![
            timeline(old.clone(), Vec::new(), Some(at)),
            timeline(young.clone(), history.clone(), None),
        ],
        chunk: 65_536,
        breaks: [1_000_000, 0, 500_000].into(),
        clock: Some(Micros(9_000_000)),
        acknowledged: LogOffset(0),
    }));
    let first = FakeTimeline { ends: None, ..engine.server().timelines[0].clone() };
    let both = std::mem::replace(&mut engine.server().timelines, vec![first]);
    let context = context(Arc::new(store.clone()), &engine);
    let (stop, heard) = (StopFlag::default(), Heard::default());
    std::thread::scope(|scope| {
        let capture = scope.spawn(|| run(&context, &request(false, &stop), &heard));
        wait("the first timeline", &|| engine.server().acknowledged >= at);
        assert_eq!(run(&context, &request(true, &stop), &Quiet).unwrap_err().class, FailureClass::Locked);
        // The server goes away and comes back promoted.
        engine.server().breaks = [0].into();
        engine.server().timelines = both;
        wait("the second timeline", &|| engine.server().acknowledged >= young.end());
        wait("covered", &|| stored_log(&store, 2, &history).covered().unwrap().is_some());
        stop.stop();
        let report = capture.join().unwrap().unwrap();
        assert_eq!((report.timeline, report.position), (2, text::lsn(young.end())));
    });
    let first = read_back(&stored_log(&store, 1, &[]), old.start());
    assert!(first.starts_with(old.slice(old.start(), at)));
    assert!(
        read_back(&stored_log(&store, 2, &history), young.start()) == young.slice(young.start(), young.end())
    );
    assert!(heard.warnings().iter().any(|text| text.contains("it went away")), "{:?}", heard.warnings());
    // Stopped for good: another may begin at once.
    run(&context, &request(true, &StopFlag::default()), &Quiet).unwrap();
}

#[test]
fn lost_log_is_a_recorded_gap_and_capture_goes_on() {
    let (store, log) = (MemoryStore::new(), log(200));
    let engine = Arc::new(FakeEngine::new(log.clone()));
    let context = context(Arc::new(store.clone()), &engine);
    engine.server().timelines[0].log = log.fork(1, log.records()[10].span.end);
    run(&context, &request(true, &StopFlag::default()), &Quiet).unwrap();
    engine.server().timelines[0].log = log.clone();
    let kept = LogOffset(log.start().0 * 4);
    engine.server().removed_before = kept;
    let heard = Heard::default();
    let resumed = LogWriter::resume_point(&context.cluster, 1, 1 << 20).unwrap().unwrap().1;
    run(&context, &request(true, &StopFlag::default()), &heard).unwrap();
    let stored = stored_log(&store, 1, &[]);
    let gaps: Vec<_> = stored.gaps().unwrap().into_iter().map(|(span, _)| (span.from, span.to)).collect();
    assert_eq!((resumed, gaps.as_slice()), (log.records()[10].span.end, [(resumed, kept)].as_slice()));
    assert!(heard.warnings().iter().any(|text| text.contains("is lost")), "{:?}", heard.warnings());
    assert!(read_back(&stored, kept) == log.slice(kept, log.end()));
}

#[test]
fn another_cluster_is_refused() {
    let store = MemoryStore::new();
    let engine = Arc::new(FakeEngine::new(log(10)));
    let context = context(Arc::new(store.clone()), &engine);
    context.cluster.identity_for(SYSTEM + 1, 150_000, 1 << 20, false).unwrap();
    let before = store.names();
    let error = run(&context, &request(true, &StopFlag::default()), &Quiet).unwrap_err();
    assert_eq!((error.code.as_str(), error.class), (code::WRONG_CLUSTER, FailureClass::Damaged));
    let logs: Vec<_> =
        store.names().into_iter().filter(|name| !before.contains(name) && name.contains("/log/")).collect();
    assert!(logs.is_empty(), "{logs:?}");
}

#[test]
fn a_backup_takes_its_own_log_only_if_nobody_else_does() {
    let (store, log) = (MemoryStore::new(), log(60));
    let engine = Arc::new(FakeEngine::new(log.clone()));
    let context = context(Arc::new(store.clone()), &engine);
    let server = everpoint_engine::Engine::identify(engine.as_ref()).unwrap();
    let (identity, _) = context.cluster.identity_for(SYSTEM, 150_000, 1 << 20, false).unwrap();
    let stop = StopFlag::default();
    std::thread::scope(|scope| {
        let beside =
            scope.spawn(|| during_backup(&context, identity, &server, "slot", &stop, &|| None, &Quiet));
        wait("the log", &|| engine.server().acknowledged >= log.end());
        during_backup(&context, identity, &server, "slot", &stop, &|| None, &Quiet).unwrap();
        stop.stop();
        beside.join().unwrap().unwrap();
    });
    let branch = crate::lineage::branch_id(1, &[]);
    assert_eq!(crate::coverage::reached(&context, identity, &branch, &[], log.start()).unwrap(), log.end());
}
