//! Restores that are asked for over HTTP, on a real server: what is restored, and what never happens.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail loudly"
)]

#[allow(dead_code, reason = "shared with other tests")]
mod support_api;

use std::fs;
use std::path::PathBuf;

use everpoint_testkit::{Account, PgCluster, PgInstall, Scratch};
use serde_json::{Value, json};
use support_api::{Served, serve_for};

const RESTORE: &str = "/api/v1/clusters/shop/restore";
const UNFINISHED: &str = "everpoint.restore-incomplete";

/// A daemon that may restore into the directory that is returned.
fn serve(cluster: PgCluster) -> (Served, PathBuf) {
    let served = serve_for(cluster, "restore_dir = \"restored\"\n");
    let below = served.everpoint.home().subdir("restored").unwrap();
    (served, below)
}

/// Asks until nothing else works and the log is stored that far; returns the first answer that is neither.
fn ask(served: &Served, body: &Value) -> (u16, Value) {
    served.post_until(RESTORE, body, &["serve.busy", "restore.shortfall"])
}

/// The job of an answer, at its end.
fn ended(served: &Served, begun: &(u16, Value)) -> Value {
    assert_eq!(begun.0, 202, "{}", begun.1);
    let id = begun.1["jobs"][0]["id"].as_i64().unwrap();
    let job = || served.try_get(&format!("/api/v1/jobs/{id}")).unwrap();
    served.wait_until("the restore", || job()["state"] != "running");
    job()
}

#[test]
fn a_moment_is_restored_over_http_and_the_copy_holds_its_rows() {
    let Some(install) = PgInstall::find_or_skip(15).unwrap() else { return };
    let (served, below) = serve(PgCluster::builder().start().unwrap());
    served.cluster.psql("CREATE TABLE seen AS SELECT 'before' AS word").unwrap();
    let moment = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
    let moment = served.cluster.psql(moment).unwrap().trim().to_owned();
    served.cluster.psql("UPDATE seen SET word = 'after'").unwrap();
    let wanted = json!({"to": moment, "directory": "copy"});
    let job = ended(&served, &ask(&served, &wanted));
    assert_eq!((&job["state"], &job["kind"]), (&json!("ok"), &json!("restore")), "{job}");
    let data = below.join("copy");
    assert_eq!(job["report"]["directory"], json!(data), "{job}");
    assert_eq!((&job["report"]["target"], &job["report"]["port"]), (&json!(moment), &Value::Null));
    assert!(!data.join(UNFINISHED).exists());
    let (status, again) = ask(&served, &wanted);
    assert_eq!((status, &again["error"]["code"]), (409, &json!("restore.directory")), "{again}");
    let home = Scratch::new("copy").unwrap();
    Account::of_servers().unwrap().own(home.path()).unwrap();
    let mut copy = PgCluster::on_directory(install, home, data).unwrap();
    copy.start().unwrap();
    served
        .wait_until("the replay", || copy.psql("SELECT pg_is_in_recovery()").is_ok_and(|t| t.trim() == "f"));
    assert_eq!(copy.psql("SELECT word FROM seen").unwrap().trim(), "before");
    assert_eq!(served.cluster.psql("SELECT word FROM seen").unwrap().trim(), "after");
    served.end();
}

#[test]
fn a_tablespace_is_never_written_where_it_was() {
    let Some(_) = PgInstall::find_or_skip(15).unwrap() else { return };
    let cluster = PgCluster::builder().start().unwrap();
    let space = cluster.home().subdir("space").unwrap();
    cluster.psql(&format!("CREATE TABLESPACE side LOCATION '{}'", space.display())).unwrap();
    cluster.psql("CREATE TABLE aside TABLESPACE side AS SELECT 1 AS n").unwrap();
    let (mut served, below) = serve(cluster);
    // As on another machine, where a restore would make the directory.
    served.cluster.stop(everpoint_testkit::StopMode::Fast).unwrap();
    fs::rename(&space, space.with_extension("away")).unwrap();
    let backup = served.try_get("/backup/snapshots").unwrap()["clusters"][0]["backups"][0]["label"].clone();
    let wanted = json!({"to": format!("backup:{}", backup.as_str().unwrap()), "directory": "copy"});
    let job = ended(&served, &ask(&served, &wanted));
    assert_eq!(job["state"], "ok", "{job}");
    assert!(!space.exists(), "nothing is made where the tablespace was");
    let inside: Vec<_> =
        fs::read_dir(below.join("copy/pg_tblspc")).unwrap().map(|it| it.unwrap().path()).collect();
    assert!(inside.len() == 1 && inside[0].is_dir() && !inside[0].is_symlink(), "{inside:?}");
    served.end();
}

#[test]
fn one_restore_at_a_time_and_a_signal_leaves_it_marked() {
    let Some(_) = PgInstall::find_or_skip(15).unwrap() else { return };
    let cluster = PgCluster::builder().start().unwrap();
    cluster
        .psql("CREATE TABLE wide AS SELECT repeat(md5(n::text), 60) FROM generate_series(1, 60000) n")
        .unwrap();
    let (served, below) = serve(cluster);
    let answers = std::thread::scope(|scope| {
        let post = || ask(&served, &json!({"directory": "copy"}));
        let threads = [scope.spawn(post), scope.spawn(post)];
        threads.map(|thread| thread.join().unwrap())
    });
    let mut statuses = answers.each_ref().map(|(status, _)| *status);
    statuses.sort_unstable();
    assert_eq!(statuses, [202, 409], "two into one directory: {answers:?}");
    let (status, begun) = ask(&served, &json!({"directory": "cut"}));
    assert_eq!(status, 202, "{begun}");
    let Served { cluster, everpoint, daemon, url } = served;
    assert!(daemon.stop().unwrap().status.success());
    let daemon = everpoint.spawn(&["serve"]).unwrap();
    let served = Served { cluster, everpoint, daemon, url };
    served.wait_until("the daemon", || served.try_get("/api/v1/jobs").is_some());
    let job = ended(&served, &(status, begun));
    // However far it came: what was cut off is never taken for whole.
    let (marked, begun) = (below.join("cut").join(UNFINISHED).exists(), below.join("cut").exists());
    let whole = begun && !marked;
    assert_eq!((job["state"] == "interrupted", job["state"] == "ok"), (!whole, whole), "{job}");
    if marked {
        assert!(job["error"]["error"]["hint"].as_str().unwrap().contains("remove it"), "{job}");
        let (status, said) = ask(&served, &json!({"directory": "cut"}));
        assert_eq!((status, &said["error"]["code"]), (409, &json!("restore.directory")), "{said}");
    }
    served.end();
}
