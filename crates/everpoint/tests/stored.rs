//! Clusters that no configuration names and the repository still holds.

// Helpers of tests fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code, reason = "shared with other scenarios")]
mod support_scenarios;

use support_scenarios::{CLUSTER, World, configure, found, quiet};

#[test]
fn a_second_restore_point_of_one_name_says_which_one_is_meant() {
    if !found(15) {
        return;
    }
    let mut world = World::new(quiet(15).start().unwrap());
    world.capture();
    world.backup(&[]);
    world.source.psql("CREATE TABLE orders AS SELECT generate_series(1, 7) n").unwrap();
    let point = || world.everpoint.try_run(&["restore-point", CLUSTER, "here"]).unwrap();
    assert!(!point().err.contains("already"));
    world.source.psql("DELETE FROM orders").unwrap();
    world.settle(&world.source, 1);
    let said = point().err;
    world.settle(&world.source, 1);
    assert!(said.contains("there is a restore point here already"), "{said}");
    let (_, target) = said.split_once("--to ").unwrap();
    let copy = world.restore(target.trim(), &[]);
    assert_eq!(copy.psql("SELECT count(*) FROM orders"), "7");
    let copy = world.restore("name:here", &[]);
    assert_eq!(copy.psql("SELECT count(*) FROM orders"), "0");
}

#[test]
fn what_the_repository_still_holds_is_listed_and_restored_by_name() {
    if !found(15) {
        return;
    }
    let mut world = World::new(quiet(15).start().unwrap());
    world.capture();
    world.source.psql("CREATE TABLE orders AS SELECT generate_series(1, 7) n").unwrap();
    let label = world.backup(&[]);
    world.settle(&world.source, 1);
    world.stop_capture();
    world.everpoint.run(&["forget", CLUSTER]).unwrap();

    for arguments in [&["list"][..], &["list", CLUSTER]] {
        let said = world.everpoint.run(arguments).unwrap();
        assert!(said.contains(&label) && said.contains("not configured"), "{said}");
    }
    let listed = world.everpoint.json(&["list"]).unwrap();
    assert_eq!(
        (&listed["clusters"][0]["name"], &listed["clusters"][0]["configured"]),
        (&CLUSTER.into(), &false.into())
    );
    // Its server fetches the log with the same configuration.
    let copy = world.restore("latest", &[]);
    assert_eq!(copy.psql("SELECT count(*) FROM orders"), "7");
    copy.stop_and_check(&world);

    let ran = world.everpoint.try_run(&["list", "orders-db"]).unwrap();
    assert_eq!(ran.status.code(), Some(2), "{}", ran.err);
    assert!(ran.err.contains("no repository holds it") && ran.err.contains(CLUSTER), "{}", ran.err);
    // What needs a server is still refused.
    let ran = world.everpoint.try_run(&["backup", CLUSTER]).unwrap();
    assert!(ran.status.code() == Some(2) && ran.err.contains("has no [cluster.order-db]"), "{}", ran.err);

    // Beside one that is configured, it is told from that.
    configure(&world, |text| {
        format!("{text}\n[cluster.other]\npostgres = \"postgres://nobody@127.0.0.1:1/postgres\"\n")
    });
    let said = world.everpoint.run(&["list"]).unwrap();
    assert_eq!(said.matches("not configured").count(), 1, "{said}");
    assert!(said.contains("other (postgresql)\n"), "{said}");
}
