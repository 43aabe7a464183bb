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
    let url = receipt.url.unwrap();
    assert!(
        url.starts_with("http://127.0.0.1:") && !url.contains("/upload"),
        "a path may be a secret: {url}"
    );
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

/// A server that answers `early` when it has the head of a request and takes nothing more; it holds the connection open.
fn deaf(early: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/in/{{name}}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 64]);
            let _ = stream.write_all(early.as_bytes());
            held.push(stream);
        }
    });
    url
}

#[test]
fn success_before_the_file_was_sent_is_no_arrival() {
    let size = 64 << 20;
    let url = deaf("HTTP/1.1 200 fine\r\ndate: Thu, 29 Jan 2026 03:00:00 GMT\r\ncontent-length: 0\r\n\r\n");
    let provider = HttpProvider::new(HttpOptions::new(url)).unwrap();
    let error = provider.upload("a", size, Box::new(io::repeat(b'x').take(size))).unwrap_err();
    assert!(error.sent && error.provider_date.is_none(), "nobody knows: {error:?}");
    let cause = error.cause.unwrap().to_string();
    assert!(cause.contains("200") && cause.ends_with("of 67108864 bytes"), "{cause}");
}

#[test]
fn a_server_that_stands_still_is_left() {
    let stalling = |early| {
        let mut options = HttpOptions::new(deaf(early));
        options.idle = Duration::from_millis(300);
        HttpProvider::new(options).unwrap()
    };
    let size = 64 << 20;
    let error = stalling("").upload("a", size, Box::new(io::repeat(b'x').take(size))).unwrap_err();
    assert_eq!((error.kind, error.sent), (ProviderErrorKind::Stalled, true), "{error:?}");
    for early in ["", "HTTP/1.1 200 fine\r\ncontent-length: 9\r\n\r\nabc"] {
        let error = stalling(early).download("a", &mut io::sink()).unwrap_err();
        assert_eq!(error.kind, ProviderErrorKind::Stalled, "{early}: {error:?}");
    }
}

#[test]
fn a_server_that_is_slow_and_moves_is_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/{{name}}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let _ = stream.read(&mut [0; 4096]);
        stream.write_all(b"HTTP/1.1 200 fine\r\ncontent-length: 8\r\n\r\n").unwrap();
        for _ in 0..8 {
            thread::sleep(Duration::from_millis(300));
            stream.write_all(b"x").unwrap();
        }
    });
    let mut options = HttpOptions::new(url);
    options.idle = Duration::from_millis(1500);
    let provider = HttpProvider::new(options).unwrap();
    assert_eq!(provider.download("a", &mut io::sink()).unwrap(), 8);
}

#[test]
fn what_a_server_repeats_of_a_request_is_masked() {
    let (url, _) = scripted(
        "HTTP/1.1 403 no\r\ncontent-length: 66\r\n\r\nbad token: authorization: Bearer hiddentoken, pass, s3cret\u{202e}turned!",
    );
    let mut options = HttpOptions::new(&url);
    options.headers.push(("authorization".to_owned(), "Bearer hiddentoken".to_owned()));
    options.list_url = Some(url.replace("{name}", "list"));
    options.health_url = options.list_url.clone();
    let provider = HttpProvider::new(options).unwrap();
    let errors = [
        provider.upload("a", 1, body("a")).unwrap_err(),
        provider.download("a", &mut io::sink()).unwrap_err(),
        provider.list().unwrap_err(),
        provider.health().unwrap_err(),
    ];
    for error in errors {
        let said = format!("{error} {error:?} {}", error.reason());
        assert!(said.contains("bad token") && said.contains("403"), "{said}");
        for secret in ["hiddentoken", " pass", "s3cret", "\u{202e}", "\\u{202e}"] {
            assert!(!said.contains(secret), "{secret} in {said}");
        }
    }
}
