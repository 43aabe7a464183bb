//! Every runbook is run as it stands there, on a real server after the disaster that it is for. Only names of places,
//! times and addresses are put in.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail loudly"
)]

#[allow(dead_code, reason = "shared with other scenarios")]
mod support_runbooks;
#[allow(dead_code, reason = "shared with other scenarios")]
mod support_scenarios;

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use everpoint_testkit::{PgCluster, Port, RunningCopy, Scratch, StopMode};
use support_runbooks::{runbooks, script};
use support_scenarios::{CLUSTER, World, found, quiet};

const MAJOR: u32 = 15;

/// Titles of the runbooks that this test has a disaster for.
const TITLES: [&str; 11] = [
    "The server crashed, its disk is whole",
    "Somebody dropped a table",
    "The machine is lost",
    "Some files are corrupt, outside of Debian",
    "The key is lost",
    "There is a gap in the WAL",
    "The repository's disk is full",
    "Total loss, from a package",
    "The primary is gone, a standby was promoted",
    "Another moment in the same copy",
    "pg_control is corrupt, outside of Debian",
];

/// Titles of those that the tests of Debian's layout and of life in place run, and `scripts/debian-trial`, which runs all.
const ELSEWHERE: [&str; 7] = [
    "Some files are corrupt",
    "pg_control is corrupt",
    "Restore production on Debian, on a new machine",
    "Wrong moment, an earlier one",
    "Wrong moment, outside of Debian",
    "The copy becomes production",
    "The copy becomes production, outside of Debian",
];

/// A protected server with a table `lost_table` of three rows, its log captured, and a good backup.
struct Ground {
    world: World,
    script: String,
}

impl Ground {
    fn new(title: &str) -> Option<Self> {
        if !found(MAJOR) {
            return None;
        }
        let script = script(title);
        let small = [("max_slot_wal_keep_size", "4MB"), ("min_wal_size", "2MB"), ("max_wal_size", "4MB")];
        let source = quiet(MAJOR).wal_segsize_mb(1).settings(small).start().unwrap();
        let mut world = World::new(source);
        world.capture();
        world.backup(&[]);
        let ground = Self { world, script };
        ground.sql("CREATE TABLE lost_table AS SELECT 'row ' || g AS word FROM generate_series(1, 3) g");
        ground.settle();
        Some(ground)
    }

    fn sql(&self, sql: &str) -> String {
        self.world.source.psql(sql).unwrap()
    }

    fn settle(&self) {
        self.world.settle(&self.world.source, 1);
    }

    /// What the test gave to the server on its command line belongs to its configuration, and to a backup.
    fn with_address(&self) {
        let address = [
            format!("port = {}", self.world.source.port()),
            format!("unix_socket_directories = '{}'", self.world.source.socket_dir().display()),
            "listen_addresses = '127.0.0.1'".to_owned(),
        ];
        address.iter().for_each(|setting| drop(self.sql(&format!("ALTER SYSTEM SET {setting}"))));
        self.world.backup(&[]);
    }

    /// Puts a value in the place of an example.
    fn put(&mut self, example: &str, value: impl AsRef<str>) -> &mut Self {
        assert!(self.script.contains(example), "{example:?} is not in\n{}", self.script);
        self.script = self.script.replace(example, value.as_ref());
        self
    }

    fn place(&mut self) -> PathBuf {
        let place = self.world.place();
        self.put("/srv/new", place.to_str().unwrap());
        place
    }

    /// Runs the commands; returns what they printed.
    fn run(&self) -> String {
        let servers = self.world.source.install().bin();
        let ran = self.world.everpoint.shell(&self.script, &servers).unwrap();
        let ran = ran.wait(Duration::from_secs(60)).unwrap();
        assert!(ran.status.success(), "{}\n{}{}", self.script, ran.out, ran.err);
        ran.out
    }

    fn home(&self, name: &str) -> PathBuf {
        self.world.everpoint.home().path().join(name)
    }
}

fn rows(place: &Path) -> String {
    let copy = RunningCopy::on(place).unwrap();
    copy.session().unwrap().query("SELECT count(*) FROM lost_table").unwrap().to_string()
}

