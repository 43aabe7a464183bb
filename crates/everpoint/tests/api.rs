//! The daemon's HTTP API and alerts, on a real server, from the outside.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail loudly"
)]

#[allow(dead_code, reason = "shared with other tests")]
mod support_api;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use everpoint_testkit::{StopMode, test_tool};
use serde_json::Value;
use support_api::{ADMIN, serve};

#[test]
fn what_is_asked_over_http_happens_to_the_database() {
    let Some(served) = serve("") else { return };
    let wanted = serde_json::json!({"mode": "full", "labels": {"why": "test"}});
    // Expiry follows the first backup.
    let (status, begun) = served.post_until("/backup/snapshot", &wanted, &["serve.busy"]);
    assert_eq!(status, 202, "{begun}");
    let id = begun["jobs"][0]["id"].as_i64().unwrap();
    let job = || served.try_get(&format!("/api/v1/jobs/{id}")).unwrap();
    served.wait_until("the backup", || job()["state"] != "running");
    let report = job()["report"].clone();
    let snapshots = served.try_get("/backup/snapshots").unwrap();
    let backups = snapshots["clusters"][0]["backups"].as_array().unwrap();
    let found = backups.iter().find(|backup| backup["label"] == report["label"]).unwrap();
    assert_eq!((found["kind"].as_str(), found["labels"]["why"].as_str()), (Some("full"), Some("test")));
    let shown = served.everpoint.json(&["list"]).unwrap();
    assert_eq!(
        shown["clusters"][0]["backups"], snapshots["clusters"][0]["backups"],
        "as the command says it"
    );
    let (status, point) =
        served.post("/api/v1/clusters/shop/restore-points", &serde_json::json!({"name": "before release"}));
    assert_eq!(status, 201, "{point}");
    let plan = || served.try_get("/api/v1/clusters/shop/restore-plan?to=name%3Abefore+release").unwrap();
    served.wait_until("the restore point", || plan()["shortfall"].is_null());
    assert!(plan()["backup"].is_string());
    let label = report["label"].as_str().unwrap();
    let (status, held) =
        served.post(&format!("/api/v1/clusters/shop/backups/{label}/hold"), &serde_json::json!({}));
    assert_eq!((status, &held["held"]), (200, &Value::Bool(true)), "{held}");
    let expiry = served.try_get("/api/v1/clusters/shop/expire-plan").unwrap();
    assert!(expiry["kept"].as_array().unwrap().iter().any(|kept| kept["label"] == label), "{expiry}");
    let strategy = served.try_get("/backup/strategy").unwrap();
    assert_eq!(strategy["schedules"]["backup"], "0 2 * * *");
    served.end();
}

#[test]
fn schemathesis_finds_nothing() {
    let Some(schemathesis) = test_tool("python/bin/st").unwrap() else { return };
    let more =
        "restore_dir = \"restored\"\n[offsite.vault]\ntype = \"filesystem\"\npath = \".\"\ncalls = 3\n";
    let Some(served) = serve(more) else { return };
    served.everpoint.home().subdir("restored").unwrap();
    let home = served.everpoint.home().path().join("schemathesis");
    fs::create_dir_all(&home).unwrap();
    let config = home.join("schemathesis.toml");
    // A target that is written as it should be may still not be stored: 422, before any job begins.
    let short = "[[operations]]\ninclude-path = \"/api/v1/clusters/{cluster}/restore\"\n\
         checks.positive_data_acceptance.expected-statuses = [\"202\", \"404\", \"409\", \"422\", \"5xx\"]\n";
    fs::write(&config, format!("[parameters]\n\"path.cluster\" = \"shop\"\n{short}")).unwrap();
    let ran = Command::new(schemathesis)
        .arg("--config-file")
        .arg(&config)
        .args(["run", &format!("{}/openapi.json", served.url), "--max-examples", "15", "--no-color"])
        .args(["--seed", "1", "--header", &format!("Authorization: Bearer {ADMIN}")])
        .current_dir(&home)
        .output()
        .unwrap();
    assert!(
        ran.status.success(),
        "{}{}",
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr)
    );
    served.end();
}

/// A webhook's messages, and its address.
fn webhook() -> (Arc<Mutex<Vec<Value>>>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let got: Arc<Mutex<Vec<Value>>> = Arc::default();
    let kept = Arc::clone(&got);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            kept.lock().unwrap().extend(body(&mut stream));
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    (got, address)
}

