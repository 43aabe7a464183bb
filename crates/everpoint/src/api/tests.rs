//! The server in this process, asked over its socket. The database of its configuration does not answer.

mod restore;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser as _;
use everpoint_core::FailureClass;
use serde_json::{Value, json};

use super::routes::{Guard, ROUTES};
use super::*;
use crate::cli::Cli;
use crate::session::Session;

const READER: &str = "reader-0123456789";
const ADMIN: &str = "admin-0123456789a";

struct Fake {
    config: std::path::PathBuf,
    asked: Mutex<Vec<Ask>>,
}

impl Daemon for Fake {
    fn session(&self) -> Session {
        let arguments = ["everpoint", "--config", self.config.to_str().unwrap(), "-q", "list"];
        Session::new(Cli::try_parse_from(arguments).unwrap().global)
    }

    fn ask(&self, ask: Ask) -> Result<Job, AppError> {
        let mut asked = self.asked.lock().unwrap();
        if !asked.is_empty() {
            return Err(AppError::new("repo.locked", FailureClass::Locked, "back up", "shop", "it runs"));
        }
        asked.push(ask);
        Ok(job())
    }

    fn job(&self, id: i64) -> Result<Option<Job>, AppError> {
        Ok((id == 7).then(job))
    }

    fn jobs(&self, filter: &JobFilter) -> Result<Vec<Job>, AppError> {
        Ok(if filter.state.as_deref() == Some("failed") { Vec::new() } else { vec![job()] })
    }

    fn capture_error(&self, _cluster: &str) -> Option<String> {
        None
    }

    fn slot_given_up(&self, _cluster: &str) -> Option<String> {
        None
    }

    fn alerts(&self) -> Vec<FiringAlert> {
        Vec::new()
    }

    fn not_ready(&self) -> Vec<String> {
        Vec::new()
    }
}

fn job() -> Job {
    Job {
        id: 7,
        kind: "backup".to_owned(),
        cluster: Some("shop".to_owned()),
        provider: None,
        tried: 0,
        state: "running".to_owned(),
        started_at: "2026-01-29T14:30:00.000000Z".to_owned(),
        ended_at: None,
        report: None,
        error: None,
    }
}

struct Served {
    home: tempfile::TempDir,
    daemon: Arc<Fake>,
    server: Server,
}

fn home() -> (tempfile::TempDir, std::path::PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let text = format!(
        "[repository.local]\nurl = \"{}/repository\"\n[cluster.shop]\npostgres = \"postgres://nobody@127.0.0.1:1/x\"\n\
         [api]\nlisten = \"127.0.0.1:0\"\ntokens = [\n\
         {{ name = \"reader\", scope = \"read\", file = \"reader\" }},\n\
         {{ name = \"admin\", scope = \"operate\", command = \"echo {ADMIN}\" }} ]\n",
        home.path().display()
    );
    let config = home.path().join("everpoint.toml");
    std::fs::write(&config, text).unwrap();
    std::fs::write(home.path().join("reader"), READER).unwrap();
    let store = everpoint_store::open_url(&format!("{}/repository", home.path().display()));
    let store = store.or_else(|_| {
        std::fs::create_dir_all(home.path().join("repository")).unwrap();
        everpoint_store::open_url(&format!("{}/repository", home.path().display()))
    });
    everpoint_repo::Repository::create(store.unwrap(), None).unwrap();
    (home, config)
}

fn serve(tokens: bool) -> Served {
    let (home, config) = home();
    let mut api = crate::config::Config::load(&config).unwrap().api;
    if !tokens {
        api.tokens.clear();
    }
    let daemon = Arc::new(Fake { config, asked: Mutex::default() });
    let server = start(&api, Arc::clone(&daemon) as Arc<dyn Daemon>, Arc::default()).unwrap().unwrap();
    Served { home, daemon, server }
}

