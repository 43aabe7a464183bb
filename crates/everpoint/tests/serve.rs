//! The daemon on real servers: it captures, backs up by schedule, stops, survives a kill, and gives up a slot.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail loudly"
)]

use std::fs;
use std::io::{Read as _, Write as _};
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

/// Nobody was told of the gap but the repository.
#[test]
fn a_gap_that_another_process_has_recorded_gets_its_backup() {
    let Some(world) = World::new("[schedule]\nbackup = \"off\"\n") else { return };
    let daemon = world.serve();
    wait_for("each cluster has its first backup", &daemon, || {
        world.backups("order-db") == 1 && world.backups("inventory-db") == 1
    });
    daemon.stop().unwrap();
    world.orders.psql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots").unwrap();
    for _ in 0..3 {
        world.orders.psql("CREATE TABLE IF NOT EXISTS t (n int); INSERT INTO t VALUES (1); SELECT pg_switch_wal(); CHECKPOINT").unwrap();
    }
    let lost = world.everpoint.try_run(&["capture", "order-db", "--once"]).unwrap();
    assert!(lost.err.contains("lost"), "{}", lost.err);
    let told = world.everpoint.try_run(&["check", "order-db"]).unwrap();
    assert!(
        told.status.code() == Some(1) && told.out.contains("the present can't be brought back"),
        "{}",
        told.out
    );
    let daemon = world.serve();
    wait_for("a new backup is taken", &daemon, || world.backups("order-db") == 2);
    sleep(Duration::from_secs(12));
    assert_eq!((world.backups("order-db"), world.backups("inventory-db")), (2, 1), "one is enough");
    daemon.stop().unwrap();
}

/// What a line of `check` is, and what it says.
fn line(world: &World, cluster: &str, name: &str) -> (String, String) {
    let report = world.everpoint.report(&["check", cluster]).unwrap();
    let lines = report["clusters"][0]["lines"].as_array().unwrap().clone();
    let found = lines.iter().find(|line| line["name"] == name);
    let text = |field: &str| {
        found.map_or_else(String::new, |line| line[field].as_str().unwrap_or_default().to_owned())
    };
    (text("state"), format!("{} {}", text("message"), text("hint")))
}

#[test]
fn it_takes_up_what_changes_in_its_configuration_and_a_cluster_is_forgotten() {
    let Some(world) = World::new("[schedule]\nbackup = \"off\"\n") else { return };
    let path = world.everpoint.home().path().join("everpoint.toml");
    let both = fs::read_to_string(&path).unwrap();
    let at = both.find("[cluster.inventory-db]").unwrap();
    let end = at + both[at..].find("\n[serve]").unwrap();
    fs::write(&path, format!("{}{}", &both[..at], &both[end..])).unwrap();
    let (ran, status) = (world.everpoint.try_run(&["status"]).unwrap(), "nobody captured it yet");
    assert_eq!(ran.status.code(), Some(1), "{status}: {}", ran.told(&["status"]));
    assert_eq!(line(&world, "order-db", "capture").0, "error", "from the first minute");

    let daemon = world.serve();
    wait_for("the only cluster has a backup", &daemon, || world.backups("order-db") == 1);
    fs::write(&path, &both).unwrap();
    wait_for("a new cluster is taken up", &daemon, || world.backups("inventory-db") == 1);

    // What is wrong changes nothing, and is told once.
    fs::write(&path, format!("{both}\n[cluster.shop\n")).unwrap();
    let told = || daemon.all_said().matches("the configuration can't be used, the one from before").count();
    wait_for("a mistake is told", &daemon, || told() == 1);
    // Alerts are looked at a moment later.
    wait_for("the alert fires", &daemon, || {
        daemon.all_said().contains("configuration: configuration can't be used (critical)")
    });
    let twin = both[..at]
        .rfind("[cluster.order-db]")
        .map(|from| both[from..at].replace("order-db", "a-twin"))
        .unwrap();
    fs::write(&path, format!("{both}\n{twin}")).unwrap();
    wait_for("a server under two names is refused", &daemon, || {
        daemon.all_said().contains("its server is that of order-db already")
    });
    wait_for("the alert ends", &daemon, || daemon.all_said().contains("resolved: configuration"));
    assert_eq!(world.orders.psql("SELECT count(*) FROM pg_replication_slots").unwrap(), "1");
    assert_eq!(line(&world, "a-twin", "same_server").0, "error");
    let refused = world.everpoint.try_run(&["backup", "a-twin"]).unwrap();
    assert_eq!(refused.status.code(), Some(2), "{}", refused.err);
    fs::write(&path, &both).unwrap();
    daemon.signal(rustix::process::Signal::HUP).unwrap();

    world.orders.psql("SELECT pg_create_physical_replication_slot('everpoint_gone', true)").unwrap();
    let (state, said) = line(&world, "order-db", "orphaned_slot");
    assert!(state == "warning" && said.contains("pg_drop_replication_slot('everpoint_gone')"), "{said}");
    assert_eq!(line(&world, "order-db", "timeline").0, "ok");
    assert_eq!(line(&world, "order-db", "capture").0, "ok");
    forget(&world);
    assert_eq!(world.backups("order-db"), 1, "the other one is as it was");

    daemon.stop().unwrap();
    let chmod = |mode: &str| {
        let repository = world.everpoint.home().path().join("repository");
        assert!(
            std::process::Command::new("chmod")
                .args(["-R", mode])
                .arg(repository)
                .status()
                .unwrap()
                .success()
        );
    };
    chmod("a-w");
    let (state, said) = line(&world, "order-db", "repository");
    chmod("u+w");
    assert!(state == "error" && said.contains("write to"), "{said}");
    assert_eq!(line(&world, "order-db", "repository").0, "ok");
}

