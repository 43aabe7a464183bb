use std::io::Write as _;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use super::*;
use crate::mock::{MockOptions, MockServer};

fn body(text: &'static str) -> Box<dyn Read + Send> {
    Box::new(text.as_bytes())
}

fn mock(dir: &tempfile::TempDir) -> (MockServer, HttpProvider) {
    let server = MockServer::start(&MockOptions::new(dir.path().join("kept"))).unwrap();
    server.set_now(Some(1_000_000_000_000_000));
    let provider = HttpProvider::new(HttpOptions::mock(&format!("http://{}", server.address()))).unwrap();
    (server, provider)
}

/// A server that answers every request with `answer` and counts the connections.
fn scripted(answer: &'static str) -> (String, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://user:pass@{}/in/{{name}}?token=s3cret", listener.local_addr().unwrap());
    let count = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&count);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            counter.fetch_add(1, Ordering::SeqCst);
            let mut seen = [0; 4096];
            let _ = stream.read(&mut seen);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (url, count)
}

#[test]
fn a_file_arrives_is_listed_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, provider) = mock(&dir);
    let receipt = provider.upload("everpoint-1.age", 5, body("hello")).unwrap();
    assert_eq!(receipt.provider_date, Some(1_000_000_000_000_000));
    assert!(receipt.url.unwrap().ends_with("/upload/everpoint-1.age"));
    let listed = provider.list().unwrap().unwrap();
    assert_eq!(listed, [Entry { name: "everpoint-1.age".to_owned(), size: Some(5) }]);
    let mut back = Vec::new();
    assert_eq!(provider.download("everpoint-1.age", &mut back).unwrap(), 5);
    assert_eq!(back, b"hello");
    assert_eq!(provider.download("other", &mut back).unwrap_err().kind, ProviderErrorKind::NotFound);
    assert!(provider.health().is_ok() && provider.asks());
}

#[test]
fn one_call_too_many_is_told_apart_and_carries_the_providers_time() {
    let dir = tempfile::tempdir().unwrap();
    let (server, provider) = mock(&dir);
    provider.upload("a", 1, body("a")).unwrap();
    let error = provider.upload("b", 1, body("b")).unwrap_err();
    assert_eq!((error.kind, error.sent, error.retryable()), (ProviderErrorKind::NoCallLeft, true, false));
    assert_eq!(error.provider_date, Some(1_000_000_000_000_000));
    assert_eq!(server.stats().uploads.len(), 2, "nothing is tried again");
}

#[test]
fn a_refused_connection_and_an_unknown_host_spend_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = format!("http://{}/{{name}}", listener.local_addr().unwrap());
    drop(listener);
    for url in [closed.as_str(), "http://nowhere.invalid/{name}"] {
        let provider = HttpProvider::new(HttpOptions::new(url)).unwrap();
        let error = provider.upload("a", 1, body("a")).unwrap_err();
        assert_eq!((error.kind, error.sent), (ProviderErrorKind::Unreachable, false), "{url}: {error:?}");
        assert!(error.retryable());
    }
}

#[test]
fn whatever_is_answered_there_is_one_request_and_it_counts() {
    let answers = [
        "",
        "HTTP/1.1 500 no\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 307 elsewhere\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 503 later\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n",
        "nonsense\r\n\r\n",
    ];
    for answer in answers {
        let (url, count) = scripted(answer);
        let provider = HttpProvider::new(HttpOptions::new(url)).unwrap();
        let error = provider.upload("a", 1, body("a")).unwrap_err();
        assert!(error.sent && !error.retryable(), "{answer:?}: {error:?}");
        thread::sleep(Duration::from_millis(50));
        assert_eq!(count.load(Ordering::SeqCst), 1, "{answer:?}");
    }
}

#[test]
fn secrets_are_not_shown() {
    let (url, _) = scripted("HTTP/1.1 401 no\r\ncontent-length: 0\r\n\r\n");
    let mut options = HttpOptions::new(url);
    options.headers.push(("authorization".to_owned(), "Bearer hidden".to_owned()));
    let provider = HttpProvider::new(options).unwrap();
    let error = provider.upload("a", 1, body("a")).unwrap_err();
    assert_eq!(error.kind, ProviderErrorKind::Denied);
    let said = format!("{error} {error:?} {provider:?} {}", provider.describe());
    for secret in ["s3cret", "pass", "hidden"] {
        assert!(!said.contains(secret), "{said}");
    }
}

#[test]
fn what_can_not_be_an_address_or_a_header_is_refused_at_once() {
    assert!(HttpProvider::new(HttpOptions::new("ftp://a/{name}")).is_err());
    let mut options = HttpOptions::new("http://a/{name}");
    options.headers.push(("bad header".to_owned(), "x".to_owned()));
    assert!(HttpProvider::new(options).is_err());
}

#[test]
fn lists_of_three_shapes_are_understood() {
    for text in [r#"{"files":[{"name":"a","size":1}]}"#, r#"[{"name":"a","size":1}]"#, r#"["a"]"#] {
        assert_eq!(understand(text.as_bytes()).unwrap()[0].name, "a");
    }
    assert!(understand(b"<html>").is_err());
}
