//! A copy that replays CREATE and DROP TABLESPACE beside production never touches production's directories.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod wal_rig;

use std::fs;
use std::path::{Path, PathBuf};

use everpoint_core::{LogEvent, LogOffset};
use everpoint_engine::StopAt;
use everpoint_pg::lsn::SegmentName;
use everpoint_pg::recovery::{prepare_recovery, rewrite_for_copy};
use everpoint_pg::wal::digest_of_segment;
use wal_rig::free_port;
use wal_rig::production::{Production, Recovered, SEGMENT, make_directory, own};

/// Names and contents of all files under a directory.
fn contents(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            found.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

/// Everything that creates and drops tablespaces, with a production that still lives in one of them.
fn never_touches_production(major: u32) {
    let production = Production::new(major, &["allow_in_place_tablespaces=on"]);
    let spaces: Vec<PathBuf> =
        ["one", "two"].iter().map(|name| production.server.sockets.join(name)).collect();
    let server = &production.server;
    make_directory(&spaces[0]);
    make_directory(&spaces[1]);
    let create = |name: &str, place: &Path| {
        server.sql(&format!("create tablespace {name} location '{}'", place.display()));
    };
    create("gone", &spaces[0]);
    server.sql("create table g tablespace gone as select generate_series(1, 1000) i");
    server.sql("drop table g");
    server.sql("drop tablespace gone");
    create("kept", &spaces[0]);
    server.sql("create table k tablespace kept as select generate_series(1, 5000) i");
    // Many, so that some records cross pages and a segment's end.
    for round in 0..60 {
        let filler = "x".repeat(40 + round * 13 % 400);
        server.sql(&format!("select pg_logical_emit_message(false, 'fill', repeat('{filler}', 90))"));
        create("short", &spaces[1]);
        server.sql("drop tablespace short");
    }
    create("mapped", &spaces[1]);
    server.sql("create table m tablespace mapped as select generate_series(1, 700) i");
    let mapped: u32 = server.sql("select oid from pg_tablespace where spcname = 'mapped'").parse().unwrap();
    let xid = production.insert(2);
    let stop = Some(StopAt { record: production.commit_of(xid), inclusive: true });
    server.sql("checkpoint");

    let segments = production.archived();
    let safe = server.sockets.join("safe");
    make_directory(&safe);
    let mut changed = 0;
    for (start, bytes) in &segments {
        let mut bytes = bytes.clone();
        let mut neighbour = |at: LogOffset| {
            Ok(segments.iter().find(|(start, _)| *start == at).map(|(_, bytes)| bytes.clone()))
        };
        changed += u32::from(rewrite_for_copy(&mut bytes, *start, SEGMENT, &mut neighbour).unwrap());
        let path = safe.join(SegmentName::containing(1, *start, SEGMENT).to_string());
        fs::write(&path, bytes).unwrap();
        own(&path);
    }
    assert!(changed > 1, "{changed} segments of {}", segments.len());
    let all: Vec<u8> = segments
        .iter()
        .flat_map(|(start, _)| {
            fs::read(safe.join(SegmentName::containing(1, *start, SEGMENT).to_string())).unwrap()
        })
        .collect();
    let digest = digest_of_segment(&all, segments[0].0, SEGMENT, None);
    let paths: Vec<_> = digest
        .events
        .iter()
        .filter_map(|event| match event {
            LogEvent::TablespaceCreate { path, .. } => Some(path.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!((paths.len(), paths.concat()), (63, String::new()));

    let before: Vec<_> = spaces.iter().map(|space| contents(space)).collect();
    let copy = production.copy("copy");
    let mut settings = production.settings(&copy, &safe, stop);
    let place = server.sockets.join("place");
    settings.links = vec![(mapped, place.clone())];
    prepare_recovery(&settings).unwrap();
    let copy = Recovered::start(major, &copy, stop, Some(free_port())).unwrap();
    assert_eq!(copy.sql("select count(*), sum(i) from k"), "5000|12502500");
    assert_eq!(copy.sql("select count(*) from m"), "700");
    assert!(!contents(&place).is_empty());
    copy.sql("insert into k select generate_series(1, 5000)");
    copy.sql("checkpoint");
    let after: Vec<_> = spaces.iter().map(|space| contents(space)).collect();
    assert!(before == after, "production's tablespaces changed");
    assert_eq!(server.sql("select count(*) from k"), "5000");
}

#[test]
fn replay_of_tablespaces_of_13_stays_inside_the_copy() {
    never_touches_production(13);
}

#[test]
fn replay_of_tablespaces_of_15_stays_inside_the_copy() {
    never_touches_production(15);
}

#[test]
fn replay_of_tablespaces_of_18_stays_inside_the_copy() {
    never_touches_production(18);
}
