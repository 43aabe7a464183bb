//! What a server's settings and catalogs say, against real servers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod client_rig;

use client_rig::{VERSIONS, config};
use everpoint_core::Micros;
use everpoint_engine::{CheckLine, CheckState, StopFlag};
use everpoint_pg::catalog::{SqlBackup, check, identify, restore_point};
use everpoint_pg::client::Config;
use everpoint_pg::files::BackupSession;
use everpoint_testkit::PgCluster;

/// How far a standby may be behind.
const LAG: Micros = Micros(1_000_000);

fn state<'a>(lines: &'a [CheckLine], name: &str) -> (CheckState, &'a str) {
    let line = lines.iter().find(|line| line.name == name).unwrap_or_else(|| panic!("no {name}: {lines:#?}"));
    (line.state, &line.message)
}

#[test]
fn a_good_server_has_no_errors_and_each_trouble_its_line() {
    for major in VERSIONS {
        let cluster = PgCluster::builder().major(major).start().unwrap();
        let config = config(&cluster);
        let lines = check(&config, Some("s"), LAG);
        assert!(lines.iter().all(|line| line.state != CheckState::Error), "{major}: {lines:#?}");
        assert!(state(&lines, "slot").1.contains("does not exist yet"));
        cluster.psql("SELECT pg_create_physical_replication_slot('s', true)").unwrap();
        let lines = check(&config, Some("s"), LAG);
        assert!(state(&lines, "slot").1.contains("not in use"), "{major}: {lines:#?}");
        assert!(state(&lines, "version").1.starts_with(&format!("PostgreSQL {major}")));
        assert!(state(&lines, "connection").1.contains(&cluster.system_identifier().unwrap().to_string()));
    }
}

#[test]
fn a_poor_server_gets_its_remedies() {
    let cluster = PgCluster::builder()
        .checksums(false)
        .settings([
            ("wal_level", "minimal"),
            ("max_wal_senders", "0"),
            ("full_page_writes", "off"),
            ("synchronous_standby_names", "everpoint"),
            ("synchronous_commit", "remote_apply"),
        ])
        .start()
        .unwrap();
    let lines = check(&config(&cluster), None, LAG);
    assert_eq!(state(&lines, "connection").0, CheckState::Error, "no sender: no replication connection");
    assert_eq!(state(&lines, "wal_level").0, CheckState::Error);
    assert_eq!(state(&lines, "wal_senders").0, CheckState::Error);
    for name in ["checksums", "full_page_writes", "synchronous"] {
        assert_eq!(state(&lines, name).0, CheckState::Warning, "{name}");
    }
}

#[test]
fn archiving_that_fails_is_seen() {
    let cluster = PgCluster::builder()
        .settings([("archive_mode", "on"), ("archive_command", "false")])
        .start()
        .unwrap();
    cluster.psql("CREATE TABLE t (); SELECT pg_switch_wal()").unwrap();
    for _ in 0..200 {
        if cluster.psql("SELECT failed_count > 0 FROM pg_stat_archiver").unwrap() == "t" {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let lines = check(&config(&cluster), None, LAG);
    assert_eq!(state(&lines, "archive").0, CheckState::Error, "{lines:#?}");
}

#[test]
fn missing_privileges_are_named_with_their_grant() {
    let cluster = PgCluster::builder().major(16).start().unwrap();
    cluster.psql("CREATE ROLE weak LOGIN; CREATE ROLE backup LOGIN REPLICATION").unwrap();
    let as_role = |role: &str| {
        Config::parse(&format!("postgres://{role}@127.0.0.1:{}/postgres", cluster.port())).unwrap()
    };
    let lines = check(&as_role("weak"), None, LAG);
    let line = lines.iter().find(|line| line.name == "connection").unwrap();
    assert_eq!(line.hint.as_deref(), Some("ALTER ROLE \"weak\" REPLICATION"));
    assert_eq!(state(&lines, "privileges").0, CheckState::Error);
    let lines = check(&as_role("backup"), None, LAG);
    let hint = lines.iter().find(|line| line.name == "privileges").unwrap().hint.clone().unwrap();
    cluster.psql(&hint).unwrap();
    assert!(state(&check(&as_role("backup"), None, LAG), "privileges").1.contains("by reading files"));
    let error = restore_point(&as_role("backup"), "x").unwrap_err();
    assert_eq!(error.code, "pg.privilege");
    cluster.psql(&error.hint.unwrap()).unwrap();
    assert!(restore_point(&as_role("backup"), "x").unwrap().0 > 0);
}

#[test]
fn a_backup_session_starts_and_stops_in_every_version_and_on_a_standby() {
    for major in VERSIONS {
        let primary = PgCluster::builder().major(major).start().unwrap();
        let standby = primary.standby().unwrap();
        for cluster in [&primary, &standby] {
            let mut session = SqlBackup::open(&config(cluster), &StopFlag::default()).unwrap();
            assert!(session.may().unwrap());
            let start = session.start("it's a label", true).unwrap();
            assert_eq!(start.timeline, 1);
            let stop = session.stop().unwrap();
            assert!(stop.label_file.contains("LABEL: it's a label"), "{major}");
            assert!(stop.position >= start.position && stop.stopped_at > start.started_at);
            assert_eq!(stop.timeline, 1);
            assert!(stop.tablespace_map.is_empty());
            assert!(stop.facts.iter().any(|(name, _)| name == "max_connections"));
        }
        assert!(identify(&config(&standby)).unwrap().in_recovery);
    }
}

#[test]
fn a_standby_that_waits_behind_a_busy_primary_is_late_and_an_idle_one_is_not() {
    let primary = PgCluster::builder().major(17).start().unwrap();
    primary.psql("CREATE TABLE t AS SELECT 1 AS n").unwrap();
    let standby = primary.standby().unwrap();
    let lag = || {
        let lines = check(&config(&standby), None, LAG);
        let (state, message) = state(&lines, "standby_lag");
        (state, message.to_owned())
    };
    let replayed = || standby.psql("SELECT pg_last_xact_replay_timestamp() IS NOT NULL").unwrap() == "t";
    primary.psql("INSERT INTO t VALUES (2)").unwrap();
    (0..600)
        .find(|_| {
            replayed() || {
                std::thread::sleep(std::time::Duration::from_millis(50));
                false
            }
        })
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert_eq!(lag().0, CheckState::Ok, "idle for longer than the limit: {}", lag().1);
    standby.psql("SELECT pg_wal_replay_pause()").unwrap();
    primary.psql("INSERT INTO t SELECT generate_series(1, 1000)").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let (state, message) = lag();
    assert_eq!(state, CheckState::Error, "{message}");
    assert!(message.contains("behind its primary"), "{message}");
    standby.psql("SELECT pg_wal_replay_resume()").unwrap();
    assert_eq!(lag().0, CheckState::Ok, "it may take a moment to come after: {}", lag().1);
}
