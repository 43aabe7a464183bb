//! A spool that is filled while a server takes from it.

use std::path::Path;
use std::sync::Arc;

use everpoint_core::LogOffset;
use everpoint_engine::LogSink;
use everpoint_engine::fake::FakeEngine;
use everpoint_store::MemoryStore;

use super::*;
use crate::Quiet;
use crate::archive_get::{Got, take_ahead};
use crate::log_writer::LogWriter;
use crate::testing::{SEGMENT, SYSTEM, context, log};

fn request(directory: &Path, index: u64) -> ArchiveGetRequest {
    ArchiveGetRequest {
        name: SegmentName::at(1, LogOffset(index * SEGMENT), SEGMENT).to_string(),
        destination: directory.join("RECOVERYXLOG"),
        branch: None,
        in_place_tablespaces: false,
        look_ahead_bytes: 5 << 20,
        until: None,
        recovery: None,
    }
}

fn await_ready(spool: &Spool, request: &ArchiveGetRequest) {
    let begun = Instant::now();
    while !spool.has(&request.name) {
        assert!(begun.elapsed() < Duration::from_secs(10), "{} does not get ready", request.name);
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_replay_finds_its_segments_ready_and_nothing_is_left_behind() {
    let log = log(500);
    let context = context(Arc::new(MemoryStore::new()), &Arc::new(FakeEngine::new(log.clone())));
    context.cluster.identity_for(SYSTEM, 150_000, SEGMENT, false).unwrap();
    let mut sink = LogWriter::open(&context, 1, SEGMENT).unwrap();
    sink.timeline(1, &[], log.start()).unwrap();
    sink.write(log.start(), log.slice(log.start(), log.end())).unwrap();
    sink.flush().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path();
    let first = request(home, 1);
    assert_eq!(take_ahead("db", &first), None);
    assert_eq!(archive_get::run(&context, &first, &Quiet).unwrap(), Got::Found);
    let wanted_first = wanted("db", &first).unwrap();
    let (spool, stop) = (Spool::at(wanted_first.spool.clone()), StopFlag::default());
    let whole = log.end().0 / SEGMENT;
    std::thread::scope(|scope| {
        let filler = scope.spawn(|| run(&context, &wanted_first, &stop));
        for index in 2..whole {
            let next = request(home, index);
            await_ready(&spool, &next);
            assert!(spool.is_being_filled());
            assert_eq!(wanted("db", &next), None, "one is enough");
            run(&context, &PrefetchRequest { after: next.name.clone(), ..wanted_first.clone() }, &stop)
                .unwrap();
            assert_eq!(take_ahead("db", &next), Some(Got::Found));
            let at = LogOffset(index * SEGMENT);
            assert!(std::fs::read(&next.destination).unwrap() == log.slice(at, at.plus(SEGMENT)), "{index}");
        }
        // The last one is not whole: it is fetched when it is asked for.
        assert_eq!(archive_get::run(&context, &request(home, whole), &Quiet).unwrap(), Got::Found);
        // A server that begins anew is followed.
        assert_eq!(archive_get::run(&context, &request(home, 3), &Quiet).unwrap(), Got::Found);
        await_ready(&spool, &request(home, 4));
        await_ready(&spool, &request(home, 8));
        assert!(!spool.has(&request(home, 9).name), "no more than was asked for");
        stop.stop();
        filler.join().unwrap().unwrap();
    });
    let left: Vec<_> = std::fs::read_dir(home).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["RECOVERYXLOG"]);
}

#[test]
fn a_directory_that_is_gone_is_not_made_again() {
    let context = context(Arc::new(MemoryStore::new()), &Arc::new(FakeEngine::new(log(1))));
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path().join("pg_wal");
    std::fs::create_dir(&home).unwrap();
    let wanted = wanted("db", &request(&home, 1)).unwrap();
    assert!(run(&context, &wanted, &StopFlag::default()).is_err(), "nothing of the cluster is stored");
    assert_eq!(std::fs::read_dir(&home).unwrap().count(), 0);
    std::fs::remove_dir(&home).unwrap();
    run(&context, &wanted, &StopFlag::default()).unwrap();
    assert!(!home.exists());
}

#[test]
fn purposes_do_not_share_a_spool() {
    let base = request(Path::new("pg_wal"), 1);
    let tag = |request: &ArchiveGetRequest| Spool::of("db", request);
    assert_ne!(tag(&base), tag(&ArchiveGetRequest { in_place_tablespaces: true, ..base.clone() }));
    assert_ne!(tag(&base), tag(&ArchiveGetRequest { branch: Some("x".to_owned()), ..base.clone() }));
    assert_eq!(tag(&ArchiveGetRequest { look_ahead_bytes: 0, ..base.clone() }), None);
    assert_eq!(tag(&ArchiveGetRequest { name: "00000002.history".to_owned(), ..base }), None);
}
