//! The daemon on real servers: it captures, backs up by schedule, stops, survives a kill, and gives up a slot.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail loudly"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use everpoint_testkit::{Account, Background, Everpoint, PgCluster, PgInstall};
use serde_json::Value;

/// Two protected servers, and a daemon's configuration.
struct World {
    orders: PgCluster,
    _inventory: PgCluster,
    everpoint: Everpoint,
}

impl World {
    fn new(more: &str) -> Option<Self> {
        PgInstall::find_or_skip(15).unwrap()?;
        let start = || PgCluster::builder().major(15).wal_segsize_mb(1).setting("autovacuum", "off").start();
        let (orders, inventory) = (start().unwrap(), start().unwrap());
        let binary = Path::new(env!("CARGO_BIN_EXE_everpoint"));
        let everpoint =
            Everpoint::new(binary, &[("order-db", &orders), ("inventory-db", &inventory)]).unwrap();
        let path = everpoint.home().path().join("everpoint.toml");
        let state = everpoint.home().path().join("state");
        let text = format!(
            "{}\n[serve]\nstate_dir = \"{}\"\n{more}",
            fs::read_to_string(&path).unwrap(),
            state.display()
        );
        // The port of the API may be taken by another test.
        fs::write(&path, text + "\n[api]\nlisten = \"off\"\n").unwrap();
        everpoint.run(&["init"]).unwrap();
        Some(Self { orders, _inventory: inventory, everpoint })
    }

    fn serve(&self) -> Background {
        self.everpoint.spawn(&["serve"]).unwrap()
    }

    fn cluster(&self, name: &str) -> Value {
        self.everpoint.json(&["list", name]).unwrap()["clusters"][0].clone()
    }

    fn backups(&self, name: &str) -> usize {
        let listed = self.cluster(name);
        listed["backups"].as_array().unwrap().iter().filter(|backup| backup["status"] == "ok").count()
    }
}

fn wait_for(what: &str, daemon: &Background, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < Duration::from_secs(50), "waited in vain until {what}:\n{}", daemon.said());
        sleep(Duration::from_millis(100));
    }
}

#[test]
fn it_protects_all_clusters_stops_quickly_and_survives_a_kill() {
    let Some(world) = World::new("[schedule]\nbackup = \"off\"\n") else { return };
    let daemon = world.serve();
    wait_for("each cluster has its first backup", &daemon, || {
        world.backups("order-db") == 1 && world.backups("inventory-db") == 1
    });
    let second = world.everpoint.try_run(&["serve"]).unwrap();
    assert_eq!(second.status.code(), Some(6), "{}", second.told(&["serve"]));
    let stopped = daemon.stop().unwrap();
    assert!(stopped.status.success() && stopped.err.contains("stopping"), "{}", stopped.told(&["serve"]));

    let mut daemon = world.serve();
    world.orders.psql("CREATE TABLE kept AS SELECT 7 AS n").unwrap();
    let end = |world: &World| world.cluster("order-db")["windows"][0]["to_lsn"].as_str().unwrap().to_owned();
    let before = end(&world);
    wait_for("the log is stored", &daemon, || end(&world) != before);
    daemon.kill9().unwrap();
    world.orders.psql("INSERT INTO kept VALUES (8)").unwrap();
    let daemon = world.serve();
    let killed = end(&world);
    wait_for("it goes on after a kill", &daemon, || end(&world) != killed);
    assert_eq!(world.backups("order-db"), 1, "nothing is made up for");
    assert_eq!(world.cluster("order-db")["gaps"].as_array().unwrap().len(), 0);
    let begun = Instant::now();
    daemon.stop().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10));
}

/// Old backups are kept, so that they can be counted.
const EVERY_3_SECONDS: &str =
    "[retention]\nlast = 100\n[schedule]\nbackup = \"*/3 * * * * *\"\nbundle = \"*/2 * * * * *\"\n";

#[test]
fn backups_run_by_schedule() {
    let Some(world) = World::new(EVERY_3_SECONDS) else {
        return;
    };
    let daemon = world.serve();
    wait_for("several backups were taken", &daemon, || {
        world.backups("order-db") >= 3 && world.backups("inventory-db") >= 3
    });
    daemon.stop().unwrap();
}

#[test]
fn a_slot_is_given_up_before_the_disk_of_the_server_fills() {
    let Some(world) = World::new("max_retained = \"3MB\"\n[schedule]\nbackup = \"off\"\n") else { return };
    let daemon = world.serve();
    wait_for("each cluster has its first backup", &daemon, || {
        world.backups("order-db") == 1 && world.backups("inventory-db") == 1
    });
    let slots = || world.orders.psql("SELECT count(*) FROM pg_replication_slots").unwrap();
    wait_for("it has a slot", &daemon, || slots() == "1");
    // Nothing can be stored any more.
    let log = world.everpoint.home().path().join("repository/clusters/order-db");
    let aside = world.everpoint.home().path().join("aside");
    fs::rename(&log, &aside).unwrap();
    fs::write(&log, "in the way").unwrap();
    fs::set_permissions(&log, fs::Permissions::from_mode(0o600)).unwrap();
    Account::of_servers().unwrap().own(&log).unwrap();
    let write = "INSERT INTO t SELECT repeat('x', 100) FROM generate_series(1, 20000)";
    world.orders.psql("CREATE TABLE t (word text)").unwrap();
    for _ in 0..3 {
        world.orders.psql(write).unwrap();
    }
    wait_for("the slot is given up", &daemon, || slots() == "0");
    for _ in 0..3 {
        world.orders.psql("CHECKPOINT; SELECT pg_switch_wal()").unwrap();
    }
    fs::remove_file(&log).unwrap();
    fs::rename(&aside, &log).unwrap();
    wait_for("the gap is recorded and a new backup taken", &daemon, || {
        world.cluster("order-db")["gaps"].as_array().unwrap().len() == 1 && world.backups("order-db") == 2
    });
    daemon.stop().unwrap();
    world.orders.psql("SELECT 1").unwrap();
}
