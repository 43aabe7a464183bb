//! The trait of an engine.

use everpoint_core::{Carry, LogOffset};

use crate::{
    BackupEnd, BackupOptions, CaptureFrom, CaptureOptions, CheckLine, EngineError, ImageSink, LogDecoder,
    LogSink, RecoveryEvent, RecoveryReached, RecoverySettings, StartOptions,
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

    /// Takes a full image into the sink.
    ///
    /// # Errors
    /// If it failed; nothing on the server is left behind.
    fn backup(&self, options: &BackupOptions, sink: &dyn ImageSink) -> Result<BackupEnd, EngineError>;

    /// Writes a named restore point; returns its position.
    ///
    /// # Errors
    /// If the server refuses.
    fn restore_point(&self, name: &str) -> Result<LogOffset, EngineError>;

    /// A decoder for log bytes that begin at `carry.position`.
    fn decoder(&self, segment_size: u64, carry: Carry) -> Box<dyn LogDecoder>;

    /// Makes a restored directory ready to recover: generated configuration, recovery settings, links.
    ///
    /// # Errors
    /// If files can't be written.
    fn prepare_recovery(&self, settings: &RecoverySettings) -> Result<(), EngineError>;

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
