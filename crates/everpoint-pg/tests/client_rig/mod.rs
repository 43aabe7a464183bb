//! Sinks that keep what they are given, for the tests of the client.
//!
//! Fault model: none of their own; they refuse what a real sink must refuse (a hole, a timeline that ends before its data).
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use everpoint_core::{LogOffset, Micros};
use everpoint_engine::{
    BackupBegin, CaptureFrom, CaptureOptions, EngineError, FileKind, FileMeta, ImageSink, ImageWorker,
    LogSink, Part, StopFlag,
};
use everpoint_pg::client::Config;
use everpoint_pg::lsn::SegmentName;
use everpoint_testkit::PgCluster;

/// All supported versions.
pub(crate) const VERSIONS: [u32; 6] = [13, 14, 15, 16, 17, 18];

pub(crate) fn config(cluster: &PgCluster) -> Config {
    Config::parse(&cluster.url()).unwrap()
}

/// Log of one timeline, from `from` on without a hole.
#[derive(Debug, Default, Clone)]
pub(crate) struct Log {
    pub(crate) from: u64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) history: Vec<u8>,
    pub(crate) end: Option<u64>,
}

impl Log {
    pub(crate) fn end(&self) -> u64 {
        self.from + self.bytes.len() as u64
    }
}

#[derive(Debug, Default, Clone)]
pub(crate) struct Kept {
    pub(crate) logs: BTreeMap<u32, Log>,
    pub(crate) gaps: Vec<(u32, u64, u64)>,
    pub(crate) covered: Vec<(u64, i64)>,
    pub(crate) now: Option<(u32, u64)>,
}

/// Keeps everything in memory; fails on a hole.
#[derive(Debug, Default, Clone)]
pub(crate) struct MemoryLog(pub(crate) Arc<Mutex<Kept>>);

impl MemoryLog {
    pub(crate) fn kept(&self) -> Kept {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn from(&self) -> CaptureFrom {
        CaptureFrom { at: self.kept().now.map(|(timeline, at)| (timeline, LogOffset(at))), anew: false }
    }

    /// Compares each kept segment with the server's file of it, where the server still has it. Returns how many bytes were
    /// compared.
    pub(crate) fn compare(&self, cluster: &PgCluster, segment_size: u64) -> u64 {
        let mut compared = 0;
        for (timeline, log) in &self.kept().logs {
            let mut at = log.from;
            while at < log.end() {
                let name = SegmentName::containing(*timeline, LogOffset(at), segment_size).to_string();
                let next = (at / segment_size + 1) * segment_size;
                let to = next.min(log.end());
                if let Ok(file) = File::open(cluster.data_dir().join("pg_wal").join(&name)) {
                    let mut expected = vec![0; (to - at) as usize];
                    file.read_exact_at(&mut expected, at % segment_size).unwrap();
                    let kept = &log.bytes[(at - log.from) as usize..(to - log.from) as usize];
                    assert!(kept == expected, "{name} differs");
                    compared += to - at;
                }
                at = to;
            }
        }
        compared
    }
}

fn refuse(message: String) -> EngineError {
    EngineError::new("test.sink", "keep", "log", message)
}

impl LogSink for MemoryLog {
    fn stands(&mut self, timeline: u32, history: &[u8]) -> Result<Option<LogOffset>, EngineError> {
        let kept = self.0.lock().unwrap();
        let held = kept.logs.get(&timeline).filter(|log| log.history == history);
        Ok(held.map(|log| LogOffset(log.end())))
    }

    fn timeline(&mut self, timeline: u32, history: &[u8], from: LogOffset) -> Result<(), EngineError> {
        let mut kept = self.0.lock().unwrap();
        let log = kept.logs.entry(timeline).or_insert_with(|| Log { from: from.0, ..Log::default() });
        log.history = history.to_vec();
        if log.end() < from.0 {
            // Only after a gap; what was before has been compared by then.
            *log = Log { from: from.0, history: history.to_vec(), ..Log::default() };
        }
        kept.now = Some((timeline, from.0));
        Ok(())
    }

    fn write(&mut self, from: LogOffset, bytes: &[u8]) -> Result<(), EngineError> {
        let mut kept = self.0.lock().unwrap();
        let (timeline, _) = kept.now.unwrap();
        let log = kept.logs.get_mut(&timeline).unwrap();
        let known =
            log.end().checked_sub(from.0).ok_or_else(|| refuse(format!("hole before {:X}", from.0)))?;
        let fresh = bytes.get(known as usize..).unwrap_or_default();
        log.bytes.extend_from_slice(fresh);
        kept.now = Some((timeline, from.0 + bytes.len() as u64));
        Ok(())
    }

