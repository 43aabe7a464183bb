//! A record that a crash cut off, on a real server: what replaces it is read as PostgreSQL's own pg_waldump reads it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod wal_rig;

use everpoint_core::{LogEvent, Verdict};
use everpoint_engine::LogDecoder as _;
use everpoint_pg::lsn::{Lsn, SegmentName};
use everpoint_pg::wal::{SegmentHead, WalDecoder, records, unknown_carry};
use wal_rig::{Server, as_server_user, programs};

const SEGMENT: u64 = 1 << 20;

fn aborted_record_is_replaced(major: u32) {
    let mut server = Server::start(major, 1, true, &[]);
    server.sql("create table t(i int)");
    server.sql("select pg_switch_wal()");
    server.sql("insert into t values (1)");
    // One record over several segments; its last ones are lost in the crash.
    server.sql("select pg_logical_emit_message(true, 'big', repeat('0123456789', 300000))");
    let begun: Lsn = server.sql("select pg_current_wal_lsn()").parse().unwrap();
    server.crash();
    let kept = |bytes: &[u8]| SegmentHead::parse(bytes).is_ok_and(|head| head.start.0 < begun.0 - SEGMENT);
    for (name, bytes) in server.segments() {
        if !kept(&bytes) {
            std::fs::remove_file(server.data.join("pg_wal").join(name)).unwrap();
        }
    }
    server.run();
    server.sql("insert into t values (2)");
    server.crash();

    let segments: Vec<_> = server
        .segments()
        .into_iter()
        .filter_map(|(name, bytes)| Some((SegmentHead::parse(&bytes).ok()?.start, name, bytes)))
        // Files made ready for later use still hold older log.
        .filter(|(start, name, _)| SegmentName::parse(name).unwrap().start(SEGMENT) == Some(*start))
        .collect();
    let start = segments[0].0;
    let all: Vec<u8> = segments.iter().flat_map(|(_, _, bytes)| bytes.clone()).collect();
    let ours: Vec<_> = records(&all, start, SEGMENT, None).map(|it| Lsn::from(it.span.start)).collect();
    let dump = as_server_user(programs(major).join("pg_waldump"))
        .arg("-p")
        .arg(server.data.join("pg_wal"))
        .args([&segments[0].1, &segments[segments.len() - 1].1])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&dump.stdout).into_owned();
    let theirs: Vec<Lsn> = text
        .lines()
        .map(|line| line.split_once("lsn: ").unwrap().1.split(',').next().unwrap().parse().unwrap())
        .collect();
    assert!(text.contains("OVERWRITE_CONTRECORD"), "{text}");
    assert_eq!(ours, theirs);

    // Through one decoder, cut at every segment: the record that was given up never shows, the later commit does.
    let mut decoder = WalDecoder::new(SEGMENT, unknown_carry(start));
    let mut commits = 0;
    for segment in all.chunks(SEGMENT as usize) {
        decoder.feed(segment);
        let found = decoder.cut();
        assert!(!matches!(found.verdict, Verdict::Broken { .. }), "{:?}", found.verdict);
        commits += found.events.iter().filter(|event| matches!(event, LogEvent::Commit(_))).count();
    }
    assert!(commits >= 3);
}

#[test]
fn a_record_that_a_crash_of_14_cut_off_is_passed_over() {
    aborted_record_is_replaced(14);
}

#[test]
fn a_record_that_a_crash_of_18_cut_off_is_passed_over() {
    aborted_record_is_replaced(18);
}
