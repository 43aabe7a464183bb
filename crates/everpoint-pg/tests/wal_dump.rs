//! Every record of real WAL, as this crate reads it, against what PostgreSQL's own pg_waldump says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod wal_rig;

use everpoint_core::{Carry, LogEvent, LogOffset, Micros, Verdict};
use everpoint_engine::LogDecoder as _;
use everpoint_pg::lsn::Lsn;
use everpoint_pg::wal::{
    PageHeader, RecordParts, SeenRecord, SegmentHead, WalDecoder, digest_of_segment, last_carry_of_segment,
    records, unknown_carry,
};
use wal_rig::workload::workload;
use wal_rig::{Server, programs};

const MANAGERS: [&str; 22] = [
    "XLOG",
    "Transaction",
    "Storage",
    "CLOG",
    "Database",
    "Tablespace",
    "MultiXact",
    "RelMap",
    "Standby",
    "Heap2",
    "Heap",
    "Btree",
    "Hash",
    "Gin",
    "Gist",
    "Sequence",
    "SPGist",
    "BRIN",
    "CommitTs",
    "ReplicationOrigin",
    "Generic",
    "LogicalMessage",
];

#[derive(Debug, PartialEq, Eq)]
struct Line {
    manager: String,
    total: u32,
    xid: u32,
    start: Lsn,
    previous: Lsn,
}

fn dump(server: &Server, first: &str, last: &str) -> Vec<(Line, String)> {
    let mut command = wal_rig::as_server_user(programs(server.major).join("pg_waldump"));
    command.env("TZ", "UTC").arg("-p").arg(server.data.join("pg_wal")).args([first, last]);
    // It fails at the end of the log, having printed all before.
    let output = command.output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().map(parse).collect()
}

fn parse(line: &str) -> (Line, String) {
    let (head, description) = line.split_once(", desc: ").unwrap();
    let fields: Vec<&str> = head.split(", ").collect();
    let last = |field: &str| field.split_whitespace().last().unwrap().to_owned();
    let lengths = fields[0].rsplit_once('/').unwrap().1;
    let manager = fields[0].split_whitespace().nth(1).unwrap().to_owned();
    (
        Line {
            manager,
            total: lengths.trim().parse().unwrap(),
            xid: last(fields[1]).parse().unwrap(),
            start: last(fields[2]).parse().unwrap(),
            previous: last(fields[3]).parse().unwrap(),
        },
        description.to_owned(),
    )
}

fn time(micros: Micros) -> String {
    jiff::Timestamp::from_microsecond(micros.0)
        .unwrap()
        .to_zoned(jiff::tz::TimeZone::UTC)
        .strftime("%Y-%m-%d %H:%M:%S%.6f UTC")
        .to_string()
}

/// What pg_waldump's description must contain for an event.
fn expected(event: &LogEvent) -> Vec<String> {
    match event {
        LogEvent::Commit(end) | LogEvent::Abort(end) => {
            let verb = if matches!(event, LogEvent::Commit(_)) { "COMMIT" } else { "ABORT" };
            let mut parts = vec![time(end.time)];
            parts.push(if end.prepared {
                format!("{verb}_PREPARED {}: ", end.xid)
            } else {
                format!("{verb} ")
            });
            if !end.subxids.is_empty() {
                let ids: Vec<String> = end.subxids.iter().map(u64::to_string).collect();
                parts.push(format!("subxacts: {}", ids.join(" ")));
            }
            parts
        }
        LogEvent::Prepare { gid, .. } => vec![format!("PREPARE gid {gid}: ")],
        LogEvent::RestorePoint { name, .. } => vec![format!("RESTORE_POINT {name}")],
        LogEvent::Checkpoint { redo, shutdown, timeline, previous_timeline, .. } => vec![
            format!("CHECKPOINT_{} redo ", if *shutdown { "SHUTDOWN" } else { "ONLINE" }),
            format!("redo {}; tli {timeline}; prev tli {previous_timeline};", Lsn::from(*redo)),
        ],
        LogEvent::EndOfRecovery { timeline, .. } => vec![format!("END_OF_RECOVERY tli {timeline};")],
        LogEvent::Parameters { minimal, limits, .. } => vec![
            format!("max_connections={} max_worker_processes={}", limits[0], limits[1]),
            format!("max_wal_senders={} max_prepared_xacts={}", limits[2], limits[3]),
            format!("max_locks_per_xact={} wal_level={}", limits[4], if *minimal { "minimal" } else { "" }),
        ],
        LogEvent::DatabaseCreate { database, tablespace, .. } => vec![format!("{tablespace}/{database}")],
        LogEvent::DatabaseDrop { database, tablespaces, .. } => {
            tablespaces.iter().map(|it| format!("{it}/{database}")).collect()
        }
        LogEvent::TablespaceCreate { tablespace, path, .. } => {
            vec![format!("CREATE {tablespace} \"{path}\"")]
        }
        LogEvent::TablespaceDrop { tablespace, .. } => vec![format!("DROP {tablespace}")],
        LogEvent::SegmentSwitch { .. } => vec!["SWITCH".to_owned()],
        LogEvent::Extension { .. } => Vec::new(),
        LogEvent::BackupEnd { start, .. } => vec![format!("BACKUP_END {}", Lsn::from(*start))],
    }
}

