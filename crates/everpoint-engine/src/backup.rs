//! Backup: files flow from the server into an [`ImageSink`].

use std::path::PathBuf;

use everpoint_core::{LogOffset, Micros};

use crate::{EngineError, StopFlag};

/// Files are handed over in parts of this many bytes (the last part of a file may be shorter).
pub const PART_BYTES: usize = 1 << 20;

/// What kind of file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// Pages of a relation, compared and restored page by page.
    Pages,
    /// Any other file of the data directory.
    Plain,
    /// A directory.
    Directory,
    /// Configuration from outside the data directory: kept, restored only on request.
    External,
}

/// A file as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileMeta {
    /// Path relative to the data directory, `/`-separated. Files of tablespaces stand under `pg_tblspc/<oid>/`. For
    /// `External`: the absolute path without the leading slash.
    pub path: String,
    /// Its kind.
    pub kind: FileKind,
    /// Permission bits.
    pub mode: u32,
    /// Last modification.
    pub modified: Micros,
    /// Size when it was listed; it may turn out to be different.
    pub size_hint: u64,
}

/// A part of a file.
#[derive(Debug)]
pub struct Part<'a> {
    /// Where it begins in the file: a multiple of [`PART_BYTES`].
    pub offset: u64,
    /// Its bytes: [`PART_BYTES`], or fewer in the last part of the file.
    pub data: &'a [u8],
    /// It is the last part: the file ends after it. A file of 0 bytes has one empty last part.
    pub last: bool,
    /// Numbers of the pages (within the file) that are damaged: their checksum was wrong on every reading.
    pub damaged_pages: &'a [u32],
}

/// Receives an image. Its workers may be used from several threads at once, one thread a worker.
pub trait ImageSink: Sync {
    /// Called once before any part: where the backup begins.
    ///
    /// # Errors
    /// If the sink can't begin.
    fn begin(&self, begin: &BackupBegin) -> Result<(), EngineError>;

    /// A handle for one thread.
    ///
    /// # Errors
    /// If the sink can't take more.
    fn worker(&self) -> Result<Box<dyn ImageWorker + '_>, EngineError>;

    /// Hears what the operator should know of this image: it belongs to the backup's report and record. A sink that has no
    /// reader may drop it.
    fn warn(&self, _text: &str) {}
}

/// One thread's way into an image.
pub trait ImageWorker: Send {
    /// Takes one part of a file. Parts of one file may arrive in any order and from different workers. Directories get
    /// one empty last part.
    ///
    /// # Errors
    /// If it can't be stored; the backup has failed then.
    fn part(&mut self, file: &FileMeta, part: Part<'_>) -> Result<(), EngineError>;

    /// Stores what is still held.
    ///
    /// # Errors
    /// If it can't be stored; the backup has failed then.
    fn finish(self: Box<Self>) -> Result<(), EngineError>;
}

/// A tablespace outside the data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablespaceLink {
    /// Its oid.
    pub oid: u32,
    /// Where it lies on the server; `None` for one inside the data directory (in-place).
    pub path: Option<String>,
}

/// How to back up.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// Label for the server's own records.
    pub label: String,
    /// Threads.
    pub workers: usize,
    /// Bytes per second to read at most, all threads together; `None`: unlimited.
    pub rate_limit: Option<u64>,
    /// Ask for an immediate checkpoint instead of waiting for a spread one.
    pub fast_checkpoint: bool,
    /// Files and directories that are left out although they lie in the server's directories: absolute paths.
    pub leave_out: Vec<PathBuf>,
    /// Asks to stop.
    pub stop: StopFlag,
}

/// Known when a backup begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupBegin {
    /// Start position: replay begins here.
    pub start: LogOffset,
    /// Timeline of it.
    pub timeline: u32,
    /// When, as the server's clock says.
    pub started_at: Micros,
    /// Tablespaces.
    pub tablespaces: Vec<TablespaceLink>,
    /// About how many bytes will come; for progress only.
    pub expected_bytes: u64,
    /// Size of a page in bytes.
    pub page_size: u32,
    /// How the files are read: `files` or `replication`.
    pub method: &'static str,
}

/// Known when a backup has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupEnd {
    /// Stop position: consistent once replay has reached it.
    pub stop: LogOffset,
    /// Timeline of it: a younger one than that of the start, if a standby followed its upstream to it.
    pub timeline: u32,
    /// When, as the server's clock says.
    pub stopped_at: Micros,
    /// Facts to record with the backup, name and value: `checksum_version`, `wal_level`, `wal_segment_size`,
    /// `from_standby`, collation and extension versions, and the settings a replaying server must match.
    pub facts: Vec<(String, String)>,
}
