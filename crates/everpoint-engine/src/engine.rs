//! The trait of an engine.

use std::path::{Path, PathBuf};

use everpoint_core::{Carry, HistoryEntry, LifeSigns, LogKeeping, LogOffset, RecordSpan, SaysCopy, Span};

pub use crate::identity::ServerIdentity;
use crate::{
    BackupEnd, BackupOptions, CaptureFrom, CaptureOptions, CheckLine, ConfigurationFile, DirectoryProof,
    EngineError, ImageSink, LocalLog, LocalPlace, LocalTimeline, LogDecoder, LogSink, NextSteps,
    RecoveryEvent, RecoveryReached, RecoverySettings, StartOptions, Unstartable,
};

/// What a slot keeps its server from recycling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotHolds {
    /// There is no slot, or it keeps nothing.
    Nothing,
    /// So many bytes of log.
    Bytes(u64),
    /// The server does not tell.
    Unknown,
}

/// What the beginning of a log segment says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogHead {
    /// System identifier of the cluster that wrote it.
    pub system: u64,
    /// Version of the server that wrote it, as in [`ServerIdentity::version`], as far as its format tells (PostgreSQL:
    /// 150000).
    pub version: u32,
    /// Timeline of its first page. A segment in which a timeline forks begins with pages of the older one.
    pub timeline: u32,
    /// Position of its first byte.
    pub start: LogOffset,
    /// Bytes of a segment.
    pub segment_size: u64,
    /// See [`everpoint_core::Digest::log_format`].
    pub log_format: u32,
}

/// Gives the raw bytes of the whole segment that begins at a position, if there is one.
pub type Neighbour<'a> = &'a mut dyn FnMut(LogOffset) -> Result<Option<Vec<u8>>, EngineError>;

/// A protected cluster, as seen by the use-cases.
pub trait Engine: Send + Sync {
    /// `postgresql` or `mongodb`.
    fn kind(&self) -> &'static str;

    /// Where it is, without secrets.
    fn describe(&self) -> String;

    /// Asks the server who it is.
    ///
    /// # Errors
    /// If it can't be reached or refuses.
    fn identify(&self) -> Result<ServerIdentity, EngineError>;

    /// Whether the server's data directory holds a file of this plain name; `None` if that can't be seen from here.
    fn has_file(&self, name: &str) -> Option<bool> {
        let _ = name;
        None
    }

    /// Where the cluster in a directory stands.
    ///
    /// # Errors
    /// Class `Usage` if it is no data directory; if its files can't be read.
    fn local_place(&self, directory: &Path) -> Result<LocalPlace, EngineError> {
        let object = directory.display().to_string();
        Err(EngineError::new("engine.directory", "look at", object, "this engine keeps no directories"))
    }

    /// Whether the server says that it is a restored copy: what a restore has put into its configuration, for everybody who
    /// asks.
    fn says_copy(&self) -> SaysCopy {
        SaysCopy::No
    }

    /// A copy becomes production: takes what it says of itself out of its configuration. Returns whether a server that runs
    /// there has been told to read that again.
    ///
    /// # Errors
    /// If a file can't be read or written.
    fn forget_copy(&self, directory: &Path) -> Result<bool, EngineError> {
        let _ = directory;
        Ok(true)
    }

    /// Whether the server runs in this directory; `None` if no server answers.
    fn runs_in(&self, directory: &Path) -> Option<bool> {
        let _ = directory;
        None
    }

    /// Looks at connection, privileges, settings, slot, archive, versions. Never fails: what is wrong is a line.
    fn check(&self, slot: Option<&str>) -> Vec<CheckLine>;

    /// Bytes of all its databases; `None` if the server can't be asked, or would not say.
    fn size(&self) -> Option<u64> {
        None
    }

    /// Receives the log until stopped, the `until` position is durable, or an error. Reconnects are the caller's
    /// business: it calls again from where the sink stands.
    ///
    /// # Errors
    /// `retryable` tells whether calling again makes sense.
    fn capture(
        &self,
        from: &CaptureFrom,
        options: &CaptureOptions,
        sink: &mut dyn LogSink,
    ) -> Result<(), EngineError>;

    /// The log from `span.from` to `span.to` of a timeline, as the server has it; `None`: it can't be had.
    fn read_log(&self, timeline: u32, span: Span) -> Option<Vec<u8>> {
        let _ = (timeline, span);
        None
    }