/// Kinds that must give an event.
fn is_event(manager: &str, description: &str) -> bool {
    let first = description.split_whitespace().next().unwrap_or_default();
    match manager {
        "XLOG" => matches!(
            first,
            "CHECKPOINT_SHUTDOWN"
                | "CHECKPOINT_ONLINE"
                | "SWITCH"
                | "BACKUP_END"
                | "PARAMETER_CHANGE"
                | "RESTORE_POINT"
                | "END_OF_RECOVERY"
        ),
        "Transaction" => {
            matches!(first, "COMMIT" | "ABORT" | "COMMIT_PREPARED" | "ABORT_PREPARED" | "PREPARE")
        }
        "Database" | "Tablespace" => true,
        _ => false,
    }
}

fn compare(major: u32, segment_mib: u32) {
    let mut server = Server::start(major, segment_mib, true, &[]);
    workload(&server);
    let segment_size = server.segment_size();
    let end: Lsn = server.sql("select pg_current_wal_lsn()").parse().unwrap();
    server.crash();
    let segments: Vec<_> = server
        .segments()
        .into_iter()
        .filter(|(_, bytes)| SegmentHead::parse(bytes).is_ok_and(|head| head.start < LogOffset::from(end)))
        .collect();
    let first = SegmentHead::parse(&segments[0].1).unwrap();
    assert_eq!(first.segment_size, segment_size);
    let all: Vec<u8> = segments.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect();

    let ours: Vec<_> = records(&all, first.start, segment_size, None).collect();
    let events = digest_of_segment(&all, first.start, segment_size, None).events;
    if major >= 14 {
        let theirs = dump(&server, &segments[0].0, &segments[segments.len() - 1].0);
        assert!(theirs.len() > 10_000, "{} records", theirs.len());
        let mut blocks = 0;
        for (ours, (theirs, description)) in ours.iter().zip(&theirs) {
            blocks += check_blocks(&all, first.start, segment_size, ours, description);
            let line = Line {
                manager: MANAGERS[usize::from(ours.header.manager)].to_owned(),
                total: ours.header.total,
                xid: ours.header.xid,
                start: ours.span.start.into(),
                previous: Lsn(ours.header.previous),
            };
            assert_eq!(&line, theirs);
        }
        assert_eq!(ours.len(), theirs.len());
        assert!(blocks > 10_000, "{blocks} blocks");
        let marks: Vec<Lsn> = events
            .iter()
            .filter(|it| matches!(it, LogEvent::DatabaseDrop { tablespaces, .. } if tablespaces.is_empty()))
            .map(|it| it.record().start.into())
            .collect();
        assert!(!marks.is_empty(), "no database was marked as unusable before it was dropped");
        let of_interest: Vec<_> = theirs
            .iter()
            .filter(|(line, description)| {
                is_event(&line.manager, description)
                    || (marks.contains(&line.start)
                        && description.starts_with("INPLACE")
                        && description.contains("rel 1664/0/"))
            })
            .collect();
        for (event, (line, description)) in events.iter().zip(&of_interest) {
            assert_eq!(Lsn::from(event.record().start), line.start, "{event:?} {description}");
            for part in expected(event) {
                assert!(description.contains(&part), "{event:?}: {part:?} not in {description:?}");
            }
        }
        assert_eq!(events.len(), of_interest.len());
    } else {
        compare_events_only(&events);
    }
    check_pieces(&segments, segment_size, events);
}