/// While a daemon runs, which lets go of the slot.
fn forget(world: &World) {
    let inventory = &world._inventory;
    let path = world.everpoint.home().path().join("everpoint.toml");
    let typo = world.everpoint.try_run(&["forget", "inventory-bd"]).unwrap();
    assert!(typo.status.code() == Some(2) && typo.err.contains("did you mean inventory-db?"), "{}", typo.err);
    let before = fs::read_to_string(&path).unwrap();
    let planned = world.everpoint.json(&["forget", "inventory-db", "--dry-run"]).unwrap();
    assert_eq!(planned["slot"]["state"], "would_be_dropped", "{planned}");
    assert_eq!(fs::read_to_string(&path).unwrap(), before);
    let done = world.everpoint.json(&["forget", "inventory-db"]).unwrap();
    assert_eq!((&done["slot"]["state"], &done["backups"]), (&"dropped".into(), &1.into()), "{done}");
    assert_eq!(inventory.psql("SELECT count(*) FROM pg_replication_slots").unwrap(), "0");
    assert!(fs::read_to_string(&path).unwrap().contains("# [cluster.inventory-db]"));
    let again = world.everpoint.json(&["forget", "inventory-db"]).unwrap();
    assert_eq!(again["forgotten"], false, "{again}");
    let next = again["next"][0].as_str().unwrap();
    assert!(next.ends_with("SELECT pg_drop_replication_slot('everpoint_inventory_db')"), "{next}");
    let repository = world.everpoint.home().path().join("repository");
    assert!(repository.join("clusters/inventory-db").exists(), "what is stored stays");
}

#[test]
fn a_cluster_of_a_dead_server_is_forgotten_and_one_that_archives_to_us_is_not() {
    let Some(mut world) = World::new("[schedule]\nbackup = \"off\"\n") else { return };
    world.orders.psql("SELECT pg_create_physical_replication_slot('everpoint_order_db', true)").unwrap();
    world.orders.psql("ALTER SYSTEM SET archive_command = '/x/everpoint archive-push order-db %p'").unwrap();
    world.orders.psql("ALTER SYSTEM SET archive_mode = on").unwrap();
    world.orders.stop(everpoint_testkit::StopMode::Fast).unwrap();
    world.orders.start().unwrap();
    let refused = world.everpoint.try_run(&["forget", "order-db"]).unwrap();
    assert!(refused.status.code() == Some(2) && refused.err.contains("archive_command"), "{}", refused.err);
    world.orders.stop(everpoint_testkit::StopMode::Immediate).unwrap();
    let done = world.everpoint.json(&["forget", "order-db"]).unwrap();
    assert_eq!(done["slot"]["state"], "stays", "{done}");
    assert_eq!(done["slot"]["command"], "SELECT pg_drop_replication_slot('everpoint_order_db')");
    assert_eq!(done["archive_command"], "unknown");
}

/// The status of an answer.
fn status_of(address: &str, path: &str) -> String {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[test]
fn a_key_that_cannot_be_used_ends_no_capture_that_works() {
    let Some(world) = World::new("[schedule]\nbackup = \"off\"\n") else { return };
    let home = world.everpoint.home().path();
    let path = home.join("everpoint.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("listen = \"off\"", "listen = \"127.0.0.1:0\"")).unwrap();
    let daemon = world.serve();
    wait_for("each cluster has its first backup", &daemon, || {
        world.backups("order-db") == 1 && world.backups("inventory-db") == 1
    });
    let said = daemon.all_said();
    let address = said.split("the API listens on ").nth(1).and_then(|rest| rest.split_whitespace().next());
    let address = address.unwrap().trim_start_matches("http://").trim_matches('"').to_owned();
    wait_for("it is ready", &daemon, || status_of(&address, "/readyz") == "200");
    let (key, kept) = (home.join("key"), home.join("kept"));
    let owned = || Account::of_servers().unwrap().own(&key).unwrap();
    let told = || daemon.all_said().matches("the configuration can't be used, the one from before").count();
    let begun = || daemon.all_said().matches("capture begins anew").count();
    // Gone, and another repository's.
    for (number, other) in [None, Some("a passphrase of nobody")].into_iter().enumerate() {
        let before = begun();
        fs::rename(&key, &kept).unwrap();
        if let Some(other) = other {
            fs::write(&key, other).unwrap();
            fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
            owned();
        }
        wait_for("it is told", &daemon, || told() == number + 1);
        wait_for("it is not ready", &daemon, || status_of(&address, "/readyz") == "503");
        world.orders.psql("CREATE TABLE IF NOT EXISTS t (n int); INSERT INTO t VALUES (1)").unwrap();
        sleep(Duration::from_secs(2));
        assert_eq!(begun(), before, "{}", daemon.said());
        assert!(!daemon.all_said().contains("capture: cannot"), "{}", daemon.said());
        fs::rename(&kept, &key).unwrap();
        wait_for("it is ready again", &daemon, || status_of(&address, "/readyz") == "200");
        let before = world.cluster("order-db")["windows"][0]["to_lsn"].clone();
        world.orders.psql("INSERT INTO t VALUES (2)").unwrap();
        wait_for("the log is stored", &daemon, || {
            world.cluster("order-db")["windows"][0]["to_lsn"] != before
        });
    }
    daemon.stop().unwrap();
}
