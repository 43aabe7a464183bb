//! A started copy beside a living production: whatever it replays, production keeps its tablespaces, slots, subscriptions
//! and archive.

// Helpers of tests fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code, reason = "shared with other scenarios")]
mod support_scenarios;

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};

use everpoint_testkit::{PgCluster, Session};
use support_scenarios::{CLUSTER, Copy, World, ask, found};

/// Production with everything that a copy could reach for.
struct Production {
    world: World,
    publisher: PgCluster,
    /// Tablespaces: there before the backup and after, dropped after the backup, created after it.
    early: PathBuf,
    doomed: PathBuf,
    late: PathBuf,
    archive: PathBuf,
}

/// What production must keep: a state in words by what it is of.
type Kept = BTreeMap<String, String>;

impl Production {
    fn start(major: u32) -> Self {
        let publisher = PgCluster::builder().major(major).setting("wal_level", "logical").start().unwrap();
        publisher.psql("CREATE TABLE news (n int PRIMARY KEY)").unwrap();
        publisher.psql("INSERT INTO news VALUES (1), (2)").unwrap();
        publisher.psql("CREATE PUBLICATION paper FOR TABLE news").unwrap();

        let source = PgCluster::builder().major(major).create().unwrap();
        let [early, doomed, late, archive] =
            ["early", "doomed", "late", "archive"].map(|name| source.home().subdir(name).unwrap());
        let settings = format!(
            "autovacuum = off\nsynchronous_standby_names = 'nobody_of_this_name'\narchive_mode = on\n\
             archive_command = 'test ! -f {0}/%f && cp %p {0}/%f'\n",
            archive.display()
        );
        let path = source.data_dir().join("postgresql.conf");
        fs::write(&path, fs::read_to_string(&path).unwrap() + &settings).unwrap();
        let mut source = source;
        source.start().unwrap();
        let mut production = Self { world: World::new(source), publisher, early, doomed, late, archive };
        production.fill();
        production.world.capture();
        production.world.backup(&[]);
        production
    }

    /// A session whose commits don't wait for the standby that is not there.
    fn session(&self, database: &str) -> Session {
        let mut session = self.world.source.session_to(database).unwrap();
        ask(&mut session, "SET synchronous_commit = local");
        session
    }

    fn run(&self, statements: &[&str]) {
        let mut session = self.session("postgres");
        for sql in statements {
            ask(&mut session, sql);
        }
    }

    fn fill(&self) {
        let (early, doomed) = (self.early.display(), self.doomed.display());
        self.run(&[
            &format!("CREATE TABLESPACE early LOCATION '{early}'"),
            &format!("CREATE TABLESPACE doomed LOCATION '{doomed}'"),
            "CREATE TABLE precious TABLESPACE early AS SELECT n FROM generate_series(1, 5000) n",
            "CREATE TABLE going TABLESPACE doomed AS SELECT n FROM generate_series(1, 300) n",
            "CREATE DATABASE doomed_db",
            "SELECT pg_create_physical_replication_slot('of_a_standby', true)",
            "CREATE TABLE news (n int PRIMARY KEY)",
            &format!(
                "CREATE SUBSCRIPTION reader CONNECTION 'host=127.0.0.1 port={} user=postgres dbname=postgres' \
                 PUBLICATION paper",
                self.publisher.port()
            ),
        ]);
        ask(&mut self.session("doomed_db"), "CREATE TABLE inside AS SELECT n FROM generate_series(1, 70) n");
        // Until then the copying of the table has an origin of its own, which goes when it is done.
        let settled = "SELECT count(*) = 1 AND NOT EXISTS (SELECT FROM pg_subscription_rel WHERE srsubstate <> 'r') \
                       FROM pg_replication_origin";
        self.world.wait_for("the subscription has copied its table", || {
            self.news() == "2" && self.world.source.psql(settled).unwrap() == "t"
        });
    }

    fn news(&self) -> String {
        self.world.source.psql("SELECT count(*) FROM news").unwrap()
    }

