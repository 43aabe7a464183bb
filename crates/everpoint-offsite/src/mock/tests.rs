use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use reqwest::StatusCode;
use reqwest::blocking::{Client, Response};

use super::*;

/// 2026-11-21 12:00 UTC.
const NOON: i64 = 1_795_262_400_000_000;
const HOUR: i64 = 3_600_000_000;

struct Mock {
    server: MockServer,
    client: Client,
    dir: tempfile::TempDir,
}

impl Mock {
    fn new(change: impl FnOnce(&mut MockOptions)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = MockOptions::new(dir.path().join("kept"));
        change(&mut options);
        let server = MockServer::start(&options).unwrap();
        server.set_now(Some(NOON));
        let client = Client::builder().no_proxy().build().unwrap();
        Self { server, client, dir }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.address())
    }

    fn put(&self, name: &str, body: &str) -> Response {
        let url = self.server.upload_url().replace("{name}", name);
        self.client.put(url).body(body.to_owned()).send().unwrap()
    }

    fn get(&self, path: &str) -> Response {
        self.client.get(self.url(path)).send().unwrap()
    }
}

#[test]
fn it_keeps_what_it_gets_and_gives_it_back() {
    let mock = Mock::new(|_| ());
    let large = "x".repeat(300_000);
    assert_eq!(mock.put("one.age", &large).status(), StatusCode::CREATED);
    let listed = mock.get("/list").text().unwrap();
    assert!(listed.contains("one.age") && listed.contains("300000"), "{listed}");
    let back = mock.get("/one.age");
    assert_eq!(back.content_length(), Some(300_000));
    assert_eq!(back.text().unwrap(), large);
    assert_eq!(mock.get("/upload/two.age").status(), StatusCode::NOT_FOUND);
    assert_eq!(mock.get("/upload/.calls.jsonl").status(), StatusCode::NOT_FOUND);
    assert_eq!(mock.get("/health").status(), StatusCode::OK);
}

#[test]
fn the_second_call_of_a_day_is_refused_and_counted_even_after_a_restart() {
    let mut mock = Mock::new(|_| ());
    assert_eq!(mock.put("a", "a").status(), StatusCode::CREATED);
    assert_eq!(mock.put("b", "b").status(), StatusCode::TOO_MANY_REQUESTS);
    mock.server = MockServer::start(&MockOptions::new(mock.dir.path().join("kept"))).unwrap();
    mock.server.set_now(Some(NOON + 11 * HOUR));
    assert_eq!(mock.put("c", "c").status(), StatusCode::TOO_MANY_REQUESTS);
    mock.server.set_now(Some(NOON + 12 * HOUR));
    assert_eq!(mock.put("d", "d").status(), StatusCode::CREATED);
    let stats: MockStats = mock.get("/stats").json().unwrap();
    assert_eq!(stats, mock.server.stats());
    assert_eq!((stats.refused, stats.most_in_a_day, stats.most_in_24h, stats.requests), (2, 3, 4, 2));
    assert_eq!(stats.by_day.get("2026-11-22"), Some(&1));
}

#[test]
fn its_date_is_that_of_its_clock_which_can_be_set_from_outside() {
    let mock = Mock::new(|_| ());
    let set = mock.client.put(mock.url("/clock")).body("1000000").send().unwrap();
    assert_eq!(set.status(), StatusCode::NO_CONTENT);
    let response = mock.put("a", "a");
    assert_eq!(response.headers()["date"], "Thu, 01 Jan 1970 00:00:01 GMT");
    assert_eq!(mock.server.stats().requests, 1, "setting the clock is no request");
}

#[test]
fn a_request_that_breaks_off_after_its_head_counts_and_leaves_no_file() {
    let mock = Mock::new(|_| ());
    let mut stream = TcpStream::connect(mock.server.address()).unwrap();
    write!(stream, "PUT /upload/half HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nonly this").unwrap();
    while mock.server.stats().uploads.is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(stream);
    assert_eq!(mock.put("b", "b").status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(!mock.get("/list").text().unwrap().contains("half"));
}

#[test]
fn each_kind_of_failure_happens_and_its_call_counts() {
    let mock = Mock::new(|options| {
        options.failure_rate = 1.0;
        options.calls = 60;
    });
    let (mut refused, mut failed) = (0, 0);
    for n in 0..60 {
        match mock.put(&format!("f{n}"), "body").status() {
            StatusCode::SERVICE_UNAVAILABLE => refused += 1,
            StatusCode::INTERNAL_SERVER_ERROR => failed += 1,
            other => panic!("{other}"),
        }
    }
    let kept = mock.get("/list").text().unwrap().matches("\"name\"").count();
    assert!(refused > 5 && failed > kept && kept > 5, "{refused} {failed} {kept}");
    assert_eq!(mock.put("more", "").status(), StatusCode::TOO_MANY_REQUESTS);
}

#[test]
fn beyond_its_storage_limit_nothing_is_kept() {
    let mock = Mock::new(|options| {
        options.storage_limit = Some(10);
        options.calls = 9;
    });
    assert_eq!(mock.put("a", "123456").status(), StatusCode::CREATED);
    assert_eq!(mock.put("b", "12345").status(), StatusCode::INSUFFICIENT_STORAGE);
    assert_eq!(mock.put("c", "1234").status(), StatusCode::CREATED);
    assert_eq!(mock.server.stats().kept_bytes, 10);
}

#[test]
fn an_upload_waits_as_long_as_it_was_told_to() {
    let mock = Mock::new(|options| options.latency = Duration::from_millis(80));
    let begun = std::time::Instant::now();
    let mut text = String::new();
    mock.put("a", "a").read_to_string(&mut text).unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(80));
}