/// The blocks that a record refers to, as pg_waldump prints them; returns how many.
fn check_blocks(
    log: &[u8],
    from: LogOffset,
    segment_size: u64,
    record: &SeenRecord,
    description: &str,
) -> usize {
    let format = PageHeader::parse(log).unwrap().format;
    let mut bytes = Vec::new();
    let mut position = record.span.start.0;
    while position < record.span.end.0 {
        let page_end = (position + 1).next_multiple_of(8192);
        let until = page_end.min(record.span.end.0);
        bytes.extend_from_slice(&log[(position - from.0) as usize..(until - from.0) as usize]);
        position = if until == page_end {
            until + if until.is_multiple_of(segment_size) { 40 } else { 24 }
        } else {
            until
        };
    }
    assert_eq!(bytes.len(), record.header.total as usize);
    let parts = RecordParts::parse(&bytes[24..], format).unwrap();
    let theirs: Vec<&str> = description.split("blkref #").skip(1).collect();
    assert_eq!(parts.blocks.len(), theirs.len(), "{description}");
    for (ours, theirs) in parts.blocks.iter().zip(&theirs) {
        let fork = ["", " fork fsm", " fork vm", " fork init"][usize::from(ours.fork)];
        let relation = format!("{}/{}/{}", ours.tablespace, ours.database, ours.relation);
        assert!(theirs.contains(&format!("rel {relation}{fork} blk {}", ours.block)), "{ours:?} {theirs}");
        assert_eq!(ours.image_bytes > 0, theirs.contains("FPW"), "{ours:?} {theirs}");
    }
    theirs.len()
}

/// Without a pg_waldump of the version: everything that the workload did must be there.
fn compare_events_only(events: &[LogEvent]) {
    let count = |wanted: fn(&LogEvent) -> bool| events.iter().filter(|event| wanted(event)).count();
    assert!(count(|it| matches!(it, LogEvent::Commit(_))) > 800);
    assert!(events.iter().any(|it| matches!(it, LogEvent::Commit(end) if end.subxids.len() >= 300)));
    assert_eq!(count(|it| matches!(it, LogEvent::Commit(end) if end.prepared)), 1);
    assert_eq!(count(|it| matches!(it, LogEvent::Abort(end) if end.prepared)), 1);
    assert!(events.iter().any(|it| matches!(it, LogEvent::Prepare { gid, .. } if gid == "it's one")));
    assert!(
        events
            .iter()
            .any(|it| matches!(it, LogEvent::RestorePoint { name, .. } if name == "before everything"))
    );
    assert!(count(|it| matches!(it, LogEvent::DatabaseCreate { .. })) >= 2);
    assert!(
        count(|it| matches!(it, LogEvent::DatabaseDrop { tablespaces, .. } if tablespaces == &[1663])) >= 1
    );
    assert!(
        events
            .iter()
            .any(|it| matches!(it, LogEvent::TablespaceCreate { path, .. } if path.ends_with("/space")))
    );
    assert_eq!(count(|it| matches!(it, LogEvent::TablespaceDrop { .. })), 1);
}

/// Segment by segment, with carries as found at the end of the segment before, everything is found again.
fn check_pieces(segments: &[(String, Vec<u8>)], segment_size: u64, events: Vec<LogEvent>) {
    let mut carry: Option<Carry> = None;
    let mut found = Vec::new();
    let mut flowing: Option<WalDecoder> = None;
    for (index, (name, bytes)) in segments.iter().enumerate() {
        let start = SegmentHead::parse(bytes).unwrap().start;
        let digest = digest_of_segment(bytes, start, segment_size, carry.clone());
        // Small segments from before the test may be gone: then the first one begins within a record.
        assert_eq!(digest.head_unknown, index == 0 && PageHeader::parse(bytes).unwrap().continues, "{name}");
        assert_eq!(u64::from(digest.timeline), 1);
        if index + 1 < segments.len() {
            assert!(!matches!(digest.verdict, Verdict::Broken { .. }), "{name}: {:?}", digest.verdict);
        }
        // Fed in odd pieces through one decoder for all segments, the same comes out.
        let decoder = flowing.get_or_insert_with(|| WalDecoder::new(segment_size, unknown_carry(start)));
        for piece in bytes.chunks(7919 + index) {
            decoder.feed(piece);
        }
        let flowed = decoder.cut();
        assert_eq!(flowed, digest, "{name}");
        found.extend(digest.events);
        let next = last_carry_of_segment(bytes, start, segment_size, carry.take());
        if index + 1 < segments.len() {
            let (ours, theirs) = (&next, decoder.carry());
            assert_eq!((ours.record_start, ours.position), (theirs.record_start, theirs.position), "{name}");
            assert_eq!((&ours.bytes, ours.received), (&theirs.bytes, theirs.received), "{name}");
        }
        carry = Some(next);
    }
    assert_eq!(found, events);
}

#[test]
fn records_of_13_are_read() {
    compare(13, 16);
}

#[test]
fn records_of_14_are_read_as_pg_waldump_reads_them() {
    compare(14, 16);
}

#[test]
fn records_of_15_are_read_as_pg_waldump_reads_them() {
    compare(15, 1);
}

#[test]
fn records_of_16_are_read_as_pg_waldump_reads_them() {
    compare(16, 64);
}

#[test]
fn records_of_17_are_read_as_pg_waldump_reads_them() {
    compare(17, 16);
}

#[test]
fn records_of_18_are_read_as_pg_waldump_reads_them() {
    compare(18, 16);
}