#[test]
fn each_runbook_is_run() {
    let titles: Vec<String> = runbooks().into_iter().map(|(title, _)| title).collect();
    for title in &titles {
        assert!(TITLES.iter().chain(&ELSEWHERE).any(|known| known == title), "no test runs {title:?}");
    }
    assert_eq!(titles.len(), TITLES.len() + ELSEWHERE.len());
}

#[test]
fn after_a_crash_all_is_well_again() {
    let Some(mut ground) = Ground::new(TITLES[0]) else { return };
    ground.world.source.kill9().unwrap();
    ground.world.source.start().unwrap();
    ground.sql("INSERT INTO lost_table VALUES ('after the crash')");
    ground.settle();
    ground.run();
}

#[test]
fn a_dropped_table_comes_back() {
    let Some(mut ground) = Ground::new(TITLES[1]) else { return };
    ground.sql("DELETE FROM lost_table WHERE word = 'row 3'");
    let early = ground.sql("SELECT clock_timestamp()");
    ground.sql("INSERT INTO lost_table VALUES ('row 3')");
    let before = ground.sql("SELECT clock_timestamp()");
    ground.sql("DROP TABLE lost_table");
    ground.settle();
    let port = Port::free().unwrap().number().to_string();
    let place = ground.place();
    ground.put("2026-01-29 14:29:59", before).put("6543", &port).put("dbname", "postgres");
    ground.run();
    let dump = fs::read_to_string(ground.home("lost_table.sql")).unwrap();
    assert!(dump.contains("row 1\nrow 2\nrow 3\n"), "{dump}");
    // It was the wrong moment: there was more.
    ground.script = script(TITLES[9]);
    ground
        .put("/srv/new", place.to_str().unwrap())
        .put("/usr/lib/postgresql/15/bin/", "")
        .put("2026-01-29 14:10:00", early)
        .put("6543", &port)
        .put("dbname", "postgres");
    let said = ground.run();
    assert!(said.lines().any(|line| line.trim() == "2"), "{said}");
    drop(RunningCopy::on(&place).unwrap());
}

#[test]
fn a_lost_machine_needs_the_repository_and_the_key_only() {
    let Some(mut ground) = Ground::new(TITLES[2]) else { return };
    ground.world.source.stop(StopMode::Immediate).unwrap();
    fs::remove_dir_all(ground.world.source.data_dir()).unwrap();
    fs::remove_file(ground.home("everpoint.toml")).unwrap();
    let (repository, key) = (ground.home("repository"), ground.home("key"));
    ground
        .put("/mnt/backup", repository.to_str().unwrap())
        .put("/media/usb/everpoint.key", key.to_str().unwrap());
    let place = ground.place();
    ground.script = format!("unset EVERPOINT_CONFIG\n{}", ground.script);
    ground.run();
    assert_eq!(rows(&place), "3");
}

#[test]
fn corrupt_files_are_written_again() {
    let Some(mut ground) = Ground::new(TITLES[3]) else { return };
    ground.with_address();
    let table = ground.sql("CHECKPOINT; SELECT pg_relation_filepath('lost_table')");
    let data = ground.world.source.data_dir().to_owned();
    let file = fs::OpenOptions::new().write(true).open(data.join(table.lines().last().unwrap())).unwrap();
    file.write_all_at(&[0x5a; 512], 4000).unwrap();
    ground.put("/var/lib/postgresql/15/main", data.to_str().unwrap());
    ground.run();
    assert_eq!(rows(&data), "3");
}

#[test]
fn a_directory_whose_pg_control_is_corrupt_gives_way_to_a_new_one() {
    let Some(mut ground) = Ground::new(TITLES[10]) else { return };
    ground.with_address();
    ground.settle();
    ground.world.source.stop(StopMode::Fast).unwrap();
    let data = ground.world.source.data_dir().to_owned();
    fs::write(data.join("global/pg_control"), [0x5a; 8192]).unwrap();
    let delta = ["restore", CLUSTER, data.to_str().unwrap(), "--delta", "--replace-production"];
    let ran = ground.world.everpoint.try_run(&delta).unwrap();
    let typed = format!("mv {0} {0}.aside", data.display());
    assert!(ran.status.code() == Some(2) && ran.err.contains(&typed), "{}", ran.told(&delta));
    ground.put("/var/lib/postgresql/15/main", data.to_str().unwrap());
    ground.run();
    assert_eq!(rows(&data), "3");
}