#[test]
fn a_server_that_goes_away_is_alerted_once_and_its_return_once() {
    let (got, address) = webhook();
    let more = format!(
        "[alerts]\nevery = \"1s\"\n[[alerts.sink]]\ntype = \"webhook\"\nonly = [\"server_down\"]\nurl = \"http://{address}/T0SECRET\"\n"
    );
    let Some(mut served) = serve(&more) else { return };
    let states =
        || got.lock().unwrap().iter().map(|message| message["state"].clone()).collect::<Vec<Value>>();
    served.wait_until("a look", || served.metric("everpoint_server_up") == Some(1.0));
    served.cluster.stop(StopMode::Fast).unwrap();
    served.wait_until("the alert", || states() == ["firing"]);
    assert_eq!(got.lock().unwrap()[0]["kind"], "server_down");
    served.wait_until("the measure", || served.metric("everpoint_server_up") == Some(0.0));
    served.cluster.start().unwrap();
    served.wait_until("the recovery", || states() == ["firing", "resolved"]);
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(states(), ["firing", "resolved"]);
    assert!(!served.daemon.said().contains("T0SECRET"));
    served.end();
}

#[test]
fn a_package_is_asked_for_and_its_failure_and_recovery_are_told() {
    let (got, address) = webhook();
    let more = format!(
        "[offsite.vault]\ntype = \"filesystem\"\npath = \"vault\"\n[alerts]\nevery = \"1s\"\n\
         [[alerts.sink]]\ntype = \"webhook\"\nonly = [\"upload_failed\"]\nurl = \"http://{address}/\"\n"
    );
    let Some(served) = serve(&more) else { return };
    let states =
        || got.lock().unwrap().iter().map(|message| message["state"].clone()).collect::<Vec<Value>>();
    let trigger = |body: Value| served.post("/backup/trigger", &body);
    assert_eq!(trigger(serde_json::json!({})).0, 422);
    assert_eq!(trigger(serde_json::json!({"confirm": false})).0, 409);
    assert_eq!(trigger(serde_json::json!({"confirm": true, "provider": "other"})).0, 404);
    // Expiry follows the first backup; a package waits for it.
    let push = || {
        served.wait_until("nothing else works", || trigger(serde_json::json!({"confirm": true})).0 == 202);
        let last = || served.try_get("/api/v1/jobs?kind=package&limit=1").unwrap()["jobs"][0].clone();
        served.wait_until("the package", || last()["state"] != "running");
        last()
    };
    let failed = push();
    assert_eq!((&failed["state"], &failed["provider"]), (&Value::from("failed"), &Value::from("vault")));
    served.wait_until("the alert", || states() == ["firing"]);
    let path = served.everpoint.home().path().join("vault");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    let sent = push();
    assert_eq!(sent["state"], "ok", "{sent}");
    served.wait_until("the recovery", || states() == ["firing", "resolved"]);
    served.wait_until("the measure", || served.metric("everpoint_offsite_calls_left") == Some(0.0));
    assert_eq!(trigger(serde_json::json!({"confirm": true})).0, 429);
    let status = served.try_get("/api/v1/offsite").unwrap();
    assert_eq!(status["providers"][0]["last_arrived"]["name"], sent["report"]["name"]);
    assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
    served.end();
}

fn body(stream: &mut std::net::TcpStream) -> Option<Value> {
    let (mut reader, mut length) = (BufReader::new(stream), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    serde_json::from_slice(&body).ok()
}

#[test]
fn it_refuses_to_be_open_to_other_machines_by_mistake() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("everpoint.toml");
    let run = |api: &str| {
        let text = format!(
            "[repository.local]\nurl = \"{0}/repository\"\n[cluster.shop]\npostgres = \"postgres://127.0.0.1:1/x\"\n\
             [serve]\nstate_dir = \"{0}/state\"\n[api]\n{api}\n",
            home.path().display()
        );
        fs::write(&config, text).unwrap();
        let mut everpoint = Command::new(env!("CARGO_BIN_EXE_everpoint"));
        let ran = everpoint_testkit::clean(&mut everpoint)
            .arg("--json")
            .arg("--config")
            .arg(&config)
            .arg("serve")
            .output()
            .unwrap();
        let said: Value = serde_json::from_slice(&ran.stdout).unwrap_or_default();
        (ran.status.code(), said["error"]["code"].as_str().unwrap_or_default().to_owned())
    };
    let refused = (Some(2), "api.listen".to_owned());
    assert_eq!(run("listen = \"0.0.0.0:0\""), refused);
    assert_eq!(run("listen = \"[::]:0\""), refused);
    let token = "tokens = [{ name = \"a\", scope = \"read\", command = \"echo 0123456789abcdef\" }]";
    assert_eq!(run(&format!("listen = \"0.0.0.0:0\"\n{token}")), refused);
    let weak = "tokens = [{ name = \"a\", scope = \"read\", command = \"echo short\" }]";
    assert_eq!(run(weak), (Some(2), "api.token".to_owned()));
    let inline = "tokens = [{ name = \"a\", scope = \"read\", token = \"0123456789abcdef\" }]";
    assert_eq!(run(inline), (Some(2), "config.invalid".to_owned()));
}