    /// Creates a tablespace with a table and databases in it.
    fn create_late(&self) {
        let late = self.late.display();
        let strategies: &[&str] = if self.world.source.install().major() >= 15 {
            &["late_wal_log STRATEGY wal_log", "late_file_copy STRATEGY file_copy"]
        } else {
            &["late_plain"]
        };
        self.run(&[
            &format!("CREATE TABLESPACE late LOCATION '{late}'"),
            "CREATE TABLE newcomer TABLESPACE late AS SELECT n FROM generate_series(1, 1000) n",
        ]);
        for words in strategies {
            let name = words.split(' ').next().unwrap();
            self.run(&[&format!("CREATE DATABASE {words} TABLESPACE late")]);
            ask(
                &mut self.session(name),
                &format!("CREATE TABLE here AS SELECT '{name}'::text AS name FROM generate_series(1, 40)"),
            );
        }
    }

    /// Names of the databases that `create_late` makes.
    fn late_databases(&self) -> Vec<String> {
        let listed =
            self.world.source.psql("SELECT datname FROM pg_database WHERE datname LIKE 'late%' ORDER BY 1");
        listed.unwrap().lines().map(str::to_owned).collect()
    }

    /// The id that the next transaction will get.
    fn next_xid(&self) -> String {
        self.world.source.psql("SELECT txid_snapshot_xmax(txid_current_snapshot())").unwrap()
    }

    fn restore_point(&self, name: &str) {
        self.world.everpoint.run(&["restore-point", CLUSTER, name]).unwrap();
    }

    /// Looks at everything that no copy may change. Production itself is idle and has written all back.
    fn look(&self) -> Kept {
        let mut kept = Kept::new();
        for directory in [&self.early, &self.doomed, &self.late, &self.archive] {
            read_tree(directory, &mut kept);
        }
        let questions = [
            "SELECT slot_name, restart_lsn, active, xmin FROM pg_replication_slots WHERE slot_name = 'of_a_standby'",
            "SELECT external_id, remote_lsn FROM pg_replication_origin_status",
            "SELECT count(*), sum(n) FROM precious",
        ];
        for sql in questions {
            kept.insert(sql.to_owned(), self.world.source.psql(sql).unwrap());
        }
        let slots = "SELECT slot_name, active_pid FROM pg_replication_slots";
        kept.insert("the publisher's slots".to_owned(), self.publisher.psql(slots).unwrap());
        kept
    }

    /// Fails, naming what differs, unless production is as it was.
    fn is_untouched(&self, kept: &Kept) {
        let now = self.look();
        let differs = |(what, state): &(&String, &String)| now.get(*what) != Some(*state);
        let changed: Vec<_> =
            kept.iter().filter(differs).map(|(what, state)| (what, state, now.get(what))).collect();
        let added: Vec<_> = now.keys().filter(|what| !kept.contains_key(*what)).collect();
        assert!(changed.is_empty() && added.is_empty(), "changed: {changed:#?}, added: {added:#?}");
    }

    /// Makes production quiet: nothing is left that it would write by itself.
    fn quiet(&self) {
        // Whoever reads rows first marks them as committed, in the file.
        self.run(&["SELECT count(*) FROM precious", "SELECT pg_switch_wal()", "CHECKPOINT"]);
        self.world.wait_for("every segment is archived", || {
            let ready = self.world.source.data_dir().join("pg_wal/archive_status");
            fs::read_dir(ready)
                .unwrap()
                .all(|entry| !entry.unwrap().file_name().to_string_lossy().ends_with(".ready"))
        });
        self.world.settle(&self.world.source, 1);
        // Keepalives of an idle publisher move what its slot remembers, until all is confirmed.
        self.world.wait_for("the publisher's slot is at its end", || {
            self.publisher
                .psql("SELECT confirmed_flush_lsn = pg_current_wal_lsn() FROM pg_replication_slots")
                .unwrap()
                == "t"
        });
    }

    /// Restores with the tablespaces of the image put elsewhere.
    fn restore(&self, target: &str, more: &[&str]) -> Copy {
        let place = self.world.place();
        let map = |old: &Path, name: &str| format!("{}={}-{name}", old.display(), place.display());
        let (early, doomed) = (map(&self.early, "early"), map(&self.doomed, "doomed"));
        let maps = ["--map", &early, "--map", &doomed];
        self.world.restore(target, &[&maps[..], more].concat())
    }
}

