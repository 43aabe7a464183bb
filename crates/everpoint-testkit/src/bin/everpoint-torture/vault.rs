//! The service that takes few calls, in a process of its own, and what it counts.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use everpoint_testkit::{Background, Everpoint};
use serde_json::Value;

/// The service. It refuses nothing: that the budget holds is for the program to see to, and for us to count.
#[derive(Debug)]
pub(crate) struct Vault {
    process: Background,
    address: String,
    directory: PathBuf,
}

impl Vault {
    /// Starts it on what it kept and counted before.
    pub(crate) fn start(everpoint: &Everpoint, more: &[&str]) -> Result<Self> {
        let directory = everpoint.home().path().join("vault");
        let place = directory.to_str().context("a path is not UTF-8")?;
        let listen = ["mock-offsite", "--listen", "127.0.0.1:0", "--rolling", "--calls", "100000"];
        let mut process = everpoint.spawn(&[&listen[..], &["--dir", place], more].concat())?;
        let since = Instant::now();
        loop {
            let said = process.said();
            let rest = said.split("listening on http://").nth(1);
            if let Some((address, _)) = rest.and_then(|rest| rest.split_once(';')) {
                return Ok(Self { process, address: address.to_owned(), directory });
            }
            ensure!(process.runs()? && since.elapsed() < Duration::from_secs(30), "no service: {said}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What a configuration says of it, with so many calls in the period in which all of a trial lies. To raise it by one is
    /// what the next day does.
    pub(crate) fn table(&self, calls: u32) -> String {
        format!(
            "\n[offsite.vault]\ntype = \"http\"\nurl = \"http://{}/upload/{{name}}\"\nperiod = \"24h\"\ncalls = {calls}\n",
            self.address
        )
    }

    /// Uploads that reached it, by its own count.
    pub(crate) fn uploads(&self) -> Result<usize> {
        let mut stream = TcpStream::connect(&self.address).context("the service does not answer")?;
        let request = format!("GET /stats HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address);
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        let stats: Value = serde_json::from_str(body).with_context(|| format!("it counts {body:?}"))?;
        Ok(stats.get("uploads").and_then(Value::as_array).context("no uploads")?.len())
    }

    /// The packages that it keeps, oldest first.
    pub(crate) fn packages(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory).context("cannot list the packages")? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with("everpoint-") {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }

    /// Stops it.
    pub(crate) fn stop(self) -> Result<()> {
        self.process.stop().map(drop)
    }
}
