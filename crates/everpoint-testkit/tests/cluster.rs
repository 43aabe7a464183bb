//! Clusters of every version start, crash, come back, and leave nothing behind.

use std::path::Path;

use everpoint_testkit::{PgCluster, SUPPORTED, Session, SqlError, StopMode};

#[test]
fn every_version_starts_crashes_and_recovers() {
    for major in SUPPORTED {
        let mut cluster = PgCluster::builder().major(major).wal_segsize_mb(1).start().unwrap();
        let shown: u32 = cluster.session().unwrap().value("SHOW server_version_num").unwrap();
        assert_eq!(shown / 10000, major);
        assert_eq!(cluster.psql("SHOW wal_segment_size").unwrap(), "1MB");
        assert_eq!(cluster.psql("SHOW data_checksums").unwrap(), "on");
        cluster.psql("CREATE TABLE t AS SELECT g FROM generate_series(1, 1000) g").unwrap();
        cluster.kill9().unwrap();
        assert!(cluster.psql("SELECT 1").is_err(), "killed, and still there");
        cluster.start().unwrap();
        assert_eq!(cluster.psql("SELECT count(*), sum(g) FROM t").unwrap(), "1000|500500");
        cluster.restart(StopMode::Fast).unwrap();
        assert_eq!(cluster.psql("SELECT count(*) FROM t").unwrap(), "1000");
    }
}

#[test]
fn nothing_is_left_behind() {
    let cluster = PgCluster::builder().checksums(false).setting("work_mem", "7MB").start().unwrap();
    assert_eq!(cluster.psql("SHOW data_checksums").unwrap(), "off");
    assert_eq!(cluster.psql("SHOW work_mem").unwrap(), "7MB");
    let (data, sockets) = (cluster.data_dir().to_owned(), cluster.socket_dir().to_owned());
    let pid = cluster.pid().unwrap();
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    drop(cluster);
    assert!(!data.exists() && !sockets.exists(), "files are left");
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "the server still runs");
}

#[test]
fn a_standby_follows_and_is_promoted() {
    for major in [13, 18] {
        let primary = PgCluster::builder().major(major).start().unwrap();
        let standby = primary.standby().unwrap();
        primary.psql("CREATE TABLE t AS SELECT 42 AS answer").unwrap();
        let end = primary.flushed().unwrap();
        let caught_up = format!("SELECT pg_last_wal_replay_lsn() - '0/0'::pg_lsn >= {end}");
        for _ in 0..500 {
            if standby.psql(&caught_up).unwrap() == "t" {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert_eq!(standby.psql("SELECT answer FROM t").unwrap(), "42");
        standby.promote().unwrap();
        standby.psql("INSERT INTO t VALUES (43)").unwrap();
        assert_eq!(standby.system_identifier().unwrap(), primary.system_identifier().unwrap());
    }
}

#[test]
fn a_session_tells_a_refusal_from_a_loss() {
    let mut cluster = PgCluster::builder().start().unwrap();
    let mut session = cluster.session().unwrap();
    match session.query("SELECT 1/0").unwrap_err() {
        SqlError::Refused { state, .. } => assert_eq!(state, "22012"),
        lost @ SqlError::Lost(_) => panic!("{lost}"),
    }
    assert_eq!(session.query("SELECT NULL, 'a'").unwrap().rows, vec![vec![None, Some("a".to_owned())]]);
    assert_eq!(session.query("BEGIN").unwrap().tag, "BEGIN");
    session.query("SELECT nonsense").unwrap_err();
    assert_eq!(session.query("COMMIT").unwrap().tag, "ROLLBACK", "a failed transaction does not commit");
    cluster.kill9().unwrap();
    assert!(matches!(session.query("SELECT 1"), Err(SqlError::Lost(_))));
    assert!(matches!(Session::connect(&cluster.address(), "postgres"), Err(SqlError::Lost(_))));
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let Err(why) = PgCluster::builder().setting("no_such_setting", "1").start() else {
        panic!("it started with a setting that does not exist");
    };
    assert!(format!("{why:#}").contains("no_such_setting"), "{why:#}");
}
