//! A receiver of alerts.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use serde_json::Value;

/// A web server of the loopback interface that keeps the JSON objects that it is sent. It lives as long as the process.
#[derive(Debug)]
pub struct Webhook {
    url: String,
    got: Arc<Mutex<Vec<Value>>>,
}

impl Webhook {
    /// Starts it on a port that is free.
    ///
    /// # Errors
    /// If no port is free.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen")?;
        let url = format!("http://{}/alerts", listener.local_addr().context("no address")?);
        let got = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&got);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A request that breaks off is sent again.
                if let Ok(value) = receive(stream) {
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push(value);
                }
            }
        });
        Ok(Self { url, got })
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What it got so far, oldest first.
    #[must_use]
    pub fn got(&self) -> Vec<Value> {
        self.got.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many messages of this kind and state (`firing`, `resolved`, `happened`, ...) it got.
    #[must_use]
    pub fn count(&self, kind: &str, state: &str) -> usize {
        let is = |value: &&Value| {
            let word = |name: &str| value.get(name).and_then(Value::as_str);
            word("kind") == Some(kind) && word("state") == Some(state)
        };
        self.got().iter().filter(is).count()
    }
}

fn receive(stream: TcpStream) -> Result<Value> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let value = serde_json::from_slice(&body)?;
    reader.into_inner().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
    Ok(value)
}