#[test]
fn without_a_key_protection_begins_anew() {
    let Some(mut ground) = Ground::new(TITLES[4]) else { return };
    ground.world.stop_capture();
    fs::remove_file(ground.home("key")).unwrap();
    fs::write(ground.home("order-db.password"), "not asked for").unwrap();
    let url = format!("{}?sslmode=disable", ground.world.source.url());
    let escrow = ground.home("escrow");
    let repository = ground.home("repository");
    ground
        .put("postgres://backup@db1/postgres", url)
        .put("systemctl stop everpoint\n", "")
        .put("-o postgres -g postgres ", "")
        .put("/var/lib/everpoint", repository.to_str().unwrap())
        .put("/media/usb/everpoint-new.key", escrow.to_str().unwrap());
    let home = ground.home("");
    ground.put("/etc/everpoint", home.to_str().unwrap().trim_end_matches('/'));
    // It runs until it is killed with the shell.
    let script = ground.script.replace("everpoint protect", "exec everpoint protect");
    ground.script = format!("unset EVERPOINT_CONFIG\n{script}");
    let servers = ground.world.source.install().bin();
    let protecting = ground.world.everpoint.shell(&ground.script, &servers).unwrap();
    ground.world.wait_for("it is protected again", || protecting.said().contains("is protected"));
    assert!(fs::read_to_string(&escrow).unwrap().starts_with("everpoint-key-1-"));
}

#[test]
fn a_gap_is_seen_and_a_new_backup_ends_it() {
    let Some(mut ground) = Ground::new(TITLES[5]) else { return };
    ground.world.stop_capture();
    for _ in 0..5 {
        ground
            .sql("INSERT INTO lost_table SELECT repeat('x', 100) FROM generate_series(1, 20000); CHECKPOINT");
        ground.sql("DELETE FROM lost_table WHERE word LIKE 'x%'");
    }
    ground.world.capture();
    let said = ground.run();
    assert!(said.contains("GAP on timeline 1"), "{said}");
    ground.settle();
    let copy = ground.world.restore("latest", &[]);
    assert_eq!(copy.psql("SELECT count(*) FROM lost_table"), "3");
}

#[test]
fn a_full_disk_is_looked_at() {
    let Some(ground) = Ground::new(TITLES[6]) else { return };
    assert!(ground.run().contains(CLUSTER));
}

#[test]
fn after_total_loss_a_package_and_the_key_are_enough() {
    let Some(mut ground) = Ground::new(TITLES[7]) else { return };
    let directory = ground.home("packages");
    let packed = ground
        .world
        .everpoint
        .json(&["offsite", "pack", "--directory", directory.to_str().unwrap()])
        .unwrap();
    ground.world.stop_capture();
    ground.world.source.kill9().unwrap();
    fs::remove_dir_all(ground.world.source.data_dir()).unwrap();
    fs::remove_dir_all(ground.home("repository")).unwrap();
    fs::remove_file(ground.home("everpoint.toml")).unwrap();
    let key = ground.home("key");
    ground.put("/media/usb/package.age", packed["file"].as_str().unwrap());
    ground.put("/media/usb/everpoint.key", key.to_str().unwrap());
    let place = ground.place();
    ground.script = format!("unset EVERPOINT_CONFIG\n{}", ground.script);
    ground.run();
    assert_eq!(rows(&place), "3");
}