    /// Gives up the slot of this name, if it exists.
    ///
    /// # Errors
    /// If it exists and can't be dropped.
    fn drop_slot(&self, slot: &str) -> Result<(), EngineError>;

    /// Makes the slot of this name if it is missing, so that the server keeps its log from now on. Returns whether it was.
    ///
    /// # Errors
    /// If it can't be made.
    fn make_slot(&self, slot: &str) -> Result<bool, EngineError> {
        let _ = slot;
        Ok(false)
    }

    /// How much log the slot of this name holds back now.
    ///
    /// # Errors
    /// If the server can't be asked.
    fn slot_holds(&self, slot: &str) -> Result<SlotHolds, EngineError>;

    /// What the server does about its log by itself; `None` if it can't be asked.
    fn log_keeping(&self) -> Option<LogKeeping> {
        None
    }

    /// Takes a full image into the sink.
    ///
    /// # Errors
    /// If it failed; nothing on the server is left behind.
    fn backup(&self, options: &BackupOptions, sink: &dyn ImageSink) -> Result<BackupEnd, EngineError>;

    /// What there is to say of an image, by the facts that were recorded with it: what it lacks, and what mends that.
    fn image_warnings(&self, facts: &[(String, String)]) -> Vec<String> {
        let _ = facts;
        Vec::new()
    }

    /// Writes a named restore point; returns its position.
    ///
    /// # Errors
    /// If the server refuses.
    fn restore_point(&self, name: &str) -> Result<LogOffset, EngineError>;

    /// A decoder for log bytes that begin at `carry.position`.
    fn decoder(&self, segment_size: u64, carry: Carry) -> Box<dyn LogDecoder>;

    /// Reads the beginning of a segment; a page of it (8 KiB) is enough.
    ///
    /// # Errors
    /// If it is no segment of a known version.
    fn log_head(&self, bytes: &[u8]) -> Result<LogHead, EngineError>;

    /// Changes a whole segment, which begins at `start`, so that a copy that replays it can't touch directories outside
    /// of its own. `neighbour` is asked for the segment before or after where a record crosses from one to the other.
    /// Returns whether anything was changed.
    ///
    /// # Errors
    /// If that can't be done: the segment must not be replayed by a copy then.
    fn rewrite_for_copy(
        &self,
        segment: &mut [u8],
        start: LogOffset,
        segment_size: u64,
        neighbour: Neighbour<'_>,
    ) -> Result<bool, EngineError> {
        let _ = (segment, start, segment_size, neighbour);
        Ok(false)
    }

    /// Reads the history of a timeline as its history file has it.
    ///
    /// # Errors
    /// If the file is not one.
    fn history(&self, bytes: &[u8]) -> Result<Vec<HistoryEntry>, EngineError>;

    /// The last whole record that ends in `bytes` (which begin at `start`) and begins at or before `at`. `before` is the
    /// unfinished record with which the log before `start` ends, if known.
    fn last_record(
        &self,
        bytes: &[u8],
        start: LogOffset,
        segment_size: u64,
        before: Option<Carry>,
        at: LogOffset,
    ) -> Option<RecordSpan>;

    /// The unfinished record at the end of a whole segment that begins at `start`; or of the last pages of one, which
    /// begin there. A carry that knows nothing if no record begins in them.
    fn carry_of(&self, segment: &[u8], start: LogOffset, segment_size: u64) -> Carry;

    /// What log of a timeline the directory of a stopped server holds.
    ///
    /// # Errors
    /// If it is there and can't be read.
    fn local_log(
        &self,
        directory: &Path,
        of: &LocalTimeline,
        segment_size: u64,
    ) -> Result<LocalLog, EngineError>;

    /// The data directory of the server, if the configuration names one that is on this machine.
    fn data_directory(&self) -> Option<PathBuf> {
        None
    }

    /// Whose data directory this is, by its files alone.
    fn directory_proof(&self, directory: &Path) -> DirectoryProof {
        let _ = directory;
        DirectoryProof::Nothing
    }

    /// Name of the directory that a server keeps in each place of a tablespace (PostgreSQL: `PG_15_202209061`), of a server
    /// of this version; `None` if it can't be told.
    fn tablespace_directory(&self, version: u32) -> Option<String> {
        let _ = version;
        None
    }

    /// Whether a server of this version takes a directory inside its own as a tablespace, instead of a link.
    fn takes_tablespaces_inside(&self, version: u32) -> bool {
        let _ = version;
        true
    }

