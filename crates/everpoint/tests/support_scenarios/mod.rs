//! A protected server and its restored copies, for scenarios that run the compiled program.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use everpoint_testkit::{
    Address, Background, Everpoint, PgCluster, PgClusterBuilder, PgInstall, RunningCopy, Session, field,
    parse_lsn, print_lsn, text,
};
use serde_json::Value;

/// Name of the protected cluster.
pub(crate) const CLUSTER: &str = "order-db";

/// How long the log may take to be stored, and a server to do what it was asked.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server with everpoint beside it.
pub(crate) struct World {
    // Dropped first: it is a client of the server.
    capturing: Option<Background>,
    /// The program, its configuration and repository.
    pub(crate) everpoint: Everpoint,
    /// The protected server.
    pub(crate) source: PgCluster,
    copies: AtomicU32,
}

/// A restored server that runs.
pub(crate) struct Copy {
    /// The server.
    pub(crate) server: RunningCopy,
    /// Its data directory.
    pub(crate) place: PathBuf,
    /// What the program said of the restore.
    pub(crate) report: Value,
}

impl World {
    /// Protects a server; nothing is captured yet.
    pub(crate) fn new(source: PgCluster) -> Self {
        let binary = Path::new(env!("CARGO_BIN_EXE_everpoint"));
        let everpoint = Everpoint::new(binary, &[(CLUSTER, &source)]).unwrap();
        everpoint.run(&["init"]).unwrap();
        Self { capturing: None, everpoint, source, copies: AtomicU32::new(0) }
    }

    /// Starts to capture, and waits until it does: a backup that came first would capture by itself.
    pub(crate) fn capture(&mut self) {
        self.capturing = Some(self.everpoint.spawn(&["capture", CLUSTER]).unwrap());
        let active = "SELECT count(*) FROM pg_replication_slots WHERE active AND slot_name LIKE 'everpoint%'";
        self.wait_for("capture has begun", || self.source.psql(active).unwrap() == "1");
    }

    /// Ends the capture.
    pub(crate) fn stop_capture(&mut self) {
        self.capturing.take().unwrap().stop().unwrap();
    }

    /// What capture said so far.
    pub(crate) fn captured_said(&self) -> String {
        self.capturing.as_ref().map(Background::said).unwrap_or_default()
    }

    /// Waits until the repository holds the log of a timeline up to the end that `server` has now.
    pub(crate) fn settle(&self, server: &PgCluster, timeline: u64) {
        self.settle_at(server.flushed().unwrap(), timeline);
    }

    /// Waits until the repository holds the log of a timeline up to a position.
    pub(crate) fn settle_at(&self, end: u64, timeline: u64) {
        let what = format!("the log of timeline {timeline} up to {} is stored", print_lsn(end));
        self.wait_for(&what, || self.stored_until(timeline) + 7 >= end);
    }

    /// The position that the recovery windows of a timeline reach: the end of a record, behind which the server leaves up
    /// to 7 bytes free.
    fn stored_until(&self, timeline: u64) -> u64 {
        let list = self.everpoint.json(&["list", CLUSTER]).unwrap();
        let windows = field(&list, "/clusters/0/windows").unwrap().as_array().unwrap().clone();
        let ends = windows
            .iter()
            .filter(|window| window["timeline"] == timeline)
            .filter_map(|window| parse_lsn(window["to_lsn"].as_str()?));
        ends.max().unwrap_or(0)
    }

    /// Waits until something is so.
    pub(crate) fn wait_for(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let since = Instant::now();
        while !is_so() {
            assert!(
                since.elapsed() < PATIENCE,
                "waited in vain until {what}; capture said: {}",
                self.captured_said()
            );
            sleep(Duration::from_millis(50));
        }
    }

    /// Takes a backup that must be good; returns its label.
    pub(crate) fn backup(&self, more: &[&str]) -> String {
        let report = self.everpoint.json(&[&["backup", CLUSTER], more].concat()).unwrap();
        assert_eq!(text(&report, "/status").unwrap(), "ok", "{report}");
        text(&report, "/label").unwrap().to_owned()
    }

    /// Restores to a target and starts the copy.
    pub(crate) fn restore(&self, target: &str, more: &[&str]) -> Copy {
        let place = self.place();
        let arguments = ["restore", CLUSTER, place.to_str().unwrap(), "--to", target, "--start"];
        let report = self.everpoint.json(&[&arguments[..], more].concat()).unwrap();
        let server = RunningCopy::on(&place).unwrap();
        Copy { server, place, report }
    }

    /// A place where nothing is yet.
    pub(crate) fn place(&self) -> PathBuf {
        let number = self.copies.fetch_add(1, Ordering::SeqCst);
        self.everpoint.home().path().join(format!("copy-{number}"))
    }
}

impl Copy {
    /// Rows as `psql -At` prints them.
    pub(crate) fn psql(&self, sql: &str) -> String {
        ask(&mut self.server.session().unwrap(), sql)
    }

    /// A session in one of its databases.
    pub(crate) fn session_to(&self, database: &str) -> Session {
        let port = u16::try_from(self.report["port"].as_u64().unwrap()).unwrap();
        Session::connect(&Address::Socket(self.place.clone(), port), database).unwrap()
    }

    /// Stops it cleanly and checks its pages, if the version can; every page must be good.
    pub(crate) fn stop_and_check(self, world: &World) {
        self.server.stop_and_check(world.source.install()).unwrap();
    }
}

/// Rows as `psql -At` prints them.
pub(crate) fn ask(session: &mut Session, sql: &str) -> String {
    match session.query(sql) {
        Ok(answer) => answer.to_string(),
        Err(error) => panic!("{sql}: {error}"),
    }
}

/// The commands of a document, exactly as they stand in its blocks.
pub(crate) fn commands(document: &str) -> String {
    let mut inside = false;
    let mut lines = String::new();
    for line in document.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            _ if inside => lines += &format!("{line}\n"),
            _ => {}
        }
    }
    assert!(!inside && !lines.is_empty(), "no commands: {document}");
    lines
}

/// Whether the programs of a version are there; if not, and that is allowed, the test is skipped.
pub(crate) fn found(major: u32) -> bool {
    PgInstall::find_or_skip(major).unwrap().is_some()
}

/// A server that changes nothing by itself.
pub(crate) fn quiet(major: u32) -> PgClusterBuilder {
    PgCluster::builder().major(major).setting("autovacuum", "off")
}

/// Changes the text of the configuration.
pub(crate) fn configure(world: &World, change: impl FnOnce(String) -> String) {
    let path = world.everpoint.home().path().join("everpoint.toml");
    fs::write(&path, change(fs::read_to_string(&path).unwrap())).unwrap();
}

/// From now on backups come over the replication protocol.
pub(crate) fn forget_files(world: &World) {
    configure(world, |text| {
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("data_dir")).collect();
        lines.join("\n")
    });
}
