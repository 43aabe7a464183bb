//! One call a day: the compiled program against a real server and the service that counts calls.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail loudly"
)]

#[allow(dead_code, reason = "shared with other scenarios")]
mod support_scenarios;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use everpoint_testkit::{Background, Everpoint, field, text};
use serde_json::{Value, json};
use support_scenarios::{World, configure, found, quiet};

/// The service, in a process of its own.
struct Vault {
    process: Background,
    address: String,
}

impl Vault {
    /// Starts it on what it kept and counted before.
    fn start(everpoint: &Everpoint, more: &[&str]) -> Self {
        let dir = everpoint.home().path().join("vault");
        let listen = ["--json", "mock-offsite", "--listen", "127.0.0.1:0", "--rolling"];
        let place = ["--dir", dir.to_str().unwrap()];
        let process = everpoint.spawn(&[&listen[..], &place, more].concat()).unwrap();
        let since = Instant::now();
        loop {
            let said = process.said();
            if let Some(rest) = said.split("listening on ").nth(1)
                && let Some((address, _)) = rest.split_once(';')
            {
                return Self { process, address: address.to_owned() };
            }
            assert!(since.elapsed() < Duration::from_secs(30), "it does not listen: {said}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What a configuration says of it. Its period rolls, so that a midnight changes nothing.
    fn table(&self, more: &str) -> String {
        let at = &self.address;
        format!(
            "\n[offsite.vault]\ntype = \"http\"\nurl = \"{at}/upload/{{name}}\"\nlist_url = \"{at}/list\"\n\
             health_url = \"{at}/health\"\nperiod = \"24h\"\n{more}\n"
        )
    }

    /// Stops it; returns what it counted.
    fn stop(self) -> Value {
        let ran = self.process.stop().unwrap();
        serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{}", ran.told(&["mock-offsite"])))
    }
}

/// Uploads that reached it, refused ones too.
fn uploads(stats: &Value) -> usize {
    field(stats, "/uploads").unwrap().as_array().unwrap().len()
}

fn protected() -> World {
    let mut world = World::new(quiet(15).start().unwrap());
    world.source.psql("CREATE TABLE days (n int); CREATE TABLE later (n int)").unwrap();
    world.capture();
    world.backup(&[]);
    world
}

/// Rows of another day, and the moment at which they were there.
fn day(world: &World, number: u32) -> String {
    world.source.psql(&format!("INSERT INTO days VALUES ({number})")).unwrap();
    let moment = world.source.psql("SELECT clock_timestamp()").unwrap();
    // The log is known to be complete until its last commit.
    world.source.psql("INSERT INTO later VALUES (1)").unwrap();
    world.source.psql("SELECT pg_switch_wal()").unwrap();
    world.source.psql("CHECKPOINT").unwrap();
    world.settle(&world.source, 1);
    moment
}

/// What a command that must fail says.
fn refused(world: &World, arguments: &[&str], exit: i32) -> Value {
    let ran = world.everpoint.try_run(&[&["--json"], arguments].concat()).unwrap();
    assert_eq!(ran.status.code(), Some(exit), "{}", ran.told(arguments));
    serde_json::from_str(&ran.out).unwrap()
}

fn days_of(world: &World, to: &str, packages: &[PathBuf]) -> String {
    let packages = packages.iter().flat_map(|file| ["--package", file.to_str().unwrap()]);
    let copy = world.restore(to, &packages.collect::<Vec<_>>());
    copy.psql("SELECT string_agg(n::text, ',' ORDER BY n) FROM days")
}

fn fetch(world: &World, reference: &str, file: &str) -> PathBuf {
    let file = world.everpoint.home().path().join(file);
    let report = world.everpoint.json(&["offsite", "fetch", reference, file.to_str().unwrap()]).unwrap();
    assert_eq!(report["size"], fs::metadata(&file).unwrap().len(), "{report}");
    file
}

fn lose(world: &mut World) {
    world.stop_capture();
    world.source.kill9().unwrap();
    fs::remove_dir_all(world.source.data_dir()).unwrap();
    fs::remove_dir_all(world.everpoint.home().path().join("repository")).unwrap();
}

#[test]
fn one_call_brings_all_away_and_a_second_one_is_refused_before_anything_is_built() {
    if !found(15) {
        return;
    }
    let mut world = protected();
    day(&world, 1);
    let vault = Vault::start(&world.everpoint, &[]);
    configure(&world, |text| text + &vault.table(""));

    // Nothing happens any more: what is known of that time goes along, too.
    let quiet = world
        .source
        .psql(r#"SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"#);
    let quiet = quiet.unwrap();
    world.wait_for("a quiet moment is known", || {
        let list = world.everpoint.json(&["list"]).unwrap();
        text(&list, "/clusters/0/windows/0/to").unwrap() > quiet.as_str()
    });

    let unasked = refused(&world, &["offsite", "push"], 2);
    assert_eq!(text(&unasked, "/error/code").unwrap(), "offsite.not_confirmed");
    let sent = world.everpoint.json(&["offsite", "push", "--yes"]).unwrap();
    assert_eq!(
        (&sent["number"], &sent["read_back"], &sent["shortfalls"]),
        (&json!(1), &json!(true), &json!([]))
    );
    assert!(text(&sent, "/clusters/0/to_time").unwrap() > quiet.as_str(), "{sent}");
    let spent = refused(&world, &["offsite", "push", "--yes"], 5);
    assert_eq!(text(&spent, "/error/code").unwrap(), "offsite.budget_spent");
    assert!(text(&spent, "/error/message").unwrap().contains("the next call is allowed at"), "{spent}");

    let status = world.everpoint.json(&["offsite", "status"]).unwrap();
    let vault_status = field(&status, "/providers/0").unwrap();
    assert_eq!((&vault_status["left"], &vault_status["failed_since"]), (&json!(0), &json!(0)), "{status}");
    assert_eq!(text(vault_status, "/covered/0/cluster").unwrap(), "order-db");
    let health = world.everpoint.report(&["status"]).unwrap();
    assert_eq!(*field(&health, "/offsite/0/left").unwrap(), 0, "{health}");
    let listed = world.everpoint.json(&["offsite", "list"]).unwrap();
    assert_eq!(text(&listed, "/providers/0/calls/0/state").unwrap(), "arrived", "{listed}");
    let scratch = world.everpoint.home().path();
    let left = fs::read_dir(scratch).unwrap().flatten().map(|entry| entry.file_name());
    assert!(!left.into_iter().any(|name| name.to_string_lossy().ends_with(".age")));

    // The machine is lost. The new one has the key, and of the configuration only where the packages are.
    lose(&mut world);
    configure(&world, |_| vault.table(""));
    let remote = world.everpoint.json(&["offsite", "list", "--remote"]).unwrap();
    let name = text(&remote, "/providers/0/remote/0/name").unwrap().to_owned();
    assert_eq!(name, text(&sent, "/name").unwrap());
    let package = fetch(&world, &name, "fetched.age");
    let key = world.everpoint.home().path().join("key");
    configure(&world, |_| String::new());
    let key = ["--key-file", key.to_str().unwrap()];
    let place = world.place();
    let to = ["restore", "order-db", place.to_str().unwrap(), "--package", package.to_str().unwrap()];
    world.everpoint.run(&[&to[..], &key, &["--to", &quiet]].concat()).unwrap();
    assert!(place.join("PG_VERSION").exists());
    let stats = vault.stop();
    assert_eq!((uploads(&stats), &stats["refused"]), (1, &json!(0)), "{stats}");
}

#[test]
fn after_a_failed_call_the_next_package_covers_everything_since_the_last_that_arrived() {
    if !found(15) {
        return;
    }
    let mut world = protected();
    let original = fs::read_to_string(world.everpoint.home().path().join("everpoint.toml")).unwrap();
    let use_vault = |world: &World, vault: &Vault| {
        configure(world, |_| original.clone() + &vault.table("calls = 3"));
    };
    let push = |world: &World| world.everpoint.json(&["offsite", "push", "--yes"]).unwrap();
    let first = day(&world, 1);
    let vault = Vault::start(&world.everpoint, &["--calls", "3"]);
    use_vault(&world, &vault);
    push(&world);
    vault.stop();

    let second = day(&world, 2);
    let vault = Vault::start(&world.everpoint, &["--calls", "3", "--failure-rate", "1"]);
    use_vault(&world, &vault);
    let failed = refused(&world, &["offsite", "push", "--yes"], 1);
    assert!(text(&failed, "/error/hint").unwrap().contains("call 2"), "{failed}");
    vault.stop();
    let status = world.everpoint.json(&["offsite", "status"]).unwrap();
    assert_eq!(*field(&status, "/providers/0/failed_since").unwrap(), 1, "{status}");

    let third = day(&world, 3);
    let vault = Vault::start(&world.everpoint, &["--calls", "3"]);
    use_vault(&world, &vault);
    assert_eq!(push(&world)["number"], 3);
    let packages = [fetch(&world, "1", "one.age"), fetch(&world, "latest", "three.age")];
    let stats = vault.stop();
    assert_eq!((uploads(&stats), &stats["refused"]), (3, &json!(0)), "{stats}");

    lose(&mut world);
    for (to, rows) in [(&first, "1"), (&second, "1,2"), (&third, "1,2,3")] {
        assert_eq!(days_of(&world, to, &packages), rows, "{to}");
    }
}

/// Everything that the policy need not keep goes at once.
const KEEP_LITTLE: &str = "\n[retention]\nwindow_days = 0\nlast = 1\ndaily = 0\nweekly = 0\nmonthly = 0\n";

#[test]
fn what_no_package_holds_yet_is_not_let_go() {
    if !found(15) {
        return;
    }
    let mut world = protected();
    let vault = Vault::start(&world.everpoint, &["--calls", "2"]);
    configure(&world, |text| text + &vault.table("calls = 2") + KEEP_LITTLE);
    day(&world, 1);
    world.everpoint.run(&["offsite", "push", "--yes"]).unwrap();
    // The next image is newer than this: nothing but the packages still needs the log of this day.
    let second = day(&world, 2);
    world.backup(&[]);
    day(&world, 3);
    world.backup(&["--full"]);
    let went = world.everpoint.json(&["expire", "--now"]).unwrap();
    assert!(!field(&went, "/clusters/0/dropped").unwrap().as_array().unwrap().is_empty(), "{went}");
    world.everpoint.run(&["offsite", "push", "--yes"]).unwrap();
    let packages = [fetch(&world, "1", "one.age"), fetch(&world, "2", "two.age")];
    lose(&mut world);
    assert_eq!(days_of(&world, &second, &packages), "1,2");
    assert_eq!(days_of(&world, "latest", &packages), "1,2,3");
    vault.stop();
}

fn serve(world: &World, vault: &Vault, more: &str) -> Background {
    serve_with(world, &vault.table(""), more)
}

fn serve_with(world: &World, table: &str, more: &str) -> Background {
    let state = world.everpoint.home().path().join("state");
    configure(world, |text| {
        let text = text.split("\n[offsite").next().unwrap().to_owned();
        text + table
            + &format!("[serve]\nstate_dir = \"{}\"\n[api]\nlisten = \"off\"\n", state.display())
            + &format!("[schedule]\nbackup = \"off\"\nbundle = \"off\"\ncheck = \"off\"\n{more}\n")
    });
    world.everpoint.spawn(&["serve"]).unwrap()
}

#[test]
fn the_daemon_sends_the_package_by_schedule_and_never_more_often_than_the_budget_allows() {
    if !found(15) {
        return;
    }
    let mut world = protected();
    world.stop_capture();
    let vault = Vault::start(&world.everpoint, &["--latency", "1500"]);
    let mut daemon = serve(&world, &vault, "package = \"*/2 * * * * *\"");
    let sending = |world: &World| {
        let listed = world.everpoint.json(&["offsite", "list"]).unwrap();
        listed["providers"][0]["calls"][0]["state"].as_str().unwrap_or("none").to_owned()
    };
    world.wait_for("a call is made", || sending(&world) == "open");
    daemon.kill9().unwrap();
    // What became of the call is not known: it counts.
    let daemon = serve(&world, &vault, "package = \"*/2 * * * * *\"");
    world.wait_for("it waits for the budget", || daemon.said().contains("waits for a call until"));
    std::thread::sleep(Duration::from_secs(3));
    let stopped = daemon.stop().unwrap();
    assert_eq!(stopped.err.matches("waits for a call until").count(), 1, "{}", stopped.err);
    assert!(!stopped.err.contains("package failed"), "{}", stopped.err);
    let stats = vault.stop();
    // It may have been killed before the first byte went out.
    assert!(uploads(&stats) <= 1 && stats["refused"] == 0, "{stats}");
}

#[test]
fn what_the_daemon_sends_restores() {
    if !found(15) {
        return;
    }
    let mut world = protected();
    day(&world, 1);
    world.stop_capture();
    let vault = Vault::start(&world.everpoint, &[]);
    let daemon = serve(&world, &vault, "package = \"*/2 * * * * *\"");
    world.wait_for("the package arrives", || daemon.said().contains("package done"));
    daemon.stop().unwrap();
    let package = fetch(&world, "latest", "latest.age");
    assert_eq!(days_of(&world, "latest", &[package]), "1");
    assert_eq!(uploads(&vault.stop()), 1);
}

#[test]
fn a_daemon_whose_history_was_lost_knows_from_the_ledger_what_was_due() {
    if !found(15) {
        return;
    }
    let mut world = protected();
    day(&world, 1);
    world.stop_capture();
    let vault = Vault::start(&world.everpoint, &["--calls", "2"]);
    configure(&world, |text| text + &vault.table("calls = 2"));
    world.everpoint.run(&["offsite", "push", "--yes"]).unwrap();
    // Due a moment after the first call, and then not again for a day.
    let at = "SELECT to_char((clock_timestamp() + '2s') AT TIME ZONE 'UTC', 'SS MI HH24')";
    let schedule = format!("package = \"{} * * *\"", world.source.psql(at).unwrap());
    std::thread::sleep(Duration::from_secs(3));
    let daemon = serve_with(&world, &vault.table("calls = 2"), &schedule);
    world.wait_for("what was missed is sent", || daemon.said().contains("package done"));
    daemon.stop().unwrap();
    assert_eq!(uploads(&vault.stop()), 2);
}

/// How many objects a run of expire would let go.
fn would_go(world: &World, more: &[&str]) -> u64 {
    let said = world.everpoint.json(&[&["expire", "order-db", "--dry-run"], more].concat()).unwrap();
    said["clusters"][0]["log_objects"].as_u64().unwrap_or_else(|| panic!("{said}"))
}

#[test]
fn what_no_package_holds_yet_stays_however_the_repository_is_named() {
    if !found(15) {
        return;
    }
    let world = protected();
    let vault = Vault::start(&world.everpoint, &[]);
    let plain = fs::read_to_string(world.everpoint.home().path().join("everpoint.toml")).unwrap();
    configure(&world, |text| text + &vault.table("") + KEEP_LITTLE);
    world.everpoint.run(&["offsite", "push", "--yes"]).unwrap();
    day(&world, 2);
    world.backup(&["--full"]);
    let kept = would_go(&world, &[]);
    let home = world.everpoint.home().path().to_owned();
    let (key, repository) = (home.join("key"), format!("{}/./repository/", home.display()));
    let by_hand = ["--repo", &repository, "--key-file", key.to_str().unwrap()];
    assert_eq!(would_go(&world, &by_hand), kept, "the same repository, written otherwise");
    configure(&world, |_| plain.clone() + KEEP_LITTLE);
    assert!(would_go(&world, &[]) > kept, "nobody is sent anything any more");
    configure(&world, |_| "[broken".to_owned());
    assert!(would_go(&world, &by_hand) <= kept, "who is sent to can't be known");
    vault.stop();
}

#[test]
fn no_call_is_spent_on_what_can_give_nothing() {
    if !found(15) {
        return;
    }
    let world = protected();
    let vault = Vault::start(&world.everpoint, &[]);
    let table =
        vault.table("counts = [\"list\", \"download\"]\nheaders = { authorization = \"Bearer ${NO_SUCH}\" }");
    let table: String =
        table.lines().filter(|line| !line.starts_with("list_url")).collect::<Vec<_>>().join("\n");
    configure(&world, |text| text + "\n" + &table + "\n");
    let listed = world.everpoint.json(&["offsite", "list", "--remote", "--yes"]).unwrap();
    assert_eq!(field(&listed, "/providers/0/remote").unwrap(), &Value::Null);
    configure(&world, |text| text.replace("${NO_SUCH}", "x"));
    for reference in ["99", "lastest"] {
        let said = refused(&world, &["offsite", "fetch", reference, "copy.age", "--yes"], 2);
        assert_eq!(text(&said, "/error/code").unwrap(), "offsite.unknown_package");
    }
    configure(&world, |text| text.replace("Bearer x", "Bearer ${NO_SUCH}") + "enabled = false\n");
    // Neither needs the secret.
    let status = world.everpoint.json(&["offsite", "status", "--provider", "vault"]).unwrap();
    assert_eq!(field(&status, "/providers/0/left").unwrap(), 1, "{status}");
    assert!(text(&status, "/providers/0/place").unwrap().contains("not enabled"), "{status}");
    let off = refused(&world, &["offsite", "push", "--provider", "vault", "--yes"], 2);
    assert!(text(&off, "/error/message").unwrap().contains("enabled = false"), "{off}");
    assert_eq!(uploads(&vault.stop()), 0);
}
