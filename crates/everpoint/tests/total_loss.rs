//! Total loss: two clusters at work, one package of both, and then nothing but the key and that file. Both come back to the
//! package's second, as their writers' own record tells it: with everpoint, and with age, tar, zstd and PostgreSQL alone.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail loudly"
)]

#[allow(dead_code, reason = "shared with other scenarios")]
mod support_scenarios;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use everpoint_testkit::{
    Address, Background, Everpoint, Expected, History, Judge, PgCluster, PgInstall, Port, RunningCopy,
    Session, WriterOptions, Writers, parse_lsn, server_tool, text,
};
use support_scenarios::{commands, found};

/// The clusters and their versions.
const CLUSTERS: [(&str, u32); 2] = [("order-db", 15), ("inventory-db", 18)];

/// What a cluster must hold when it comes back, and the programs that it needs.
struct Lost {
    name: &'static str,
    install: PgInstall,
    expected: Expected,
}

/// What is left: a key and a package, in a directory where nothing else is.
struct Remains {
    lost: Vec<Lost>,
    everpoint: Everpoint,
    key: PathBuf,
    package: PathBuf,
}

/// A server at work.
struct Working {
    // Dropped first: clients of the server.
    writers: Writers,
    _capture: Background,
    server: PgCluster,
    log_start: u64,
}

impl Working {
    fn start(everpoint: &Everpoint, name: &str, server: PgCluster, log_start: u64) -> Self {
        let capture = everpoint.spawn(&["capture", name]).unwrap();
        everpoint.run(&["backup", name]).unwrap();
        let options = WriterOptions { prepared: true, ..WriterOptions::default() };
        let writers = Writers::start(server.address(), &options).unwrap();
        Self { writers, _capture: capture, server, log_start }
    }

    /// What must be there when the log is replayed up to and with the record at `last`.
    fn lose(self, last: u64) -> Expected {
        let record = self.writers.stop();
        let end = self.server.flushed().unwrap();
        let log = self.server.data_dir().join("pg_wal");
        let history = History::read(self.server.install(), &log, 1, self.log_start, end).unwrap();
        let judge = Judge::new(&record, history).unwrap();
        assert!(judge.history().ends().last().unwrap().lsn > last, "the package's second was the last one");
        judge.expect(judge.history().before_lsn(last + 1))
    }
}

fn server(major: u32) -> (PgCluster, u64) {
    let settings = [("wal_keep_size", "4GB"), ("max_prepared_transactions", "20")];
    let server = PgCluster::builder().major(major).wal_segsize_mb(1).settings(settings).start().unwrap();
    Writers::prepare(&mut server.session().unwrap()).unwrap();
    let redo = server.psql("SELECT redo_lsn FROM pg_control_checkpoint()").unwrap();
    (server, parse_lsn(&redo).unwrap())
}

/// Protects two servers at work, packs both, and loses everything but key and package.
fn lose_all() -> Option<Remains> {
    if !CLUSTERS.iter().all(|(_, major)| found(*major)) {
        return None;
    }
    let servers = CLUSTERS.map(|(_, major)| server(major));
    let named: Vec<_> =
        CLUSTERS.iter().zip(&servers).map(|((name, _), (server, _))| (*name, server)).collect();
    let everpoint = Everpoint::new(Path::new(env!("CARGO_BIN_EXE_everpoint")), &named).unwrap();
    everpoint.run(&["init"]).unwrap();
    let working: Vec<Working> = CLUSTERS
        .iter()
        .zip(servers)
        .map(|((name, _), (server, start))| Working::start(&everpoint, name, server, start))
        .collect();
    sleep(Duration::from_secs(3));
    for (working, (name, _)) in working.iter().zip(CLUSTERS) {
        let end = working.server.flushed().unwrap();
        wait_for("the log is stored", || stored_until(&everpoint, name) >= end);
    }
    let ends: Vec<u64> = working.iter().map(|working| working.server.flushed().unwrap()).collect();
    sleep(Duration::from_secs(1));
    let report =
        everpoint.json(&["offsite", "pack", "--directory", everpoint.home().path().to_str().unwrap()]);
    let report = report.unwrap();
    sleep(Duration::from_millis(500));
    let package = everpoint.home().path().join("all-that-is-left.age");
    fs::rename(text(&report, "/file").unwrap(), &package).unwrap();
    let mut lost = Vec::new();
    for (number, (working, (name, _))) in working.into_iter().zip(CLUSTERS).enumerate() {
        let cluster =
            report["clusters"].as_array().unwrap().iter().find(|line| line["name"] == name).unwrap();
        let last = parse_lsn(text(cluster, "/to_lsn").unwrap()).unwrap();
        assert!(last + 4096 >= ends[number], "the package of {name} ends long before it was made: {report}");
        let install = working.server.install().clone();
        lost.push(Lost { name, install, expected: working.lose(last) });
    }
    let home = everpoint.home().path();
    fs::remove_dir_all(home.join("repository")).unwrap();
    fs::remove_file(home.join("everpoint.toml")).unwrap();
    Some(Remains { lost, key: home.join("key"), package, everpoint })
}

