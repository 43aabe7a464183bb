//! Recovery on real servers: to the very record, never past it, and never into production's directories.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod wal_rig;

use std::fs;

use everpoint_core::{FailureClass, LogOffset};
use everpoint_engine::{LocalLog, LocalTimeline, RecoveryEvent, StopAt};
use everpoint_pg::lsn::Lsn;
use everpoint_pg::recovery::{local_log, local_place, prepare_recovery};
use wal_rig::free_port;
use wal_rig::production::{Production, Recovered, SEGMENT};

fn stops_at_the_record(major: u32) {
    let production = Production::new(major, &[]);
    let _ = production.insert(2);
    let wanted = production.insert(3);
    let _ = production.insert(4);
    let record = production.commit_of(wanted);
    for (name, inclusive, rows) in [("before", false, "1,2"), ("after", true, "1,2,3")] {
        let stop = Some(StopAt { record, inclusive });
        let copy = production.copy(name);
        prepare_recovery(&production.settings(&copy, &production.archive, stop)).unwrap();
        assert_eq!(fs::read_dir(copy.join("pg_replslot")).unwrap().count(), 0);
        let port = free_port();
        let copy = Recovered::start(major, &copy, stop, Some(port)).unwrap();
        assert_eq!(copy.sql("select string_agg(i::text, ',' order by i) from t"), rows);
        assert_eq!(copy.reached.port, port);
        assert_eq!(copy.reached.position > record, inclusive);
        assert!(copy.reached.last_commit.is_some());
        assert!(matches!(copy.events.first(), Some(RecoveryEvent::Started { .. })));
        assert!(copy.events.contains(&RecoveryEvent::Promoting));
        copy.sql("insert into t values (100)");
        let shown = |name: &str| copy.sql(&format!("show {name}"));
        assert_eq!((shown("archive_mode").as_str(), shown("work_mem").as_str()), ("off", "4MB"));
        assert_eq!(shown("max_logical_replication_workers"), "0");
        assert!(copy.directory.join("postgresql.conf.production").exists());
    }
}

#[test]
fn recovery_of_13_stops_at_the_record() {
    stops_at_the_record(13);
}

#[test]
fn recovery_of_15_stops_at_the_record() {
    stops_at_the_record(15);
}

#[test]
fn recovery_of_18_stops_at_the_record() {
    stops_at_the_record(18);
}

#[test]
fn a_target_that_is_not_reached_is_a_shortfall_and_leaves_no_server() {
    let production = Production::new(16, &[]);
    let xid = production.insert(2);
    let record = production.commit_of(xid);
    let copy = production.copy("copy");
    let stop = Some(StopAt { record: record.plus(64 << 20), inclusive: true });
    prepare_recovery(&production.settings(&copy, &production.archive, stop)).unwrap();
    let error = Recovered::start(16, &copy, stop, Some(free_port())).err().unwrap();
    assert_eq!((error.code, error.class), ("pg.recovery_short", FailureClass::Shortfall), "{error}");
    assert!(!copy.join("postmaster.pid").exists());

    // A record that is none: the server would stop after the next one; we notice.
    let stop = Some(StopAt { record: LogOffset(record.0 - 8), inclusive: true });
    let copy = production.copy("between");
    prepare_recovery(&production.settings(&copy, &production.archive, stop)).unwrap();
    let error = Recovered::start(16, &copy, stop, Some(free_port())).err().unwrap();
    assert_eq!(error.code, "pg.recovery_short", "{error}");
    assert!(!copy.join("postmaster.pid").exists());
}

#[test]
fn kept_configuration_gains_only_recovery() {
    let production = Production::new(17, &[]);
    let xid = production.insert(2);
    let stop = Some(StopAt { record: production.commit_of(xid), inclusive: true });
    let copy = production.copy("copy");
    let mut settings = production.settings(&copy, &production.archive, stop);
    settings.keep_configuration = true;
    settings.facts.push(("max_connections".to_owned(), "333".to_owned()));
    prepare_recovery(&settings).unwrap();
    prepare_recovery(&settings).unwrap();
    let text = fs::read_to_string(copy.join("postgresql.auto.conf")).unwrap();
    assert_eq!(text.matches("recovery_target_lsn").count(), 1, "{text}");
    let copy = Recovered::start(17, &copy, stop, Some(free_port())).unwrap();
    assert_eq!(copy.sql("show work_mem"), "5MB");
    assert_eq!(copy.sql("show archive_mode"), "on");
    assert_eq!(copy.sql("show max_connections"), "333");
    assert_eq!(copy.sql("select count(*) from t"), "2");
}

#[test]
fn the_log_left_in_a_directory_is_found_to_its_last_record() {
    let mut production = Production::new(18, &["wal_recycle=on"]);
    for row in 2..40 {
        let _ = production.insert(row);
    }
    production.server.sql("select pg_logical_emit_message(true, 'big', repeat('0123456789', 500000))");
    let end: Lsn = production.server.sql("select pg_current_wal_insert_lsn()").parse().unwrap();
    production.server.crash();
    let place = local_place(&production.server.data).unwrap();
    assert_eq!((place.timeline, place.history.as_deref(), place.in_recovery), (1, Some(&[][..]), false));
    let of = |timeline| LocalTimeline {
        system: place.system,
        timeline,
        begin: LogOffset(0),
        reached: place.written,
    };
    let log = local_log(&production.server.data, &of(1), SEGMENT).unwrap();
    assert_eq!((log.runs.len(), log.odd.len()), (1, 0), "{log:?}");
    let found = log.runs[0];
    assert!(found.from < place.written && place.written < found.to, "{found:?} {place:?}");
    assert!(found.to >= LogOffset::from(end) || LogOffset::from(end).since(found.to) < 8, "{found:?} {end}");
    assert!(found.from < found.to);
    // As pg_control says it of a recovery that ended with this record: where the next one begins.
    let next = LogOffset(found.to.0.next_multiple_of(8));
    assert!(next > found.to, "the last record fills its place: nothing is shown");
    let ended = LocalTimeline { reached: next, ..of(1) };
    assert_eq!(local_log(&production.server.data, &ended, SEGMENT).unwrap(), log);
    let nothing = LocalLog::default();
    assert_eq!(local_log(&production.base, &of(1), SEGMENT).unwrap().runs, nothing.runs);
    assert_eq!(local_log(&production.server.data, &of(2), SEGMENT).unwrap(), nothing);
    let other = LocalTimeline { system: 1, ..of(1) };
    let foreign = local_log(&production.server.data, &other, SEGMENT).unwrap();
    assert!(foreign.runs.is_empty() && !foreign.odd.is_empty(), "{foreign:?}");
}