    fn covered(&mut self, to: LogOffset, until: Micros) -> Result<(), EngineError> {
        self.0.lock().unwrap().covered.push((to.0, until.0));
        Ok(())
    }

    fn tick(&mut self) -> Result<LogOffset, EngineError> {
        Ok(LogOffset(self.0.lock().unwrap().now.map_or(0, |(_, at)| at)))
    }

    fn timeline_end(&mut self, at: LogOffset) -> Result<(), EngineError> {
        let mut kept = self.0.lock().unwrap();
        let (timeline, held) = kept.now.unwrap();
        if held < at.0 {
            return Err(refuse(format!("timeline ends at {:X}, but we hold {held:X}", at.0)));
        }
        kept.logs.get_mut(&timeline).unwrap().end = Some(at.0);
        Ok(())
    }

    fn gap(&mut self, timeline: u32, from: LogOffset, to: LogOffset, _: &str) -> Result<(), EngineError> {
        self.0.lock().unwrap().gaps.push((timeline, from.0, to.0));
        Ok(())
    }
}

pub(crate) fn options(slot: &str, until: Option<u64>) -> CaptureOptions {
    CaptureOptions {
        slot: Some(slot.to_owned()),
        lasting: None,
        create_slot: true,
        temporary: false,
        until: until.map(LogOffset),
        stop: StopFlag::default(),
    }
}

/// Writes an image into a directory.
#[derive(Debug)]
pub(crate) struct DirectoryImage {
    pub(crate) root: PathBuf,
    pub(crate) begin: Mutex<Option<BackupBegin>>,
    pub(crate) damaged: Mutex<Vec<(String, u32)>>,
    pub(crate) parts: Mutex<BTreeMap<String, (u64, Option<u64>)>>,
}

impl DirectoryImage {
    pub(crate) fn new(root: &Path) -> Self {
        fs::create_dir_all(root).unwrap();
        fs::set_permissions(root, Permissions::from_mode(0o700)).unwrap();
        Self {
            root: root.to_owned(),
            begin: Mutex::default(),
            damaged: Mutex::default(),
            parts: Mutex::default(),
        }
    }

    /// Every file has come whole: its parts together are as long as its last part says.
    pub(crate) fn assert_whole(&self) {
        for (path, (bytes, size)) in self.parts.lock().unwrap().iter() {
            assert_eq!(Some(*bytes), *size, "{path}");
        }
    }
}

impl ImageSink for DirectoryImage {
    fn begin(&self, begin: &BackupBegin) -> Result<(), EngineError> {
        *self.begin.lock().unwrap() = Some(begin.clone());
        Ok(())
    }

    fn worker(&self) -> Result<Box<dyn ImageWorker + '_>, EngineError> {
        Ok(Box::new(DirectoryWorker(self)))
    }
}

struct DirectoryWorker<'a>(&'a DirectoryImage);

impl ImageWorker for DirectoryWorker<'_> {
    fn part(&mut self, file: &FileMeta, part: Part<'_>) -> Result<(), EngineError> {
        let path = self.0.root.join(&file.path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if file.kind == FileKind::Directory {
            fs::create_dir_all(&path).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(file.mode)).unwrap();
            return Ok(());
        }
        let output = File::options().create(true).write(true).truncate(false).open(&path).unwrap();
        output.write_all_at(part.data, part.offset).unwrap();
        output.set_permissions(Permissions::from_mode(file.mode)).unwrap();
        let mut parts = self.0.parts.lock().unwrap();
        let known = parts.entry(file.path.clone()).or_default();
        known.0 += part.data.len() as u64;
        if part.last {
            known.1 = Some(part.offset + part.data.len() as u64);
        }
        let damaged = part.damaged_pages.iter().map(|page| (file.path.clone(), *page));
        self.0.damaged.lock().unwrap().extend(damaged);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), EngineError> {
        Ok(())
    }
}

/// Writes the kept log of a timeline as segment files, padded with zeros.
pub(crate) fn write_segments(log: &Log, timeline: u32, segment_size: u64, directory: &Path) {
    assert_eq!(log.from % segment_size, 0);
    for (number, bytes) in log.bytes.chunks(segment_size as usize).enumerate() {
        let at = LogOffset(log.from + number as u64 * segment_size);
        let name = SegmentName::containing(timeline, at, segment_size).to_string();
        let mut file = File::create(directory.join(name)).unwrap();
        file.write_all(bytes).unwrap();
        file.set_len(segment_size).unwrap();
        file.set_permissions(Permissions::from_mode(0o600)).unwrap();
    }
}
