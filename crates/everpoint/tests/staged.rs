//! A restore that puts the log beside the image: the server then needs neither program, key nor repository.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers may fail loudly")]

#[allow(dead_code, reason = "shared with other scenarios")]
mod support_scenarios;

use std::fs;
use std::time::Duration;

use everpoint_testkit::RunningCopy;
use support_scenarios::{CLUSTER, World, found, quiet};

#[test]
fn a_server_recovers_from_staged_log_alone() {
    if !found(15) {
        return;
    }
    let mut world = World::new(quiet(15).wal_segsize_mb(1).start().unwrap());
    world.capture();
    world.backup(&[]);
    let place = world.source.home().subdir("space").unwrap();
    for sql in [
        "CREATE TABLE t AS SELECT repeat('x', 100) AS word FROM generate_series(1, 30000)",
        &format!("CREATE TABLESPACE late LOCATION '{}'", place.display()),
        "CREATE TABLE there TABLESPACE late AS SELECT 1",
        "INSERT INTO t VALUES ('last')",
    ] {
        world.source.psql(sql).unwrap();
    }
    world.settle(&world.source, 1);
    let copy = world.place();
    world.everpoint.run(&["restore", CLUSTER, copy.to_str().unwrap(), "--stage-log"]).unwrap();
    let home = world.everpoint.home().path();
    fs::rename(home.join("repository"), home.join("away")).unwrap();
    let staged = copy.join("everpoint-log");
    assert!(fs::read_dir(&staged).unwrap().count() >= 3, "several segments were written");
    let script = format!("pg_ctl -D {} -w -l restored.log start", copy.display());
    let started = world.everpoint.shell(&script, &world.source.install().bin()).unwrap();
    let started = started.wait(Duration::from_secs(60)).unwrap();
    assert!(started.status.success(), "{}{}", started.out, started.err);
    let server = RunningCopy::on(&copy).unwrap();
    let mut session = server.session().unwrap();
    world.wait_for("it is promoted", || {
        session.query("SELECT pg_is_in_recovery()").unwrap().to_string() == "f"
    });
    let rows = session.query("SELECT count(*), count(*) FILTER (WHERE word = 'last') FROM t").unwrap();
    assert_eq!(rows.to_string(), "30001|1");
    assert!(!staged.exists(), "what is needed no more is removed");
    assert_eq!(
        world.source.psql("SELECT count(*) FROM there").unwrap(),
        "1",
        "production kept its tablespace"
    );
}