fn stored_until(everpoint: &Everpoint, name: &str) -> u64 {
    let status = everpoint.report(&["status", name]).unwrap();
    status.pointer("/clusters/0/capture/lsn").and_then(|lsn| parse_lsn(lsn.as_str()?)).unwrap_or(0)
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < Duration::from_secs(60), "waited in vain until {what}");
        sleep(Duration::from_millis(100));
    }
}

impl Remains {
    fn run(&self, script: &str, servers: &Path) {
        let script = format!("unset EVERPOINT_CONFIG\n{script}");
        let ran = self.everpoint.shell(&script, servers).unwrap().wait(Duration::from_secs(120)).unwrap();
        assert!(ran.status.success(), "{script}\n{}{}", ran.out, ran.err);
    }

    fn place(&self, name: &str) -> PathBuf {
        self.everpoint.home().path().join(name)
    }
}

impl Lost {
    /// The server that runs there holds exactly what was promised.
    fn judge(&self, copy: RunningCopy, session: &mut Session) {
        let verdict = self.expected.compare(session).unwrap();
        assert!(
            verdict.is_exact(),
            "{}: {} differences: {:#?}",
            self.name,
            verdict.count,
            verdict.differences
        );
        assert!(self.expected.transactions > 100, "{}: nobody wrote", self.name);
        copy.stop_and_check(&self.install).unwrap();
    }
}

#[test]
fn both_clusters_come_back_from_one_package_and_the_key() {
    let Some(remains) = lose_all() else { return };
    for lost in &remains.lost {
        let place = remains.place(lost.name);
        let script = format!(
            "./everpoint restore {} {} --package {} --key-file {} --start\n",
            lost.name,
            place.display(),
            remains.package.display(),
            remains.key.display()
        );
        remains.run(&script, &lost.install.bin());
        let copy = RunningCopy::on(&place).unwrap();
        let mut session = copy.session().unwrap();
        lost.judge(copy, &mut session);
    }
}

#[test]
fn both_clusters_come_back_with_age_tar_zstd_and_postgresql_alone() {
    let Some(age) = server_tool("bin/age").unwrap() else { return };
    let Some(remains) = lose_all() else { return };
    let identity = remains.place("identity.txt");
    remains.run(
        &format!("./everpoint --key-file {} key age > {}", remains.key.display(), identity.display()),
        Path::new("/nowhere"),
    );
    fs::remove_file(&remains.key).unwrap();
    // Nothing of ours is on the path from here on.
    fs::remove_file(remains.everpoint.program()).unwrap();
    let unpacked = remains.place("unpacked");
    let variables = format!(
        "PATH={}:/usr/bin:/bin\npackage={}\nidentity={}\nfile={}\n",
        age.parent().unwrap().display(),
        unpacked.display(),
        identity.display(),
        remains.package.display()
    );
    // The instructions lie inside of the package: the first commands are known to whoever opens it.
    let open =
        "mkdir -p \"$package\"\nage --decrypt --identity \"$identity\" \"$file\" | tar -x -C \"$package\"\n";
    remains.run(&format!("{variables}{open}"), Path::new("/nowhere"));
    let instructions = fs::read_to_string(unpacked.join("RESTORE.md")).unwrap();
    let mut parts = instructions.split("\n## ");
    let opening = parts.by_ref().find(|part| part.starts_with("Open the package")).unwrap();
    remains.run(&format!("{variables}{}", commands(opening)), Path::new("/nowhere"));
    for lost in &remains.lost {
        let heading = format!("Cluster {}\n", lost.name);
        let part = instructions.split("\n## ").find(|part| part.starts_with(&heading)).unwrap();
        let (data, port) = (remains.place(lost.name), Port::free().unwrap());
        let own = format!(
            "data={}\nbin={}\nport={}\n",
            data.display(),
            lost.install.bin().display(),
            port.number()
        );
        remains.run(&format!("{variables}{own}{}", commands(part)), Path::new("/nowhere"));
        let copy = RunningCopy::on(&data).unwrap();
        let address = Address::Socket(data, port.number());
        lost.judge(copy, &mut Session::connect(&address, "postgres").unwrap());
    }
}
