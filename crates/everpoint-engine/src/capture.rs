//! Capture: the log flows from the server into a [`LogSink`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use everpoint_core::{Carry, LogEvent, LogOffset, Micros, RecordSpan, Span, Verdict};

use crate::EngineError;

/// Asks long work to stop soon. Clones share one flag.
#[derive(Debug, Clone, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// Asks to stop.
    pub fn stop(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether to stop.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Where to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptureFrom {
    /// Timeline on which `position` lies; `None`: the server's own, from where its slot or its current segment begins.
    pub at: Option<(u32, LogOffset)>,
    /// Begin there whatever the sink holds of it.
    pub anew: bool,
}

/// How to capture.
#[derive(Debug, Clone)]
pub struct CaptureOptions {
    /// Name of the replication slot; `None`: without one (only inside a backup, which holds the log by other means).
    pub slot: Option<String>,
    /// Name of the lasting slot of the same sink where `slot` is another, or none: where it stands, the server was told that
    /// everything before is stored.
    pub lasting: Option<String>,
    /// Make the slot if it is missing.
    pub create_slot: bool,
    /// The slot is made for this call only, reserves the log from its start, and goes with the connection.
    pub temporary: bool,
    /// Return when everything up to here is durable in the sink; `None`: go on until stopped.
    pub until: Option<LogOffset>,
    /// Asks to stop.
    pub stop: StopFlag,
}

/// Reads a part of the log of a timeline as the server has it; `None`: it has that no longer.
pub type ReadLog<'a> = dyn FnMut(u32, Span) -> Result<Option<Vec<u8>>, EngineError> + 'a;

/// Receives the log. Positions only grow within a branch; a part may repeat bytes that the sink has already.
pub trait LogSink {
    /// Where the sink stands on the timeline with this history (as for [`LogSink::timeline`]); `None`: it holds nothing of it.
    ///
    /// # Errors
    /// If that can't be looked up.
    fn stands(&mut self, timeline: u32, history: &[u8]) -> Result<Option<LogOffset>, EngineError>;

    /// The log goes on (or begins) on this timeline at `from`, the start of a segment or the position where the sink
    /// stopped. `history` is the content of the timeline's history file, empty for a first timeline.
    ///
    /// # Errors
    /// If the sink can't go on there.
    fn timeline(&mut self, timeline: u32, history: &[u8], from: LogOffset) -> Result<(), EngineError>;

    /// From where on the sink would like to be sent again what it holds of the open timeline, to compare it: a server that
    /// was set back, or a copy, goes on at the same position with other log. `None`: nothing is to be compared.
    fn compares_from(&self) -> Option<LogOffset> {
        None
    }

    /// Asked before [`LogSink::timeline`] begins a timeline that forks off another one: whether the log that the server has
    /// before it is what the sink holds. `read` gives what the server has; `None`: it has that no longer. If it is not, the sink
    /// keeps the two apart, and returns false.
    ///
    /// # Errors
    /// If that can't be read or looked up.
    fn forks(
        &mut self,
        timeline: u32,
        history: &[u8],
        from: LogOffset,
        read: &mut ReadLog<'_>,
    ) -> Result<bool, EngineError> {
        let _ = (timeline, history, from, read);
        Ok(true)
    }

    /// What the sink would have liked to compare before the open position is gone from the server, and nothing else proves that
    /// the server's log goes on from it. Unless what comes proves that by itself, the sink keeps the two apart, and returns
    /// false.
    ///
    /// # Errors
    /// If the sink does not want the log then.
    fn not_compared(&mut self) -> Result<bool, EngineError> {
        Ok(true)
    }

    /// Log bytes that begin at `from`.
    ///
    /// # Errors
    /// If they can't be stored.
    fn write(&mut self, from: LogOffset, bytes: &[u8]) -> Result<(), EngineError>;

    /// The server says that nothing was committed up to `until` (its clock) beyond position `to`.
    ///
    /// # Errors
    /// If it can't be stored.
    fn covered(&mut self, to: LogOffset, until: Micros) -> Result<(), EngineError>;

    /// Called at least every 100 ms, and after each burst of input: stores what is due. Returns the position up to
    /// which everything is durable where the configuration says; only that is acknowledged to the server.
    ///
    /// # Errors
    /// If something due could not be stored.
    fn tick(&mut self) -> Result<LogOffset, EngineError>;

    /// The timeline ended at `at`: nothing follows on it. Stores everything that is left of it.
    ///
    /// # Errors
    /// If it can't be stored.
    fn timeline_end(&mut self, at: LogOffset) -> Result<(), EngineError>;

    /// Log from `from` to `to` is lost: the server no longer has it.
    ///
    /// # Errors
    /// If the gap can't be recorded.
    fn gap(&mut self, timeline: u32, from: LogOffset, to: LogOffset, reason: &str)
    -> Result<(), EngineError>;
}

/// What a decoder found between two cuts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// See [`everpoint_core::Digest::system`].
    pub system: u64,
    /// Timeline that the pages name.
    pub timeline: u32,
    /// See [`everpoint_core::Digest::log_format`].
    pub log_format: u32,
    /// See [`everpoint_core::Digest::verdict`].
    pub verdict: Verdict,
    /// See [`everpoint_core::Digest::first_record`].
    pub first_record: Option<LogOffset>,
    /// See [`everpoint_core::Digest::last_record`].
    pub last_record: Option<RecordSpan>,
    /// See [`everpoint_core::Digest::first_previous`].
    pub first_previous: Option<LogOffset>,
    /// See [`everpoint_core::Digest::head_unknown`].
    pub head_unknown: bool,
    /// See [`everpoint_core::Digest::records`].
    pub records: u64,
    /// See [`everpoint_core::Digest::events`].
    pub events: Vec<LogEvent>,
}

/// Decodes the log of one branch as it flows by.
pub trait LogDecoder: Send {
    /// Takes the bytes that follow those before. Broken content is not an error but a verdict.
    fn feed(&mut self, bytes: &[u8]);

    /// What was found since the last cut in records that end at or before the current position.
    fn cut(&mut self) -> Decoded;

    /// The unfinished record at the current position.
    fn carry(&self) -> Carry;
}
