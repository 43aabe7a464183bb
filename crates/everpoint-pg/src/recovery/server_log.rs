//! Reads what a recovering server says in its log.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use everpoint_core::{LogOffset, Micros};

use crate::lsn::{Lsn, SegmentName};

/// Lines kept for an error message.
const KEPT_LINES: usize = 25;

/// Refusals to our own attempts to connect: no news.
const NOISE: [&str; 3] = [
    "the database system is starting up",
    "the database system is not yet accepting connections",
    "Consistent recovery state has not been yet reached",
];

/// Where the server says that it stops replaying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopped {
    /// The record that begins here is not replayed.
    Before(LogOffset),
    /// The record that begins here was the last one.
    After(LogOffset),
    /// The backup is consistent.
    Consistent,
}

/// The log of one run.
#[derive(Debug)]
pub(super) struct ServerLog {
    path: PathBuf,
    offset: u64,
    partial: String,
    tail: VecDeque<String>,
    /// Where replay stopped.
    pub(super) stopped: Option<Stopped>,
    /// Replay waits to be told to go on.
    pub(super) paused: bool,
    /// Recovery is over and connections may write.
    pub(super) ready: bool,
    complete: bool,
    /// The last segment that was fetched.
    pub(super) fetched: Option<SegmentName>,
    /// Time of the last commit or abort replayed.
    pub(super) last_commit: Option<Micros>,
}

impl ServerLog {
    /// The log from its current end on.
    pub(super) fn follow(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            offset: path.metadata().map_or(0, |metadata| metadata.len()),
            partial: String::new(),
            tail: VecDeque::new(),
            stopped: None,
            paused: false,
            ready: false,
            complete: false,
            fetched: None,
            last_commit: None,
        }
    }

    /// Reads what has come since.
    pub(super) fn read(&mut self) -> io::Result<()> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = Vec::new();
        self.offset += file.read_to_end(&mut bytes)? as u64;
        self.partial.push_str(&String::from_utf8_lossy(&bytes));
        while let Some((line, rest)) = self.partial.split_once('\n') {
            let (line, rest) = (line.to_owned(), rest.to_owned());
            self.partial = rest;
            self.line(line);
        }
        Ok(())
    }

    fn line(&mut self, line: String) {
        if let Some(lsn) = quoted(&line, "recovery stopping before WAL location (LSN) ") {
            self.stopped = lsn.parse::<Lsn>().ok().map(|lsn| Stopped::Before(lsn.into()));
        } else if let Some(lsn) = quoted(&line, "recovery stopping after WAL location (LSN) ") {
            self.stopped = lsn.parse::<Lsn>().ok().map(|lsn| Stopped::After(lsn.into()));
        } else if line.contains("recovery stopping after reaching consistency") {
            self.stopped = Some(Stopped::Consistent);
        } else if line.contains("pausing at the end of recovery") {
            self.paused = true;
        } else if line.contains("archive recovery complete") {
            self.complete = true;
        } else if line.contains("database system is ready to accept connections") {
            self.ready = self.complete;
        } else if let Some(name) = quoted(&line, "restored log file ") {
            self.fetched = SegmentName::parse(name).or(self.fetched);
        } else if let Some((_, time)) = line.split_once("last completed transaction was at log time ") {
            let time = time.trim().parse::<jiff::Timestamp>().ok();
            self.last_commit = time.map(|time| Micros(time.as_microsecond()));
        }
        if !NOISE.iter().any(|noise| line.contains(noise)) {
            if self.tail.len() == KEPT_LINES {
                self.tail.pop_front();
            }
            self.tail.push_back(line);
        }
    }

    /// The last lines, without the refusals to our own attempts to connect.
    pub(super) fn tail(&self) -> String {
        let lines: Vec<&str> = self.tail.iter().map(String::as_str).collect();
        lines.join("\n")
    }

    /// Whether one of the last lines says this.
    pub(super) fn says(&self, text: &str) -> bool {
        self.tail.iter().any(|line| line.contains(text))
    }
}

/// What stands in double quotes after `before`.
fn quoted<'a>(line: &'a str, before: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(before)?;
    rest.strip_prefix('"')?.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood_however_they_arrive() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("log");
        std::fs::write(&path, "old\nx [1] LOG:  recovery stopping after reaching consistency\n").unwrap();
        let mut log = ServerLog::follow(&path);
        let text = "a [1] LOG:  restored log file \"0000000100000000000000A3\" from archive\n\
            a LOG:  recovery stopping before WAL location (LSN) \"0/3000148\"\n\
            a LOG:  pausing at the end of recovery\na FATAL:  the database system is starting up\n\
            a LOG:  last completed transaction was at log time 2026-11-21 02:36:17.5+00\n\
            a LOG:  database system is ready to accept connections\n";
        for piece in text.as_bytes().chunks(7) {
            use std::io::Write as _;
            let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
            file.write_all(piece).unwrap();
            log.read().unwrap();
        }
        assert_eq!(log.stopped, Some(Stopped::Before(LogOffset(0x300_0148))));
        assert_eq!(log.fetched.map(|name| name.number), Some(0xA3));
        assert_eq!(log.last_commit, Some(Micros(1_795_228_577_500_000)));
        assert!(log.paused && !log.ready && !log.says("starting up") && !log.says("old"));
    }
}
