//! A daemon with an API and tokens, for a real server.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers may fail loudly")]

use std::cell::RefCell;
use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use everpoint_testkit::{Background, Everpoint, PgCluster, PgInstall};
use serde_json::Value;

pub(crate) const READER: &str = "reader-55f6a8c1d2e3b4";
pub(crate) const ADMIN: &str = "admin-77d0c3b2a1f9e8d7";

pub(crate) struct Served {
    pub(crate) cluster: PgCluster,
    pub(crate) everpoint: Everpoint,
    pub(crate) daemon: Background,
    pub(crate) url: String,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A daemon for one cluster, with tokens; `more` is added to its configuration.
pub(crate) fn serve(more: &str) -> Option<Served> {
    PgInstall::find_or_skip(15).unwrap()?;
    Some(serve_for(PgCluster::builder().start().unwrap(), more))
}

/// As [`serve`], for this server.
pub(crate) fn serve_for(cluster: PgCluster, more: &str) -> Served {
    let everpoint =
        Everpoint::new(Path::new(env!("CARGO_BIN_EXE_everpoint")), &[("shop", &cluster)]).unwrap();
    let home = everpoint.home().path().to_owned();
    let port = free_port();
    for (name, token) in [("reader", READER), ("admin", ADMIN)] {
        let path = home.join(name);
        fs::write(&path, token).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    }
    let text = format!(
        "\n[serve]\nstate_dir = \"{}/state\"\n[api]\nlisten = \"127.0.0.1:{port}\"\ntokens = [\n\
         {{ name = \"r\", scope = \"read\", file = \"reader\" }},\n\
         {{ name = \"a\", scope = \"operate\", file = \"admin\" }} ]\n{more}",
        home.display()
    );
    let config = home.join("everpoint.toml");
    let mut file = fs::File::options().append(true).open(config).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    everpoint.run(&["init"]).unwrap();
    let daemon = everpoint.spawn(&["serve"]).unwrap();
    let served = Served { cluster, everpoint, daemon, url: format!("http://127.0.0.1:{port}") };
    served.wait_until("the first backup", || {
        let jobs = served.try_get("/api/v1/jobs?state=ok&kind=backup");
        jobs.is_some_and(|jobs| jobs["jobs"].as_array().is_some_and(|jobs| !jobs.is_empty()))
    });
    served
}

impl Served {
    pub(crate) fn try_get(&self, path: &str) -> Option<Value> {
        let client = reqwest::blocking::Client::new();
        client.get(format!("{}{path}", self.url)).bearer_auth(READER).send().ok()?.json().ok()
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let client = reqwest::blocking::Client::new();
        let request = client.post(format!("{}{path}", self.url)).bearer_auth(ADMIN).json(body);
        let response = request.send().unwrap();
        (response.status().as_u16(), response.json().unwrap())
    }

    /// As [`Served::post`], again as long as the answer is one of these errors.
    pub(crate) fn post_until(&self, path: &str, body: &Value, later: &[&str]) -> (u16, Value) {
        let answer = RefCell::default();
        self.wait_until("an answer", || {
            let (status, said) = self.post(path, body);
            let is_later = later.iter().any(|code| said["error"]["code"] == *code);
            answer.replace((status, said));
            !is_later
        });
        answer.into_inner()
    }

    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let client = reqwest::blocking::Client::new();
        let text =
            client.get(format!("{}/metrics", self.url)).bearer_auth(READER).send().unwrap().text().unwrap();
        text.lines().find(|line| line.starts_with(name))?.split(' ').next_back()?.parse().ok()
    }

    pub(crate) fn wait_until(&self, what: &str, is: impl Fn() -> bool) {
        let begun = Instant::now();
        while !is() {
            assert!(
                begun.elapsed() < Duration::from_secs(40),
                "{what} takes too long: {}",
                self.daemon.said()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Stops it, in time; what it said must not hold a token.
    pub(crate) fn end(self) {
        let begun = Instant::now();
        let ran = self.daemon.stop().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert!(ran.status.success(), "{}", ran.told(&["serve"]));
        for token in [READER, ADMIN] {
            assert!(!ran.err.contains(token) && !ran.out.contains(token), "a token is in the log");
        }
    }
}
