//! The trait of an engine.

use std::path::Path;

use everpoint_core::{Carry, HistoryEntry, LogOffset, RecordSpan};

use crate::{
    BackupEnd, BackupOptions, CaptureFrom, CaptureOptions, CheckLine, EngineError, ImageSink, LogDecoder,
    LogSink, NextSteps, RecoveryEvent, RecoveryReached, RecoverySettings, StartOptions,
};

/// Who a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerIdentity {
    /// System identifier: the same for all copies of one cluster.
    pub system: u64,
    /// Version as a number (PostgreSQL: 150018).
    pub version: u32,
    /// Version in words.
    pub version_text: String,
    /// Current timeline.
    pub timeline: u32,
    /// Size of a log segment in bytes.
    pub segment_size: u64,
    /// Current end of the log.
    pub position: LogOffset,
    /// It is a standby.
    pub in_recovery: bool,
}

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

/// Log in the directory of a stopped server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalLog {
    /// System identifier that its segments name.
    pub system: u64,
    /// Start of the oldest segment of the unbroken run that ends at `to`.
    pub from: LogOffset,
    /// End of the last whole record.
    pub to: LogOffset,
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

    /// Gives up the slot of this name, if it exists.
    ///
    /// # Errors
    /// If it exists and can't be dropped.
    fn drop_slot(&self, slot: &str) -> Result<(), EngineError>;

    /// How much log the slot of this name holds back now.
    ///
    /// # Errors
    /// If the server can't be asked.
    fn slot_holds(&self, slot: &str) -> Result<SlotHolds, EngineError>;

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

    /// What log of `timeline` the directory of a stopped server holds in whole records: nothing if it holds none.
    ///
    /// # Errors
    /// If it is there and can't be read.
    fn local_log(
        &self,
        directory: &Path,
        timeline: u32,
        segment_size: u64,
    ) -> Result<Option<LocalLog>, EngineError>;

    /// Makes a restored directory ready to recover: generated configuration, recovery settings, links.
    ///
    /// # Errors
    /// If files can't be written.
    fn prepare_recovery(&self, settings: &RecoverySettings) -> Result<(), EngineError>;

    /// Whether a server of this version could be started here, so that this is known before an image is written.
    ///
    /// # Errors
    /// If its programs are missing.
    fn check_start(&self, programs: Option<&Path>, version: u32) -> Result<(), EngineError> {
        let _ = (programs, version);
        Ok(())
    }

    /// Settings for the command line of a server on a directory, name and value, where its configuration lies outside of
    /// it. So that this is known before an image is written.
    ///
    /// # Errors
    /// If that configuration is not on this machine.
    fn start_settings(&self, settings: &RecoverySettings) -> Result<Vec<(String, String)>, EngineError> {
        let _ = settings;
        Ok(Vec::new())
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
