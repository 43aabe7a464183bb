//! The fakes themselves, and a sink in memory that shows what the suite finds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use everpoint_core::{Carry, LogOffset, Micros, Verdict};

use super::*;
use crate::{CaptureFrom, CaptureOptions, Engine, EngineError, LogDecoder, LogSink, StopFlag};

const SEGMENT: u64 = 1 << 20;

fn log(records: u64) -> FakeLog {
    let mut log = FakeLog::new(7, 1, SEGMENT, LogOffset(SEGMENT));
    (1..=records).for_each(|xid| {
        log.commit(xid, Micros(i64::try_from(xid).unwrap()), 30_000);
    });
    log
}

type Branches = BTreeMap<(u32, Vec<u8>), (LogOffset, Vec<u8>)>;

/// Which promise the sink breaks.
#[derive(Clone, Copy, PartialEq)]
enum Flaw {
    None,
    TakesHoles,
    LosesBytes,
    LiesAboutDurability,
    ForgetsOldBranch,
}

struct MemorySink {
    store: Arc<Mutex<Branches>>,
    current: Option<(u32, Vec<u8>)>,
    flaw: Flaw,
}

impl LogSink for MemorySink {
    fn stands(&mut self, timeline: u32, history: &[u8]) -> Result<Option<LogOffset>, EngineError> {
        let store = self.store.lock().unwrap();
        Ok(store.get(&(timeline, history.to_vec())).map(|(start, held)| start.plus(held.len() as u64)))
    }

    fn timeline(&mut self, timeline: u32, history: &[u8], from: LogOffset) -> Result<(), EngineError> {
        let key = (timeline, history.to_vec());
        let mut store = self.store.lock().unwrap();
        if self.flaw == Flaw::ForgetsOldBranch && timeline > 1 {
            store.clear();
        }
        store.entry(key.clone()).or_insert((from, Vec::new()));
        self.current = Some(key);
        Ok(())
    }

    fn write(&mut self, from: LogOffset, bytes: &[u8]) -> Result<(), EngineError> {
        let wrong = || EngineError::new("test", "write", "memory", "a hole");
        let mut store = self.store.lock().unwrap();
        let (start, held) = self.current.as_ref().and_then(|key| store.get_mut(key)).ok_or_else(wrong)?;
        let end = start.plus(held.len() as u64);
        if from > end && self.flaw != Flaw::TakesHoles {
            return Err(wrong());
        }
        let known = usize::try_from(end.since(from)).unwrap();
        let mut new = bytes.get(known..).unwrap_or_default().to_vec();
        if self.flaw == Flaw::LosesBytes && new.len() > 100_000 {
            new[99_999] ^= 1;
        }
        held.extend(new);
        Ok(())
    }

    fn covered(&mut self, _: LogOffset, _: Micros) -> Result<(), EngineError> {
        Ok(())
    }

    fn tick(&mut self) -> Result<LogOffset, EngineError> {
        let store = self.store.lock().unwrap();
        let (start, held) = self.current.as_ref().and_then(|key| store.get(key)).unwrap();
        let more = u64::from(self.flaw == Flaw::LiesAboutDurability);
        Ok(start.plus(held.len() as u64 + more))
    }

    fn timeline_end(&mut self, _: LogOffset) -> Result<(), EngineError> {
        Ok(())
    }

    fn gap(&mut self, _: u32, _: LogOffset, _: LogOffset, _: &str) -> Result<(), EngineError> {
        Ok(())
    }
}

fn suite(flaw: Flaw) -> Result<(), String> {
    let store = Arc::new(Mutex::new(Branches::new()));
    let make_store = Arc::clone(&store);
    let mut make = move || -> Box<dyn LogSink> {
        Box::new(MemorySink { store: Arc::clone(&make_store), current: None, flaw })
    };
    let read = |timeline: u32, history: &[u8], from: LogOffset| {
        let store = store.lock().unwrap();
        let Some((start, held)) = store.get(&(timeline, history.to_vec())) else {
            return Vec::new();
        };
        held.get(usize::try_from(from.since(*start)).unwrap()..).unwrap_or_default().to_vec()
    };
    log_sink(&mut make, &read, &log(80))
}

