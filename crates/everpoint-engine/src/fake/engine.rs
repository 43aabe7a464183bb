//! The scripted engine.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use everpoint_core::{Carry, HistoryEntry, LogOffset, Micros, RecordSpan};

use super::decoder;
use super::{FakeDecoder, FakeLog};
use crate::{
    BackupEnd, BackupOptions, CaptureFrom, CaptureOptions, CheckLine, Engine, EngineError, ImageSink,
    LocalLog, LocalTimeline, LogDecoder, LogHead, LogSink, RecoveryEvent, RecoveryReached, RecoverySettings,
    ServerIdentity, SlotHolds, StartOptions,
};

/// A timeline of the scripted server.
#[derive(Debug, Clone)]
pub struct FakeTimeline {
    /// Its log.
    pub log: FakeLog,
    /// Content of its history file; empty for a first one.
    pub history: Vec<u8>,
    /// Where the next timeline forks from it; `None`: it is the current one.
    pub ends: Option<LogOffset>,
}

/// The script.
#[derive(Debug, Clone)]
pub struct FakeServer {
    /// Its timelines, oldest first.
    pub timelines: Vec<FakeTimeline>,
    /// Log before this is gone.
    pub removed_before: LogOffset,
    /// Bytes that are sent at once.
    pub chunk: usize,
    /// For each connection in turn: after how many bytes it breaks. Connections beyond these last.
    pub breaks: VecDeque<u64>,
    /// What the server's clock says when everything has been sent; moves on by a second each time.
    pub clock: Option<Micros>,
    /// The highest position that a sink has acknowledged.
    pub acknowledged: LogOffset,
}

/// A server that does what its script says. Only capture, decoding and identification are played.
#[derive(Debug)]
pub struct FakeEngine {
    server: Mutex<FakeServer>,
}

impl FakeEngine {
    /// A server with this log on its only timeline.
    #[must_use]
    pub fn new(log: FakeLog) -> Self {
        Self::scripted(FakeServer {
            removed_before: log.start(),
            timelines: vec![FakeTimeline { log, history: Vec::new(), ends: None }],
            chunk: 1 << 17,
            breaks: VecDeque::new(),
            clock: None,
            acknowledged: LogOffset(0),
        })
    }

    /// A server with a script.
    #[must_use]
    pub const fn scripted(server: FakeServer) -> Self {
        Self { server: Mutex::new(server) }
    }

    /// The script, to look at or to change.
    pub fn server(&self) -> MutexGuard<'_, FakeServer> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn not_played(operation: &'static str) -> EngineError {
        EngineError::new("fake.not_played", operation, "the scripted server", "its script has no such scene")
    }
}

/// What happens next on a connection.
enum Next {
    Send(Vec<u8>),
    Break,
    EndOfTimeline(LogOffset, u32),
    Idle(Option<Micros>),
}

impl FakeServer {
    fn timeline(&self, number: u32) -> Option<&FakeTimeline> {
        self.timelines.iter().find(|timeline| timeline.log.timeline() == number)
    }

    fn begin(&self, from: &CaptureFrom) -> Result<(u32, LogOffset), EngineError> {
        let missing = || FakeEngine::not_played("stream from");
        if let Some((number, position)) = from.at {
            let end = self.timeline(number).ok_or_else(missing)?.log.end();
            if position > end {
                let message = "the server is behind what is stored";
                return Err(EngineError::new("pg.diverged", "stream from", position.to_string(), message));
            }
            return Ok((number, position));
        }
        let last = self.timelines.last().ok_or_else(missing)?;
        Ok((last.log.timeline(), last.log.start().max(self.removed_before)))
    }

    fn next(&mut self, timeline: u32, position: LogOffset, sent: u64) -> Option<Next> {
        if self.breaks.front().is_some_and(|after| sent >= *after) {
            self.breaks.pop_front();
            return Some(Next::Break);
        }
        let current = self.timeline(timeline)?;
        let end = current.ends.unwrap_or_else(|| current.log.end());
        if position < end {
            let left = self.breaks.front().map_or(u64::MAX, |after| after - sent);
            let length = (self.chunk as u64).min(left).min(end.since(position));
            return Some(Next::Send(current.log.slice(position, position.plus(length)).to_vec()));
        }
        if let Some(end) = current.ends {
            let number = current.log.timeline();
            let next =
                self.timelines.iter().map(|timeline| timeline.log.timeline()).find(|next| *next > number)?;
            return Some(Next::EndOfTimeline(end, next));
        }
        let now = self.clock;
        self.clock = now.map(|now| Micros(now.0 + 1_000_000));
        Some(Next::Idle(now))
    }
}