/// A standby of a server with a tablespace at `place`, on the same machine, as it was promoted; with the place of its own.
fn promoted(ground: &Ground, place: &Path) -> (PgCluster, PathBuf) {
    let source = &ground.world.source;
    let home = Scratch::new("failover").unwrap();
    let (data, own) = (home.path().join("standby"), home.subdir("ts-standby").unwrap());
    let command = format!(
        "pg_basebackup -d '{}' -D {} -T {}={} -R -c fast",
        source.url(),
        data.display(),
        place.display(),
        own.display()
    );
    let owner = everpoint_testkit::Account::of_servers().unwrap();
    owner.own(home.path()).unwrap();
    let ran = ground.world.everpoint.shell(&command, &source.install().bin()).unwrap();
    let ran = ran.wait(Duration::from_secs(60)).unwrap();
    assert!(ran.status.success(), "{}", ran.err);
    let mut standby = PgCluster::on_directory(source.install().clone(), home, data).unwrap();
    standby.start().unwrap();
    (standby, own)
}

#[test]
fn after_a_failover_the_new_primary_is_production() {
    let Some(mut ground) = Ground::new(TITLES[8]) else { return };
    let place = ground.world.source.home().subdir("ts").unwrap();
    ground.sql(&format!("CREATE TABLESPACE side LOCATION '{}'", place.display()));
    ground.sql("ALTER TABLE lost_table SET TABLESPACE side");
    let oid = ground.sql("SELECT oid FROM pg_tablespace WHERE spcname = 'side'");
    ground.world.backup(&[]);
    let (standby, own) = promoted(&ground, &place);
    ground.settle();
    ground.world.stop_capture();
    let old = ground.world.source.data_dir().to_owned();
    let old_address = format!("127.0.0.1:{}", ground.world.source.port());
    ground.world.source.kill9().unwrap();
    standby.promote().unwrap();
    standby.psql("INSERT INTO lost_table VALUES ('after the failover')").unwrap();
    for (name, value) in [
        ("port", standby.port().to_string()),
        ("unix_socket_directories", standby.socket_dir().display().to_string()),
        ("listen_addresses", "127.0.0.1".to_owned()),
    ] {
        standby.psql(&format!("ALTER SYSTEM SET {name} = '{value}'")).unwrap();
    }
    let data = standby.data_dir().to_owned();

    // Nobody has changed the configuration: nothing of the old primary's is called left over.
    let mut standby = standby;
    standby.stop(StopMode::Fast).unwrap();
    let map = format!("{oid}={}", own.display());
    for more in [&[][..], &["--map", &map]] {
        let arguments =
            [&["restore", CLUSTER, data.to_str().unwrap(), "--delta", "--replace-production"], more].concat();
        let ran = ground.world.everpoint.try_run(&arguments).unwrap();
        assert_eq!(ran.status.code(), Some(2), "{}", ran.err);
        let expected = format!("data_dir = \"{}\"", data.display());
        assert!(ran.err.contains(&expected) && !ran.err.contains("rm -r"), "{}", ran.err);
        assert!(!ran.err.contains("not this cluster's"), "{}", ran.err);
    }
    standby.start().unwrap();

    let (config, anew) = (ground.home("everpoint.toml"), ground.home("ts-anew"));
    let aside = old.with_extension("aside");
    ground
        .put("@db1/#@db2/", format!("@{old_address}/#@127.0.0.1:{}/", standby.port()))
        .put("postgres@db2", format!("postgres@127.0.0.1:{}", standby.port()))
        .put("/etc/everpoint/everpoint.toml", config.to_str().unwrap())
        .put("/var/lib/postgresql/15/main.aside", aside.to_str().unwrap())
        .put("/var/lib/postgresql/15/main", old.to_str().unwrap())
        .put("/var/lib/postgresql/15/standby", data.to_str().unwrap())
        .put("-R -c fast", format!("-R -c fast -T {}={}", own.display(), anew.display()));
    ground.run();
    assert_eq!(rows(&data), "4");
    let link = fs::read_link(data.join("pg_tblspc").join(&oid)).unwrap();
    assert_eq!(fs::canonicalize(link).unwrap(), fs::canonicalize(&own).unwrap());
    assert!(place.join("PG_15_202209061").is_dir(), "the old primary's tablespace is as it was");
    assert!(old.join("standby.signal").exists() && aside.join("PG_VERSION").exists());
}