    /// Whether a file or directory of this name in the directory of the log is the server's, or ours.
    fn is_log_name(&self, name: &str) -> bool {
        let _ = name;
        true
    }

    /// Directories of this machine that the server writes to, its data directory first: as far as they are known, and
    /// empty where the server is on another machine. Never fails.
    fn directories(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// What tells of a server that runs on a directory, which need not exist; see [`everpoint_core::life`].
    ///
    /// # Errors
    /// If the directory can't be looked at.
    fn life_signs(&self, directory: &Path) -> Result<LifeSigns, EngineError> {
        let _ = directory;
        Ok(LifeSigns::default())
    }

    /// What uses the server's part (of this name) of a tablespace's place, in words; `None`: nothing that is seen.
    fn tablespace_in_use(&self, place: &Path, part: &str) -> Option<String> {
        let _ = (place, part);
        None
    }

    /// Makes a restored directory ready to recover: generated configuration, recovery settings, links.
    ///
    /// # Errors
    /// If files can't be written.
    fn prepare_recovery(&self, settings: &RecoverySettings) -> Result<(), EngineError>;

    /// Links in a data directory that lead out of it and are a matter of configuration, by path relative to it: those that a
    /// restore in place leaves as they are where the backup could not see them.
    fn links_out(&self, directory: &Path) -> Vec<PathBuf> {
        let _ = directory;
        Vec::new()
    }

    /// The files of configuration in a data directory, keys and certificates among them: those that a restore in place leaves as
    /// they are. `facts`: what was recorded with the backup.
    fn configuration(&self, directory: &Path, facts: &[(String, String)]) -> Vec<ConfigurationFile> {
        let _ = (directory, facts);
        Vec::new()
    }

    /// With what programs a server of this version is to be started, known before an image is written: those that are named,
    /// or with which the server of the directory ran, or (where that says it no more) an earlier attempt was begun.
    ///
    /// # Errors
    /// If there are none.
    fn programs(
        &self,
        _: Option<&Path>,
        _: (&Path, Option<&Path>),
        _: u32,
    ) -> Result<Option<PathBuf>, EngineError> {
        Ok(None)
    }

    /// What of this machine may make the restored data behave otherwise than where it was backed up, in words (PostgreSQL:
    /// sort orders). `facts`: what was recorded with the backup.
    fn differences(&self, facts: &[(String, String)]) -> Vec<String> {
        let _ = facts;
        Vec::new()
    }

    /// The libraries that a server here must load to replay a log that holds records of extensions (kind and start of the
    /// first one each). `facts`: what was recorded with the backup.
    ///
    /// # Errors
    /// Class `Shortfall` if no server here could replay it.
    fn replay_libraries(
        &self,
        programs: Option<&Path>,
        version: u32,
        records: &[(u32, LogOffset)],
        facts: &[(String, String)],
    ) -> Result<Vec<String>, EngineError> {
        let _ = (programs, version, records, facts);
        Ok(Vec::new())
    }

    /// Settings for the command line of a server on a directory, name and value, where its configuration lies outside of
    /// it.
    fn start_settings(&self, settings: &RecoverySettings) -> Vec<(String, String)> {
        let _ = settings;
        Vec::new()
    }

    /// Why no server would start on the directory once it is restored, as far as that is known before an image is written:
    /// `None` where nothing speaks against it. `programs`: those of the server, if they are known.
    fn unstartable(&self, settings: &RecoverySettings, programs: Option<&Path>) -> Option<Unstartable> {
        let _ = (settings, programs);
        None
    }

    /// The command that stops the server that runs on a directory, where it is known how it was started.
    fn stop_command(&self, directory: &Path) -> Option<String> {
        let _ = directory;
        None
    }

    /// What the operator has to type after a restore. `port`: where the server runs, if it was started.
    fn next_steps(&self, settings: &RecoverySettings, port: Option<u16>) -> NextSteps {
        let _ = (settings, port);
        NextSteps::default()
    }

    /// Starts a server on a prepared directory, follows its replay, verifies the position reached, promotes it, and
    /// returns when it accepts connections.
    ///
    /// # Errors
    /// If it does not start, or stops short of the target.
    fn start(
        &self,
        options: &StartOptions,
        events: &mut dyn FnMut(RecoveryEvent),
    ) -> Result<RecoveryReached, EngineError>;
}