/// Notes time, size and a hash of the content of every file; directories count, too.
fn read_tree(path: &Path, kept: &mut Kept) {
    let metadata = fs::symlink_metadata(path).unwrap();
    let mut content = Vec::new();
    if metadata.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            read_tree(&entry.unwrap().path(), kept);
        }
    } else {
        content = fs::read(path).unwrap();
    }
    let mut hasher = DefaultHasher::new();
    hasher.write(&content);
    let state = format!("{:?}, {} bytes, {:x}", metadata.modified().unwrap(), content.len(), hasher.finish());
    kept.insert(path.display().to_string(), state);
}

fn databases_of(copy: &Copy) -> String {
    copy.psql("SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE datname !~ 'postgres|template'")
}

fn spaces_of(copy: &Copy) -> String {
    copy.psql("SELECT string_agg(spcname, ' ' ORDER BY spcname) FROM pg_tablespace WHERE spcname !~ '^pg_'")
}

/// The copy takes writes whose commits wait for nobody, holds no slot, reads no subscription, archives nothing.
fn lives_by_itself(copy: &Copy) {
    let mut session = copy.server.session().unwrap();
    ask(&mut session, "SET synchronous_commit = on; SET statement_timeout = '10s'");
    let written = session.query("INSERT INTO precious SELECT 1 FROM generate_series(1, 10)").unwrap();
    assert_eq!((written.tag.as_str(), written.notices.len()), ("INSERT 0 10", 0), "{written:?}");
    ask(&mut session, "CHECKPOINT");
    ask(&mut session, "SELECT pg_switch_wal()");
    assert_eq!(copy.psql("SELECT count(*), sum(n) FROM precious"), "5010|12502510");
    assert_eq!(copy.psql("SELECT count(*) FROM pg_replication_slots"), "0");
    assert_eq!(copy.psql("SELECT count(*) FROM pg_stat_subscription WHERE pid IS NOT NULL"), "0");
    assert_eq!(copy.psql("SHOW archive_mode"), "off");
    assert_eq!(copy.psql("SELECT pg_is_in_recovery()"), "f");
}

/// All directories of the copy's tablespaces.
fn locations(copy: &Copy) -> Vec<PathBuf> {
    let links = fs::read_dir(copy.place.join("pg_tblspc")).unwrap();
    links.map(|entry| fs::canonicalize(entry.unwrap().path()).unwrap()).collect()
}

/// Tablespace and databases that production creates after the backup.
fn created_later(major: u32) {
    let production = Production::start(major);
    production.restore_point("before");
    production.create_late();
    production.quiet();
    let databases = production.late_databases();
    let kept = production.look();

    // Just before: nothing of it is there.
    let copy = production.restore("name:before", &[]);
    assert_eq!((databases_of(&copy).as_str(), spaces_of(&copy).as_str()), ("doomed_db", "doomed early"));
    lives_by_itself(&copy);
    production.is_untouched(&kept);
    copy.stop_and_check(&production.world);

    // Just after: inside of the copy's directory.
    let copy = production.restore("latest", &[]);
    check_late(&copy, &databases);
    let place = fs::canonicalize(&copy.place).unwrap();
    assert!(
        locations(&copy).iter().any(|path| path.starts_with(place.join("pg_tblspc"))),
        "{:?}",
        locations(&copy)
    );
    production.is_untouched(&kept);
    copy.stop_and_check(&production.world);

    // And where the map says.
    let elsewhere = production.world.place();
    let map = format!("{}={}", production.late.display(), elsewhere.display());
    let copy = production.restore("latest", &["--map", &map]);
    check_late(&copy, &databases);
    assert!(locations(&copy).contains(&fs::canonicalize(&elsewhere).unwrap()), "{:?}", locations(&copy));

    // While the copy runs, the subscription goes on feeding production alone.
    production.is_untouched(&kept);
    production.publisher.psql("INSERT INTO news VALUES (3)").unwrap();
    production.world.wait_for("production reads the news", || production.news() == "3");
    assert_eq!(copy.psql("SELECT count(*) FROM news"), "2");
    copy.stop_and_check(&production.world);
}