#[test]
fn a_faithful_sink_passes_and_each_flaw_is_found() {
    assert_eq!(suite(Flaw::None), Ok(()));
    for flaw in [Flaw::TakesHoles, Flaw::LosesBytes, Flaw::LiesAboutDurability, Flaw::ForgetsOldBranch] {
        assert!(suite(flaw).is_err());
    }
}

fn unknown(at: LogOffset) -> Carry {
    Carry { record_start: at, position: at, ..Carry::default() }
}

#[test]
fn the_decoder_finds_every_record_whatever_the_chunks() {
    let log = log(80);
    let bytes = log.slice(log.start(), log.end());
    for chunk in [1, 7, 4096, bytes.len()] {
        let mut decoder = FakeDecoder::new(SEGMENT, unknown(log.start()));
        bytes.chunks(chunk).for_each(|chunk| decoder.feed(chunk));
        let found = decoder.cut();
        assert_eq!((found.records, found.system, found.timeline), (80, 7, 1));
        assert_eq!(found.verdict, Verdict::Intact);
        let spans: Vec<_> = found.events.iter().map(everpoint_core::LogEvent::record).collect();
        assert_eq!(spans, log.records().iter().map(|record| record.span).collect::<Vec<_>>());
    }
}

#[test]
fn a_carry_takes_a_record_across_a_cut() {
    let log = log(80);
    let middle = LogOffset(2 * SEGMENT);
    let mut first = FakeDecoder::new(SEGMENT, unknown(log.start()));
    first.feed(log.slice(log.start(), middle));
    assert!(matches!(first.cut().verdict, Verdict::EndsAt { .. }), "a record crosses the segments");
    let mut second = FakeDecoder::new(SEGMENT, first.carry());
    second.feed(log.slice(middle, log.end()));
    let found = second.cut();
    assert!(!found.head_unknown);
    let mut blind = FakeDecoder::new(SEGMENT, unknown(middle));
    blind.feed(log.slice(middle, log.end()));
    let without = blind.cut();
    assert!(without.head_unknown);
    assert_eq!(found.records, without.records + 1);
}

#[test]
fn the_server_breaks_forgets_and_forks_as_told() {
    let old = log(80);
    let at = old.records()[40].span.end;
    let mut young = old.fork(2, at);
    young.commit(1000, Micros(1), 10);
    let history = format!("1\t{at}\tx\n").into_bytes();
    let server = FakeServer {
        removed_before: LogOffset(2 * SEGMENT),
        timelines: vec![
            FakeTimeline { log: old.clone(), history: Vec::new(), ends: Some(at) },
            FakeTimeline { log: young.clone(), history: history.clone(), ends: None },
        ],
        chunk: 5000,
        breaks: [10_000].into(),
        clock: None,
        acknowledged: LogOffset(0),
    };
    let engine = FakeEngine::scripted(server);
    assert_eq!(engine.history(&history).unwrap()[0].until, at);
    let store = Arc::new(Mutex::new(Branches::new()));
    let mut sink = MemorySink { store: Arc::clone(&store), current: None, flaw: Flaw::None };
    let options = CaptureOptions {
        slot: None,
        lasting: None,
        create_slot: false,
        temporary: false,
        until: Some(young.end()),
        stop: StopFlag::default(),
    };
    let from = CaptureFrom { at: Some((1, LogOffset(SEGMENT))), anew: false };
    let error = engine.capture(&from, &options, &mut sink).unwrap_err();
    assert!(error.retryable);
    let from = CaptureFrom { at: Some((1, LogOffset(2 * SEGMENT + 10_000))), anew: false };
    engine.capture(&from, &options, &mut sink).unwrap();
    let store = store.lock().unwrap();
    assert_eq!(store[&(1, Vec::new())].1, old.slice(LogOffset(2 * SEGMENT), at));
    assert_eq!(store[&(2, history)].1, young.slice(young.start(), young.end()));
    assert_eq!(engine.server().acknowledged, young.end());
}