impl Engine for FakeEngine {
    fn kind(&self) -> &'static str {
        "fake"
    }

    fn describe(&self) -> String {
        "a scripted server".to_owned()
    }

    fn identify(&self) -> Result<ServerIdentity, EngineError> {
        let server = self.server();
        let last = server.timelines.last().ok_or_else(|| Self::not_played("identify"))?;
        Ok(ServerIdentity {
            system: last.log.system(),
            version: 150_000,
            version_text: "15.0 (fake)".to_owned(),
            timeline: last.log.timeline(),
            history: last.history.clone(),
            segment_size: last.log.segment_size(),
            position: last.log.end(),
            in_recovery: false,
        })
    }

    fn check(&self, _slot: Option<&str>) -> Vec<CheckLine> {
        Vec::new()
    }

    fn capture(
        &self,
        from: &CaptureFrom,
        options: &CaptureOptions,
        sink: &mut dyn LogSink,
    ) -> Result<(), EngineError> {
        let (mut timeline, mut position) = self.server().begin(from)?;
        let removed_before = self.server().removed_before;
        if position < removed_before {
            sink.gap(timeline, position, removed_before, "the server has removed it")?;
            position = removed_before;
        }
        let history =
            |number| self.server().timeline(number).map(|found| found.history.clone()).unwrap_or_default();
        sink.timeline(timeline, &history(timeline), position)?;
        let mut sent = 0;
        loop {
            let next = self
                .server()
                .next(timeline, position, sent)
                .ok_or_else(|| Self::not_played("stream from"))?;
            match next {
                Next::Break => {
                    return Err(
                        EngineError::new("pg.connect", "read from", "the server", "it went away").retryable()
                    );
                }
                Next::Send(bytes) => {
                    sink.write(position, &bytes)?;
                    position = position.plus(bytes.len() as u64);
                    sent += bytes.len() as u64;
                }
                Next::EndOfTimeline(at, next) => {
                    sink.timeline_end(at)?;
                    let size = self.identify()?.segment_size.max(1);
                    (timeline, position) = (next, LogOffset(at.0 - at.0 % size));
                    sink.timeline(timeline, &history(timeline), position)?;
                }
                Next::Idle(now) => {
                    if let Some(now) = now {
                        sink.covered(position, now)?;
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            let durable = sink.tick()?;
            let mut server = self.server();
            server.acknowledged = server.acknowledged.max(durable);
            if options.stop.is_set() || options.until.is_some_and(|until| durable >= until) {
                return Ok(());
            }
        }
    }

    fn drop_slot(&self, _slot: &str) -> Result<(), EngineError> {
        Ok(())
    }

    fn slot_holds(&self, _slot: &str) -> Result<SlotHolds, EngineError> {
        Ok(SlotHolds::Unknown)
    }

    fn backup(&self, _options: &BackupOptions, _sink: &dyn ImageSink) -> Result<BackupEnd, EngineError> {
        Err(Self::not_played("back up"))
    }

    fn restore_point(&self, _name: &str) -> Result<LogOffset, EngineError> {
        Err(Self::not_played("make a restore point on"))
    }

    fn decoder(&self, segment_size: u64, carry: Carry) -> Box<dyn LogDecoder> {
        Box::new(FakeDecoder::new(segment_size, carry))
    }

    fn log_head(&self, bytes: &[u8]) -> Result<LogHead, EngineError> {
        decoder::head(bytes)
    }

    fn history(&self, bytes: &[u8]) -> Result<Vec<HistoryEntry>, EngineError> {
        let wrong = || EngineError::new("fake.history", "read", "a history", "it is none of the fake log");
        let lines = std::str::from_utf8(bytes).map_err(|_| wrong())?.lines().filter(|line| !line.is_empty());
        let entry = |line: &str| {
            let mut fields = line.split('\t');
            let timeline = fields.next()?.parse().ok()?;
            let (high, low) = fields.next()?.split_once('/')?;
            let (high, low) = (u64::from_str_radix(high, 16).ok()?, u64::from_str_radix(low, 16).ok()?);
            Some(HistoryEntry { timeline, until: LogOffset(high << 32 | low) })
        };
        lines.map(|line| entry(line).ok_or_else(wrong)).collect()
    }

    fn last_record(
        &self,
        bytes: &[u8],
        start: LogOffset,
        segment_size: u64,
        before: Option<Carry>,
        at: LogOffset,
    ) -> Option<RecordSpan> {
        let unknown = Carry { record_start: start, position: start, ..Carry::default() };
        let mut decoder = FakeDecoder::new(segment_size, before.unwrap_or(unknown));
        decoder.feed(bytes);
        let records = decoder.cut().events.into_iter().map(|event| event.record());
        records.take_while(|record| record.start <= at).last()
    }

    fn carry_of(&self, segment: &[u8], start: LogOffset, segment_size: u64) -> Carry {
        let unknown = Carry { record_start: start, position: start, ..Carry::default() };
        let mut decoder = FakeDecoder::new(segment_size, unknown);
        decoder.feed(segment);
        decoder.carry()
    }

    fn local_log(&self, _: &Path, _of: &LocalTimeline, _segment_size: u64) -> Result<LocalLog, EngineError> {
        Ok(LocalLog::default())
    }

    fn prepare_recovery(&self, _settings: &RecoverySettings) -> Result<(), EngineError> {
        Err(Self::not_played("prepare the recovery of"))
    }

    fn start(
        &self,
        _options: &StartOptions,
        _events: &mut dyn FnMut(RecoveryEvent),
    ) -> Result<RecoveryReached, EngineError> {
        Err(Self::not_played("start"))
    }
}
