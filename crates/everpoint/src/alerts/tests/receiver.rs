//! A web server for tests.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;

/// A web server that keeps what it is sent, and answers with the statuses that it is told, then with 200.
pub(super) struct Receiver {
    pub(super) url: String,
    pub(super) got: Arc<Mutex<Vec<Request>>>,
}

/// Head and body.
pub(super) type Request = (String, Vec<u8>);

impl Receiver {
    pub(super) fn start(refusals: &[u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/secret-part", listener.local_addr().unwrap());
        let got = Arc::new(Mutex::new(Vec::new()));
        let (kept, mut refusals) = (Arc::clone(&got), refusals.to_vec());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let status = if refusals.is_empty() { 200 } else { refusals.remove(0) };
                let request = read_request(stream, status);
                if status == 200 {
                    kept.lock().unwrap().extend(request);
                }
            }
        });
        Self { url, got }
    }

    pub(super) fn got(&self) -> Vec<Value> {
        let got = self.got.lock().unwrap();
        got.iter().map(|(_, body)| serde_json::from_slice(body).unwrap()).collect()
    }
}

fn read_request(stream: TcpStream, status: u16) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let answer = format!("HTTP/1.1 {status} So\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    reader.into_inner().write_all(answer.as_bytes()).ok()?;
    Some((head, body))
}