fn check_late(copy: &Copy, databases: &[String]) {
    assert_eq!(databases_of(copy), format!("doomed_db {}", databases.join(" ")));
    assert_eq!(spaces_of(copy), "doomed early late");
    assert_eq!(copy.psql("SELECT count(*), sum(n) FROM newcomer"), "1000|500500");
    for database in databases {
        let mut session = copy.session_to(database);
        assert_eq!(
            ask(&mut session, "SELECT name, count(*) FROM here GROUP BY name"),
            format!("{database}|40")
        );
        ask(&mut session, "INSERT INTO here VALUES ('copy')");
    }
    // The copy may do with its tablespaces what it likes.
    copy.psql("INSERT INTO newcomer SELECT 0 FROM generate_series(1, 5000)");
    lives_by_itself(copy);
}

#[test]
fn what_is_created_after_the_backup_lies_inside_a_copy_13() {
    if found(13) {
        created_later(13);
    }
}

#[test]
fn what_is_created_after_the_backup_lies_inside_a_copy_15() {
    if found(15) {
        created_later(15);
    }
}

#[test]
fn what_is_created_after_the_backup_lies_inside_a_copy_18() {
    if found(18) {
        created_later(18);
    }
}

#[test]
fn what_is_dropped_after_the_backup_is_there_until_then() {
    if !found(15) {
        return;
    }
    let production = Production::start(15);
    production.create_late();
    let database = production.next_xid();
    production.run(&["DROP DATABASE doomed_db"]);
    production.restore_point("between");
    production.run(&["DROP TABLE going"]);
    let space = production.next_xid();
    production.run(&["DROP TABLESPACE doomed", "DROP DATABASE late_file_copy"]);
    production.run(&[
        "INSERT INTO precious SELECT 0 FROM generate_series(1, 3)",
        "DELETE FROM precious WHERE n = 0",
    ]);
    production.quiet();
    let kept = production.look();

    let copy = production.restore(&format!("before-xid:{database}"), &[]);
    let mut session = copy.session_to("doomed_db");
    assert_eq!(ask(&mut session, "SELECT count(*), sum(n) FROM inside"), "70|2485");
    drop(session);
    assert_eq!(copy.psql("SELECT count(*), sum(n) FROM going"), "300|45150");
    lives_by_itself(&copy);
    production.is_untouched(&kept);
    copy.stop_and_check(&production.world);

    let copy = production.restore("name:between", &[]);
    assert_eq!(databases_of(&copy), "late_file_copy late_wal_log");
    assert_eq!(copy.psql("SELECT count(*), sum(n) FROM going"), "300|45150");
    lives_by_itself(&copy);
    drop(copy);

    let copy = production.restore(&format!("before-xid:{space}"), &[]);
    assert_eq!(spaces_of(&copy), "doomed early late");
    copy.psql("CREATE TABLE still TABLESPACE doomed AS SELECT 1");
    copy.stop_and_check(&production.world);

    let copy = production.restore("latest", &[]);
    assert_eq!((databases_of(&copy).as_str(), spaces_of(&copy).as_str()), ("late_wal_log", "early late"));
    lives_by_itself(&copy);
    production.is_untouched(&kept);
    copy.stop_and_check(&production.world);
}

#[test]
fn a_tablespace_in_use_is_never_written_over() {
    if !found(15) {
        return;
    }
    let production = Production::start(15);
    production.quiet();
    let kept = production.look();
    // Without a word about tablespaces all of them lie inside.
    let copy = production.world.restore("latest", &[]);
    let place = fs::canonicalize(&copy.place).unwrap();
    let outside: Vec<_> = locations(&copy).into_iter().filter(|path| !path.starts_with(&place)).collect();
    assert!(outside.is_empty(), "{outside:?}");
    lives_by_itself(&copy);
    production.is_untouched(&kept);
    copy.stop_and_check(&production.world);
    // Where production's rows are, no copy goes.
    let place = production.world.place();
    let map = format!("{0}={0}", production.early.display());
    let arguments = ["restore", CLUSTER, place.to_str().unwrap(), "--map", &map];
    let ran = production.world.everpoint.try_run(&arguments).unwrap();
    assert_eq!(ran.status.code(), Some(2), "{}", ran.told(&arguments));
    assert!(!place.exists(), "nothing may be written");
    production.is_untouched(&kept);
}