struct Got {
    status: u16,
    head: String,
    body: String,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

fn raw(address: SocketAddr, request: &str) -> Got {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
    Got { status, head: head.to_owned(), body: body.to_owned() }
}

impl Served {
    fn ask(&self, method: &str, path: &str, token: Option<&str>, body: Option<&Value>) -> Got {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        if let Some(token) = token {
            request.push_str(&format!("Authorization: Bearer {token}\r\n"));
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        if !body.is_empty() {
            request.push_str("Content-Type: application/json\r\n");
        }
        request.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        raw(self.server.address(), &request)
    }

    fn get(&self, path: &str) -> Got {
        self.ask("GET", path, Some(READER), None)
    }

    fn post(&self, path: &str, body: &Value) -> Got {
        self.ask("POST", path, Some(ADMIN), Some(body))
    }
}

#[test]
fn every_endpoint_is_in_the_document_and_nothing_else() {
    let served = serve(true);
    let document = served.ask("GET", "/openapi.json", None, None).json();
    let mut documented: Vec<(String, String)> = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        documented.extend(item.as_object().unwrap().keys().map(|verb| (path.clone(), verb.to_uppercase())));
    }
    let mut routed: Vec<(String, String)> =
        ROUTES.iter().map(|route| (route.path.to_owned(), route.verb.word().to_owned())).collect();
    documented.sort();
    routed.sort();
    assert_eq!(documented, routed);
    for (path, verb) in documented {
        let path = path.replace("{cluster}", "shop").replace("{id}", "7").replace("{label}", "none");
        let got = served.ask(&verb, &path, Some(ADMIN), None);
        assert!(
            !matches!(got.code_if_error().as_str(), "api.not_found" | "api.method"),
            "{verb} {path}: {}",
            got.body
        );
    }
}

impl Got {
    fn code_if_error(&self) -> String {
        serde_json::from_str::<Value>(&self.body)
            .ok()
            .and_then(|body| body["error"]["code"].as_str().map(str::to_owned))
            .unwrap_or_default()
    }
}

#[test]
fn the_document_holds_together() {
    let document = document::document(false);
    let schemas = document["components"]["schemas"].as_object().unwrap();
    assert!(schemas.len() > 10);
    let text = document.to_string();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name} is referred to and not there");
    }
    for name in schemas.keys() {
        assert!(text.contains(&format!("#/components/schemas/{name}\"")), "{name} is there and not used");
    }
    let mut ids: Vec<&str> = ROUTES.iter().map(|route| route.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), ROUTES.len(), "an id is used twice");
}

#[test]
fn every_endpoint_asks_for_the_token_that_it_should() {
    let served = serve(true);
    for route in ROUTES {
        let path = route.path.replace("{cluster}", "shop").replace("{id}", "7").replace("{label}", "none");
        let status = |token| served.ask(route.verb.word(), &path, token, None).status;
        match route.guard {
            Guard::Open => assert_eq!(status(None), 200, "{path}"),
            Guard::Scope(scope) => {
                let none = served.ask(route.verb.word(), &path, None, None);
                assert_eq!(none.status, 401, "{path}");
                assert!(none.head.to_lowercase().contains("www-authenticate: bearer"), "{}", none.head);
                assert_eq!(status(Some("wrong-wrong-wrong-wrong")), 401, "{path}");
                let reader = status(Some(READER));
                assert_eq!(reader == 403, scope == crate::config::api::Scope::Operate, "{path}: {reader}");
            }
        }
    }
    assert!(served.daemon.asked.lock().unwrap().is_empty());
}

#[test]
fn status_and_list_answer_though_the_database_does_not() {
    let served = serve(true);
    let status = served.get("/backup/status").json();
    assert_eq!(status["clusters"][0]["name"], "shop");
    assert_eq!(status["clusters"][0]["health"], "error");
    assert_eq!(served.get("/backup/snapshots?cluster=shop").json()["clusters"][0]["backups"], json!([]));
    assert_eq!(served.get("/api/v1/check").json()["clusters"][0]["ok"], false);
    assert!(served.get("/backup/strategy").json()["words"][0].as_str().unwrap().contains("shop"));
    assert!(served.get("/metrics").status == 200);
    let plan = served.get("/api/v1/clusters/shop/restore-plan?to=latest").json();
    assert!(plan["shortfall"]["reason"].is_string(), "{plan}");
}

#[test]
fn what_is_wrong_is_named() {
    let served = serve(true);
    let unknown = served.get("/nowhere");
    assert_eq!((unknown.status, unknown.code().as_str()), (404, "api.not_found"));
    let method = served.ask("DELETE", "/backup/status", Some(READER), None);
    assert_eq!((method.status, method.code().as_str()), (405, "api.method"));
    assert!(method.head.to_lowercase().contains("allow: get"), "{}", method.head);
    let field = served.get("/backup/status?clutser=shop");
    assert_eq!((field.status, &field.json()["error"]["fields"][0]["field"]), (400, &json!("clutser")));
    assert_eq!(served.get("/backup/status?cluster=nobody").status, 404);
    assert_eq!(served.get("/api/v1/clusters/nobody/restore-plan").status, 404);
    assert_eq!(served.get("/api/v1/jobs/8").status, 404);
    assert_eq!(served.get("/api/v1/jobs/seven").status, 404);
    assert_eq!(served.get("/api/v1/jobs?limit=0").status, 400);
    let target = served.get("/api/v1/clusters/shop/restore-plan?to=yesterday");
    assert_eq!((target.status, &target.json()["error"]["fields"][0]["field"]), (400, &json!("to")));
    let mode = served.post("/backup/snapshot", &json!({"mode": "ful"}));
    assert_eq!((mode.status, &mode.json()["error"]["fields"][0]["field"]), (422, &json!("mode")));
    assert_eq!(served.post("/backup/snapshot", &json!([1])).status, 400);
    assert_eq!(served.post("/backup/snapshot", &json!({"x": "y".repeat(100_000)})).status, 413);
    let address = served.server.address();
    let head = format!(
        "POST /backup/snapshot HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {ADMIN}\r\n"
    );
    assert_eq!(raw(address, &format!("{head}Content-Length: 2\r\n\r\n{{}}")).status, 415);
    let json = format!("{head}Content-Type: application/json\r\n");
    assert_eq!(raw(address, &format!("{json}Content-Length: 1\r\n\r\n{{")).status, 400);
}

#[test]
fn a_backup_is_a_job_and_never_runs_twice() {
    let served = serve(true);
    let body = json!({"cluster": "shop", "mode": "full", "labels": {"ticket": "4711"}});
    let begun = served.post("/backup/snapshot", &body);
    assert_eq!((begun.status, begun.json()["jobs"][0]["id"].as_u64()), (202, Some(7)));
    let ask = served.daemon.asked.lock().unwrap()[0].clone();
    let labels = [("ticket".to_owned(), "4711".to_owned())].into();
    let mode = everpoint_app::backup::BackupMode::Full;
    assert_eq!(ask, Ask::Backup { cluster: "shop".to_owned(), mode, labels });
    assert_eq!(served.get("/api/v1/jobs/7").json()["state"], "running");
    assert_eq!(served.get("/api/v1/jobs?state=failed").json()["jobs"], json!([]));
    assert_eq!(served.post("/backup/snapshot", &json!({})).status, 409);
}

#[test]
fn without_tokens_one_may_look_but_not_do_and_only_under_a_name_of_this_machine() {
    let served = serve(false);
    assert_eq!(served.ask("GET", "/backup/status", None, None).status, 200);
    let refused = served.ask("POST", "/backup/snapshot", None, None);
    assert_eq!((refused.status, refused.code().as_str()), (403, "api.forbidden"));
    let host = |host: &str| {
        let request = format!("GET /backup/strategy HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        raw(served.server.address(), &request).status
    };
    assert_eq!(host("127.0.0.1:8432"), 200);
    assert_eq!(host("[::1]:8432"), 200);
    assert_eq!(host("localhost"), 200);
    assert_eq!(host("evil.example:8432"), 403);
}

#[test]
fn a_port_that_is_taken_stops_only_those_who_asked_for_it() {
    let served = serve(true);
    let (_home, config) = home();
    let daemon = || Arc::new(Fake { config: config.clone(), asked: Mutex::default() });
    let taken = ApiConfig { listen: Some(served.server.address()), ..ApiConfig::default() };
    assert!(start(&taken, daemon(), Arc::default()).unwrap().is_none());
    let explicit = ApiConfig { explicit: true, ..taken };
    assert_eq!(start(&explicit, daemon(), Arc::default()).err().unwrap().code, "api.listen");
    let off = ApiConfig { listen: None, ..ApiConfig::default() };
    assert!(start(&off, daemon(), Arc::default()).unwrap().is_none());
}

#[test]
fn a_stopped_server_answers_no_more_and_stops_quickly() {
    let served = serve(true);
    let address = served.server.address();
    // Somebody who connects and says nothing must not hold it up for long.
    let _silent = TcpStream::connect(address).unwrap();
    let begun = std::time::Instant::now();
    drop(served);
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn with_tls_it_speaks_only_tls() {
    let (home, config) = home();
    let (cert, key) = (home.path().join("cert.pem"), home.path().join("key.pem"));
    let made = std::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "1",
        ])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .args([&key, Path::new("-out"), &cert])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let api = ApiConfig {
        tls: Some(crate::config::api::TlsConfig { cert: cert.clone(), key }),
        ..crate::config::Config::load(&config).unwrap().api
    };
    let daemon = Arc::new(Fake { config, asked: Mutex::default() });
    let server = start(&api, daemon, Arc::default()).unwrap().unwrap();
    let authority = reqwest::Certificate::from_pem(&std::fs::read(&cert).unwrap()).unwrap();
    let client = reqwest::blocking::Client::builder()
        .tls_certs_only([authority])
        .resolve("localhost", server.address())
        .build()
        .unwrap();
    let url = format!("https://localhost:{}/healthz", server.address().port());
    assert_eq!(client.get(url).send().unwrap().status(), 200);
    let clear = raw_or_nothing(server.address());
    assert!(!clear.starts_with("HTTP/1.1 200"), "{clear}");
    let wrong = ApiConfig {
        tls: Some(crate::config::api::TlsConfig { cert: "nowhere".into(), key: "nowhere".into() }),
        ..api
    };
    let daemon = Arc::new(Fake { config: home.path().join("everpoint.toml"), asked: Mutex::default() });
    assert_eq!(start(&wrong, daemon, Arc::default()).err().unwrap().code, "api.tls");
}

fn raw_or_nothing(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}
